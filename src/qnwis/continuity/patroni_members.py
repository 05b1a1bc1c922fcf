"""What `manager: patroni` asks of a topology: how each member's REST API is reached, and which rules hold.

All members in one region are one Patroni cluster with a DCS of its own; the cluster of the other region
follows it as a standby cluster."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from pydantic import field_validator

from .model import Model

MOST_REGIONS = 2
ENV = re.compile(r"env:([A-Za-z_][A-Za-z0-9_]*)")


class PatroniMember(Model):
    """Where a member's Patroni listens. The node's `node_id` is the member's `name` in Patroni."""

    url: str
    """Of its REST API, for example `https://10.0.1.10:8008`."""
    credentials: str | None = None
    """`env:NAME`: the worker's environment variable that holds `user:password` of Patroni's
    `restapi.authentication`."""
    ca_file: str | None = None
    """On the worker's machine: whose certificates are trusted, instead of the system's own."""

    @field_validator("url")
    @classmethod
    def _names_a_place(cls, url: str) -> str:
        if re.fullmatch(r"https?://[^/?#\s@]+", url) is None:
            raise ValueError("expected http:// or https:// with host and port, and nothing after them")
        return url

    @field_validator("credentials")
    @classmethod
    def _holds_no_secret(cls, credentials: str | None) -> str | None:
        if credentials is not None and ENV.fullmatch(credentials) is None:
            raise ValueError("expected env:NAME, an environment variable that holds user:password")
        return credentials


class BrokenPatroniRule(NamedTuple):
    """See `topology.BrokenRule`."""

    rule: str
    loc: tuple[str | int, ...]
    value: object
    expected: str


def broken_patroni_rules(
    topology: Mapping[str, object], nodes: Sequence[Mapping[str, object]]
) -> Iterator[BrokenPatroniRule]:
    """The rules that the plain form of a topology breaks, with and without `manager: patroni`."""
    if topology.get("manager") != "patroni":
        for index, node in enumerate(nodes):
            if node.get("patroni") is not None:
                yield BrokenPatroniRule(
                    "patroni_not_manager",
                    ("nodes", index, "patroni"),
                    "a mapping",
                    "none, or `manager: patroni` in the cluster",
                )
        return
    if topology.get("quorum_size") is not None:
        yield BrokenPatroniRule(
            "not_with_patroni",
            ("quorum_size",),
            topology["quorum_size"],
            "none; Patroni's DCS holds the quorum",
        )
    replication = topology.get("replication")
    if isinstance(replication, Mapping) and replication.get("mode") == "synchronous":
        yield BrokenPatroniRule(
            "not_with_patroni",
            ("replication", "mode"),
            "synchronous",
            "none; Patroni's own synchronous_mode decides",
        )
    if topology.get("deployment") == "active_active":
        yield BrokenPatroniRule(
            "not_with_patroni", ("deployment",), "active_active", "active_passive; Patroni has one primary"
        )
    yield from _members(nodes)
    if topology.get("dns") is not None:
        yield from _addresses(nodes)
    regions = list(dict.fromkeys(str(node["region"]) for node in nodes if "region" in node))
    if len(regions) > MOST_REGIONS:
        yield BrokenPatroniRule(
            "too_many_regions",
            ("nodes",),
            ", ".join(regions),
            f"nodes in at most {MOST_REGIONS} regions: one Patroni cluster and its standby cluster",
        )


def _addresses(nodes: Sequence[Mapping[str, object]]) -> Iterator[BrokenPatroniRule]:
    """Patroni fails over within a region without telling anybody, so no name may lead to a single member."""
    first: dict[object, tuple[int, object]] = {}
    for index, node in enumerate(nodes):
        database = node.get("database")
        host = database.get("host") if isinstance(database, Mapping) else None
        if host is None or node.get("region") is None:
            continue
        known, address = first.setdefault(node["region"], (index, host))
        if address != host:
            yield BrokenPatroniRule(
                "region_address_differs",
                ("nodes", index, "database", "host"),
                host,
                f"{address}, as nodes[{known}] of the same region has: with `dns`, an address of the region"
                " that leads to its leader (a proxy or a virtual address), because Patroni fails over there"
                " by itself",
            )


def _members(nodes: Sequence[Mapping[str, object]]) -> Iterator[BrokenPatroniRule]:
    urls: dict[object, int] = {}
    for index, node in enumerate(nodes):
        at = ("nodes", index)
        if node.get("role") == "witness":
            yield BrokenPatroniRule(
                "not_with_patroni", (*at, "role"), "witness", "primary or secondary; the DCS needs no witness"
            )
        if node.get("endpoint") is not None:
            yield BrokenPatroniRule(
                "not_with_patroni", (*at, "endpoint"), node["endpoint"], "none; no agent runs beside Patroni"
            )
        if node.get("database") is None:
            yield BrokenPatroniRule(
                "database_missing",
                (*at, "database"),
                "nothing",
                "host and port of its PostgreSQL, which the standby cluster of the other region follows",
            )
        member = node.get("patroni")
        if member is None:
            yield BrokenPatroniRule(
                "patroni_missing", (*at, "patroni"), "nothing", "the url of its Patroni, for manager: patroni"
            )
            continue
        url = member.get("url") if isinstance(member, Mapping) else None
        if isinstance(url, str) and urls.setdefault(url, index) != index:
            yield BrokenPatroniRule(
                "patroni_url_repeated",
                (*at, "patroni", "url"),
                url,
                f"a url of its own; nodes[{urls[url]}] already has this one",
            )
