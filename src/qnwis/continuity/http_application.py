"""What `manager: http` asks of a topology: how each node's application is asked for its state, demoted and
promoted, and which rules hold.

The application brings its own promote and demote. It gives no lease: that a node does not write is known only
from that node's own answer, from the power switch, or from a person."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from .http_headers import IDEMPOTENCY_HEADER, SECRET_HEADERS
from .model import Model

SECRET_FILE = re.compile(r"file:(/.+)")
"""`file:/path`: what that file on the worker's machine holds."""
PLACEHOLDERS = ("node_id", "hostname")
LONGEST_S = 30.0


class HttpEndpoint(Model):
    """Where an application is asked, and what its answer has to be."""

    url: str
    """May contain `{node_id}` and `{hostname}`, those of the node."""
    headers: Mapping[str, str] = {}
    """A value may be `file:/path`, a file on the worker's machine; what is secret has to be."""
    expect_status: int = Field(default=200, ge=200, le=299)

    def url_of(self, node_id: str, hostname: str) -> str:
        return _filled(self.url, node_id, hostname)

    @field_validator("url")
    @classmethod
    def _is_a_url(cls, url: str) -> str:
        if unknown := [name for name in re.findall(r"\{([^}]*)\}", url) if name not in PLACEHOLDERS]:
            raise ValueError(f"expected no placeholder but {{node_id}} and {{hostname}}, found {unknown}")
        parts = urlsplit(_filled(url, "n", "h"))
        if parts.scheme not in ("http", "https") or not parts.hostname or re.search(r"\s", url):
            raise ValueError("expected http://… or https://…, without spaces")
        if parts.username is not None or parts.password is not None:
            raise ValueError("expected a URL without user and password; use a header with file:/path")
        return url

    @field_validator("headers")
    @classmethod
    def _hold_no_secret(cls, headers: Mapping[str, str]) -> Mapping[str, str]:
        for name, value in headers.items():
            if not re.fullmatch(r"[A-Za-z0-9-]+", name):
                raise ValueError("expected names of letters, digits and hyphens")
            if name.lower() == IDEMPOTENCY_HEADER.lower():
                raise ValueError(f"expected no {name}; every demote and promote carries one of its own")
            if SECRET_HEADERS.search(name) and SECRET_FILE.fullmatch(value) is None:
                raise ValueError(f"expected file:/path for {name}, so that no secret stands in this file")
        return headers


class HttpState(HttpEndpoint):
    """The question for an application's state: `GET`, answered with JSON."""

    writable: str
    """JSON pointer to a boolean: whether this node accepts writes now."""
    position: str | None = None
    """JSON pointer to a whole number that grows with every write and is the same on nodes that have the same
    writes. With it a switchover waits until the target has all; without it nobody knows."""

    @field_validator("writable", "position")
    @classmethod
    def _is_a_pointer(cls, pointer: str | None) -> str | None:
        if pointer is not None and re.fullmatch(r"(/([^~/]|~[01])*)+", pointer) is None:
            raise ValueError("expected a JSON pointer such as /writable (RFC 6901)")
        return pointer


class HttpOrder(HttpEndpoint):
    """What demotes or promotes an application. It carries the effect's id as `Idempotency-Key`, the same for
    every attempt of one action of one run."""

    method: Literal["POST", "PUT", "PATCH", "DELETE"] = "POST"


class HttpApplication(Model):
    """How a node's application is asked."""

    state: HttpState
    demote: HttpOrder
    promote: HttpOrder
    ca_file: str | None = None
    """On the worker's machine: whose certificates are trusted, instead of the system's own."""
    answer_s: float = Field(default=10.0, gt=0, le=LONGEST_S)
    """How long a demote or a promote may take to be answered, seconds."""
    settle_s: float = Field(default=15.0, gt=0, le=LONGEST_S)
    """How long after its answer until the state shows it, seconds."""


class BrokenHttpRule(NamedTuple):
    """See `topology.BrokenRule`."""

    rule: str
    loc: tuple[str | int, ...]
    value: object
    expected: str


def broken_http_rules(
    topology: Mapping[str, object], nodes: Sequence[Mapping[str, object]]
) -> Iterator[BrokenHttpRule]:
    """The rules that the plain form of a topology breaks, with and without `manager: http`."""
    if topology.get("manager") != "http":
        for index, node in enumerate(nodes):
            if node.get("http") is not None:
                yield BrokenHttpRule(
                    "http_not_manager",
                    ("nodes", index, "http"),
                    "a mapping",
                    "none, or `manager: http` in the cluster",
                )
        return
    if topology.get("quorum_size") is not None:
        yield _not_with_http(
            ("quorum_size",), topology["quorum_size"], "none; an application gives no lease, so nobody votes"
        )
    replication = topology.get("replication")
    if isinstance(replication, Mapping) and replication.get("mode") == "synchronous":
        yield _not_with_http(
            ("replication", "mode"), "synchronous", "none; the application replicates by itself"
        )
    if topology.get("deployment") == "active_active":
        yield _not_with_http(
            ("deployment",), "active_active", "active_passive; one node of an application accepts writes"
        )
    if len(nodes) == 1:
        yield BrokenHttpRule("too_few_nodes", ("nodes",), "1 node", "at least 2: one more, to take over")
    yield from _applications(nodes)
    yield from _same_places(nodes)


def _not_with_http(loc: tuple[str | int, ...], value: object, expected: str) -> BrokenHttpRule:
    return BrokenHttpRule("not_with_http", loc, value, expected)


def _applications(nodes: Sequence[Mapping[str, object]]) -> Iterator[BrokenHttpRule]:
    for index, node in enumerate(nodes):
        at = ("nodes", index)
        if node.get("role") == "witness":
            yield _not_with_http((*at, "role"), "witness", "primary or secondary; nobody votes")
        if node.get("endpoint") is not None:
            yield _not_with_http((*at, "endpoint"), node["endpoint"], "none; no agent runs there")
        if node.get("database") is not None:
            yield _not_with_http(
                (*at, "database"), "a mapping", "none; clients reach the application at `hostname`"
            )
        if node.get("http") is None:
            yield BrokenHttpRule(
                "http_missing",
                (*at, "http"),
                "nothing",
                "its state, demote and promote, for manager: http",
            )


def _same_places(nodes: Sequence[Mapping[str, object]]) -> Iterator[BrokenHttpRule]:
    """One URL for two nodes would take one node's word for the other's."""
    first: dict[tuple[str, str], int] = {}
    for index, node in enumerate(nodes):
        http = node.get("http")
        for name in ("state", "demote", "promote"):
            endpoint = http.get(name) if isinstance(http, Mapping) else None
            url = endpoint.get("url") if isinstance(endpoint, Mapping) else None
            if not isinstance(url, str):
                continue
            place = _filled(url, str(node.get("node_id")), str(node.get("hostname")))
            known = first.setdefault((name, place), index)
            if known != index:
                yield BrokenHttpRule(
                    "http_url_repeated",
                    ("nodes", index, "http", name, "url"),
                    url,
                    f"a place of its own; nodes[{known}] already has this one ({{hostname}} and {{node_id}}"
                    " are filled in)",
                )


def _filled(url: str, node_id: str, hostname: str) -> str:
    return url.replace("{node_id}", node_id).replace("{hostname}", hostname)
