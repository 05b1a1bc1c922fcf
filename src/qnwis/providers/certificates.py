"""Certificates as they are shown on connections: until when each counts."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

import httpx

from qnwis.continuity.readiness_facts import CertificateSeen
from qnwis.continuity.topology import Cluster, Node
from qnwis.pki.authority import issued
from qnwis.tls.files import TlsError, TlsFiles
from qnwis.transport import Transport

ANSWER_WITHIN_S = 2.0
OWN = "this worker"


class CertificateReader(Protocol):
    async def seen(self, cluster: Cluster) -> Sequence[CertificateSeen] | None:
        """The own certificate and those of the cluster's agents; None where agents speak plain HTTP."""
        ...


@dataclass(frozen=True)
class ShownCertificates:
    """Asks each agent, and looks at what it shows."""

    transport: Transport

    async def seen(self, cluster: Cluster) -> Sequence[CertificateSeen] | None:
        if self.transport.tls is None:
            return None
        agents = [node for node in cluster.nodes if node.patroni is None]
        async with self.transport.agents(timeout_s=ANSWER_WITHIN_S) as client:
            shown = await asyncio.gather(*(_shown(client, node) for node in agents))
        return [await asyncio.to_thread(_own, self.transport.tls), *shown]


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
