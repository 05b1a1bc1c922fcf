"""Whom the worker asks for archives, logical slots and backups: agents beside databases, and nobody else."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from qnwis.continuity.topology import Cluster
from qnwis.providers.upkeep import AskedUpkeeps
from tests.unit.continuity.application_scenes import by_http
from tests.unit.continuity.patroni_scenes import by_patroni
from tests.unit.continuity.scenes import cluster, node

SAID = {
    "archiving": {
        "mode": "off", "by_something": False, "waiting": 0, "oldest_waiting_s": None,
        "last_archived_at": None, "last_failed_at": None, "last_failed_file": None,
    },
    "logical_slots": [],
}  # fmt: skip


@dataclass
class Wire:
    """A transport that keeps whom it asked."""

    asked: list[str] = field(default_factory=list)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(f"{request.url.host}{request.url.path}")
        return httpx.Response(200, json=SAID)

    @contextlib.asynccontextmanager
    async def agents(self, **_: Any) -> AsyncIterator[httpx.AsyncClient]:
        async with httpx.AsyncClient(transport=httpx.MockTransport(self._answer)) as client:
            yield client


@pytest.mark.parametrize(
    ("topology", "asked"),
    [
        (cluster(node("n1", "primary"), node("n2"), node("w", "witness")), ["n1", "n2"]),
        (by_http(), []),
        (by_patroni(), []),
    ],
)
async def test_only_agents_beside_a_database_are_asked(topology: Cluster, asked: list[str]) -> None:
    wire: Any = Wire()
    said = await AskedUpkeeps(wire).of(topology)
    assert sorted(said) == asked
    assert sorted(wire.asked) == [f"{name}.example/upkeep" for name in asked]
