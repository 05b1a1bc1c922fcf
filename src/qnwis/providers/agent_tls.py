"""What mutual TLS with agents shows: until when each certificate counts, and whom agents refused."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

import httpx
from pydantic import ValidationError

from qnwis.continuity.allowlist import RefusedCallers
from qnwis.continuity.readiness_facts import CertificateSeen
from qnwis.continuity.topology import Cluster, Node
from qnwis.pki.authority import issued
from qnwis.tls.files import TlsError, TlsFiles
from qnwis.transport import Transport

ANSWER_WITHIN_S = 2.0
OWN = "this worker"


class AgentTls(Protocol):
    """None is answered where agents speak plain HTTP."""

    async def certificates(self, cluster: Cluster) -> Sequence[CertificateSeen] | None:
        """The own one and those of the cluster's agents."""
        ...

    async def refused(self, cluster: Cluster) -> Mapping[str, RefusedCallers] | None:
        """Whom agents refused, by node_id; without those that do not answer."""
        ...


@dataclass(frozen=True)
class AskedAgents:
    """Asks each agent."""

    transport: Transport

    async def certificates(self, cluster: Cluster) -> Sequence[CertificateSeen] | None:
        if self.transport.tls is None:
            return None
        async with self.transport.agents(timeout_s=ANSWER_WITHIN_S) as client:
            shown = await asyncio.gather(*(_shown(client, node) for node in _agents(cluster)))
        return [await asyncio.to_thread(_own, self.transport.tls), *shown]

    async def refused(self, cluster: Cluster) -> Mapping[str, RefusedCallers] | None:
        if self.transport.tls is None:
            return None
        async with self.transport.agents(timeout_s=ANSWER_WITHIN_S) as client:
            said = await asyncio.gather(*(_refused(client, node) for node in _agents(cluster)))
        return {node.node_id: one for node, one in zip(_agents(cluster), said, strict=True) if one}


def _agents(cluster: Cluster) -> list[Node]:
    return [node for node in cluster.nodes if node.has_agent]


async def _refused(client: httpx.AsyncClient, node: Node) -> RefusedCallers | None:
    try:
        answer = await client.get(f"{node.agent_url}/callers/refused")
        return RefusedCallers.model_validate_json(answer.raise_for_status().content)
    except (httpx.HTTPError, ValidationError):
        return None


async def _shown(client: httpx.AsyncClient, node: Node) -> CertificateSeen:
    try:
        async with client.stream("GET", f"{node.agent_url}/health/live") as answer:
            connection = answer.extensions["network_stream"].get_extra_info("ssl_object")
            return CertificateSeen(owner=node.node_id, not_after=_end(connection.getpeercert()["notAfter"]))
    except (httpx.HTTPError, KeyError) as error:
        return CertificateSeen(owner=node.node_id, not_after=None, reason=str(error) or repr(error))


def _own(files: TlsFiles) -> CertificateSeen:
    try:
        return CertificateSeen(owner=OWN, not_after=issued(files.identity).not_after)
    except TlsError as error:
        return CertificateSeen(owner=OWN, not_after=None, reason=str(error))


def _end(text: str) -> datetime:
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(text), UTC)
