"""Patroni: the HTTP client of its REST API. It alone moves the primary; its DCS is never written to from
here."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from typing import Protocol, TypeVar

import httpx
from pydantic import BaseModel, JsonValue, ValidationError

from qnwis.continuity.evidence import NodeState
from qnwis.continuity.patroni_members import ENV, PatroniMember
from qnwis.continuity.refusal import Refusal
from qnwis.continuity.topology import Node
from qnwis.transport import Transport

from .errors import Refused, Unreachable
from .other_clients import OtherClients
from .patroni_answers import ClusterAnswer, ConfigAnswer, StatusAnswer, state_of

A = TypeVar("A", bound=BaseModel)

KEPT = 500
"""Characters of an answer that a message repeats."""


class Tried(Unreachable):
    """Patroni tried to move the leader and says that it did not come to that; its state says where it
    stands."""


class Patroni(Protocol):
    """What runs need of Patroni. Each call is answered by the node's own REST API, within `timeout_s`
    seconds.

    All raise Refused with Patroni's own words where it says no, and Unreachable where it is not known whether
    it did what was asked."""

    async def state(self, node: Node, *, timeout_s: float) -> NodeState:
        """What Patroni says of the member and its cluster; without upstreams. Raises Unreachable."""
        ...

    async def switchover(self, node: Node, *, leader: str, candidate: str, timeout_s: float) -> str:
        """Have the leader hand over to the candidate; what Patroni answered."""
        ...

    async def failover(self, node: Node, *, candidate: str, timeout_s: float) -> str:
        """Have the candidate made the leader, whatever has become of the old one; what Patroni answered."""
        ...

    async def follow_as_standby_cluster(self, node: Node, *, host: str, port: int, timeout_s: float) -> None:
        """Have the node's cluster be a standby cluster of that database. What it does comes after the
        answer."""
        ...

    async def stand_alone(self, node: Node, *, timeout_s: float) -> None:
        """Have the node's cluster be no standby cluster any more: its leader is to be a primary."""
        ...


class HttpPatroni:
    """Patroni over its REST API, on pooled keep-alive connections. Belongs to one event loop."""

    def __init__(self, transport: Transport) -> None:
        self._clients = OtherClients(transport)

    async def aclose(self) -> None:
        await self._clients.aclose()

    async def state(self, node: Node, *, timeout_s: float) -> NodeState:
        # Without its DCS a member knows nothing of its cluster; then it is known of itself alone.
        status, cluster, config = await asyncio.gather(
            self._read(node, "/patroni", StatusAnswer, timeout_s),
            self._read_if_known(node, "/cluster", ClusterAnswer, timeout_s),
            self._read_if_known(node, "/config", ConfigAnswer, timeout_s),
        )
        if status.patroni.name != node.node_id:
            raise Unreachable(
                f"{_party(node)} says that it is {status.patroni.name!r}; check the url of {node.node_id}"
            )
        return state_of(status, cluster, config)

    async def switchover(self, node: Node, *, leader: str, candidate: str, timeout_s: float) -> str:
        return await self._told(
            "POST", node, "/switchover", {"leader": leader, "candidate": candidate}, timeout_s
        )

    async def failover(self, node: Node, *, candidate: str, timeout_s: float) -> str:
        return await self._told("POST", node, "/failover", {"candidate": candidate}, timeout_s)

    async def follow_as_standby_cluster(self, node: Node, *, host: str, port: int, timeout_s: float) -> None:
        wanted: dict[str, JsonValue] = {"standby_cluster": {"host": host, "port": port}}
        await self._told("PATCH", node, "/config", wanted, timeout_s)

    async def stand_alone(self, node: Node, *, timeout_s: float) -> None:
        await self._told("PATCH", node, "/config", {"standby_cluster": None}, timeout_s)

    async def answers(self, node: Node, path: str, *, timeout_s: float) -> httpx.Response:
        """Any answer to a GET, whatever its status. Raises Unreachable."""
        return await self._ask("GET", node, path, None, timeout_s)

    async def _told(
        self, method: str, node: Node, path: str, body: Mapping[str, JsonValue], timeout_s: float
    ) -> str:
        response = await self._ask(method, node, path, body, timeout_s)
        said = response.text.strip()[:KEPT] or "(empty body)"
        if response.status_code == httpx.codes.OK:
            return said
        if response.is_client_error:
            raise Refused(_refusal(node, f"{method} {path}", response.status_code, said))
        told = f"{_party(node)} answered {method} {path} with {response.status_code}: {said}"
        raise Tried(told) if said.endswith(" failed") else Unreachable(told)

    async def _read(self, node: Node, path: str, kind: type[A], timeout_s: float) -> A:
        response = await self._ask("GET", node, path, None, timeout_s)
        try:
            return kind.model_validate_json(response.content)
        except ValidationError as error:
            said = f"status {response.status_code}: {response.text[:KEPT]}"
            raise Unreachable(f"{_party(node)} answered GET {path} with {said}") from error

    async def _read_if_known(self, node: Node, path: str, kind: type[A], timeout_s: float) -> A | None:
        try:
            return await self._read(node, path, kind, timeout_s)
        except Unreachable:
            return None

    async def _ask(
        self, method: str, node: Node, path: str, body: Mapping[str, JsonValue] | None, timeout_s: float
    ) -> httpx.Response:
        member = _member(node)
        auth = None if method == "GET" else _credentials(node, member)
        url = member.url + path
        try:
            return await self._clients.ask(
                method, url, ca_file=member.ca_file, timeout_s=timeout_s, json=body, auth=auth
            )
        except (httpx.HTTPError, TimeoutError, OSError) as error:
            why = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            raise Unreachable(
                f"{_party(node)} did not answer {method} {path} within {timeout_s:g} s ({why})"
            ) from error


def _member(node: Node) -> PatroniMember:
    assert node.patroni is not None, "the topology demands it of members"
    return node.patroni


def _party(node: Node) -> str:
    return f"Patroni of {node.node_id} at {_member(node).url}"


def _credentials(node: Node, member: PatroniMember) -> tuple[str, str] | None:
    """Raises Refused where the topology names a variable that this worker does not have."""
    named = ENV.fullmatch(member.credentials or "")
    if named is None:
        return None
    user, colon, password = os.environ.get(named[1], "").strip().partition(":")
    if not colon:
        raise Refused(
            Refusal(
                rule="patroni_credentials_missing",
                message=f"The environment variable {named[1]}, for Patroni of {node.node_id}, does not hold"
                " user:password on this worker",
                values={"node_id": node.node_id, "variable": named[1]},
                remedy="Set it where the worker is started.",
            )
        )
    return user, password


def _refusal(node: Node, what: str, status: int, said: str) -> Refusal:
    return Refusal(
        rule="patroni_refused",
        message=f"{_party(node)} refuses {what} with status {status}: {said}",
        values={"node_id": node.node_id, "status": status, "said": said},
        remedy="Remove what Patroni names; `patronictl list` shows how it sees the cluster."
        if status not in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN)
        else "Set patroni.credentials in cluster.yaml to those of its restapi.authentication, and see that"
        " its restapi.allowlist has this worker.",
    )
