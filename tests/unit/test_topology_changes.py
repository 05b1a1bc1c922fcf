"""One look at the files for all watches tells each whose cluster is registered anew, and no other."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from activities import topology_changes
from activities.topology_changes import TopologyChanges
from qnwis.config.registry import Registered, Registry
from qnwis.continuity.topology import Cluster
from tests.integration.continuity.world import three_nodes, write_registry

WITHIN_S = 20.0


class Looked(Registry):
    """A registry that says who was looked at."""

    def load(self, cluster_id: str) -> Registered:
        LOOKS.append(cluster_id)
        return super().load(cluster_id)


LOOKS: list[str] = []


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    monkeypatch.setattr(topology_changes, "LOOK_EVERY_S", 0.005)
    LOOKS.clear()
    write_registry(tmp_path, cluster("a"))
    write_registry(tmp_path, cluster("b"))
    return Looked(tmp_path)


def cluster(cluster_id: str, **changes: object) -> Cluster:
    return three_nodes(cluster_id, heartbeat={"interval_sec": 0.02, "timeout_sec": 0.02}, **changes)


async def looked(cluster_id: str, times: int = 2) -> None:
    """A look that begins now has ended."""
    async with asyncio.timeout(WITHIN_S):
        seen = LOOKS.count(cluster_id)
        while LOOKS.count(cluster_id) < seen + times:
            await asyncio.sleep(0.001)


async def test_every_watch_of_a_cluster_that_is_registered_anew_is_told_and_no_other(
    registry: Registry,
) -> None:
    changes = TopologyChanges(registry)
    a, b = (registry.load(name) for name in ("a", "b"))
    with changes.of(a) as first, changes.of(a) as second, changes.of(b) as other:
        await looked("a")
        assert not first.is_set() and not second.is_set()
        write_registry(registry.directory, cluster("a", name="renamed"))
        async with asyncio.timeout(WITHIN_S):
            await asyncio.gather(first.wait(), second.wait())
        await looked("b")
        assert not other.is_set()


async def test_a_changed_policy_is_told_as_well(registry: Registry) -> None:
    changes = TopologyChanges(registry)
    with changes.of(registry.load("a")) as changed, changes.of(registry.load("b")) as other:
        write_registry(registry.directory, cluster("a"), approvals=True)
        async with asyncio.timeout(WITHIN_S):
            await changed.wait()
        await looked("b")
        assert not other.is_set()


async def test_a_file_that_is_being_written_tells_nobody_and_ends_no_look(registry: Registry) -> None:
    file = registry.directory / "clusters" / "a" / "cluster.yaml"
    whole = file.read_text()
    with TopologyChanges(registry).of(registry.load("a")) as changed:
        file.write_text(whole[: len(whole) // 2])
        await looked("a")
        file.unlink()
        await looked("a")
        assert not changed.is_set()
        file.write_text(whole.replace("name: a", "name: renamed"))
        async with asyncio.timeout(WITHIN_S):
            await changed.wait()


async def test_nobody_looks_where_nobody_watches(registry: Registry) -> None:
    changes = TopologyChanges(registry)
    with changes.of(registry.load("a")):
        await looked("a")
    with changes.of(registry.load("b")):
        await looked("b")
        seen = LOOKS.count("a")
        await looked("b")
        assert LOOKS.count("a") == seen
