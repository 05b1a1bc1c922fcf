"""An active/active lab in two regions: agents, leases, logical replication and DNS, all real.

The tests share one lab. What a region's loss does to the whole is told in one story, as an operator sees it.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from activities.evidence import ClusterName
from activities.readiness import ReadinessChecks
from qnwis.cli.status import Status, read_status
from qnwis.config.registry import Registry
from qnwis.continuity.quorum import ClusterState
from qnwis.continuity.readiness_facts import Grade
from qnwis.lab.acks import analyse
from qnwis.lab.active_demo import CONTESTED, active_report, hold_back, not_yet_elsewhere
from qnwis.lab.cluster import Lab
from qnwis.lab.land import ACTIVE_ACTIVE, HOME
from qnwis.lab.postgres import SUPERUSER
from qnwis.lab.procfs import living_inside
from qnwis.lab.waiting import not_streaming, until_none
from qnwis.providers.agent_tls import AskedAgents
from qnwis.providers.audit_store import SqliteAuditStore
from qnwis.providers.dns import Rfc2136Dns
from qnwis.providers.nodes import HttpNodes
from qnwis.providers.region_checks import DatabaseChecks
from qnwis.providers.region_weights import DnsWeights
from qnwis.providers.upkeep import AskedUpkeeps

AWAY = "region-2"
AT_HOME, LEFT = {HOME: 60, AWAY: 40}, {HOME: 0, AWAY: 100}
NO_SERVER = "127.0.0.1:1"
WITHIN_S = 60.0


@pytest.fixture(scope="module")
async def lab() -> AsyncIterator[Lab]:
    root = Path(f"/var/tmp/qnwis-test-active-lab-{os.getpid()}")
    lab = await Lab.create(root, shape=ACTIVE_ACTIVE, cluster_id="shop")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in lab.certificates.environment().items():
            patch.setenv(name, value)  # as whoever asks for the status has it
        yield lab
    await lab.stop()
    assert living_inside(root) == []
    shutil.rmtree(root)


@pytest.fixture(scope="module")
async def nodes(lab: Lab) -> AsyncIterator[HttpNodes]:
    async with HttpNodes(lab.certificates.transport) as nodes:
        yield nodes


async def status_of(lab: Lab) -> Status:
    return await read_status(lab.cluster, lab.certificates.transport, NO_SERVER)


async def test_each_region_has_its_own_members_epoch_and_primary(lab: Lab, nodes: HttpNodes) -> None:
    for group in lab.cluster.lease_groups:
        for node in group.nodes:
            view = await nodes.membership(node, timeout_s=2)
            assert view.membership.members == tuple(sorted(n.node_id for n in group.nodes)), node.node_id
    now = await status_of(lab)
    assert now.serves and now.state is ClusterState.HEALTHY and now.primary_node_id is None
    assert [(v.region, v.primary_node_id, v.weight, v.quorum_size) for v in now.regions] == [
        (HOME, "node-1", 60, 2),
        (AWAY, "node-2", 40, 2),
    ]
    assert all((view.epoch or 0) > 0 for view in now.regions)


async def test_a_region_is_lost_its_weight_goes_and_comes_back_and_nothing_is_promoted_or_lost(
    lab: Lab, nodes: HttpNodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGUSER", SUPERUSER)
    monkeypatch.setenv("PGPASSFILE", str(lab.folder.passfile))
    weights, timelines = DnsWeights(), await lab.active.timelines()
    readiness = ReadinessChecks(
        Registry(lab.folder.config),
        nodes,
        Rfc2136Dns(),
        SqliteAuditStore(tmp_path / "audit.sqlite", tmp_path / "key.pem"),
        weights,
        DatabaseChecks(),
        AskedAgents(lab.certificates.transport),
        AskedUpkeeps(lab.certificates.transport),
    )
    await lab.start_clients(4, pause_ms=20)
    await until_written_by(lab, {"node-1", "node-2"})
    before = {
        check.name: check for check in (await readiness.evaluate(ClusterName(cluster_id="shop"))).checks
    }
    assert before["each region serves"].grade is before["replication between regions"].grade is Grade.READY
    assert before["DNS credentials"].grade is before["DNS weights"].grade is Grade.READY, before

    unsent = await hold_back(lab, HOME, print)
    for node in lab.cluster.in_region(HOME):
        await lab.kill_node(node.node_id)
    lost = await status_of(lab)
    assert lost.state is ClusterState.CRITICAL and not lost.serves
    assert [view.serves for view in lost.regions] == [False, True]
    found = await readiness.evaluate(ClusterName(cluster_id="shop"))
    assert found.grade in (Grade.NOT_EVALUATED, Grade.NOT_READY)

    await weights.shift(lab.cluster, before=AT_HOME, after=LEFT)
    left = await status_of(lab)
    assert left.state is ClusterState.DEGRADED and left.serves
    seen = len(lab.ack_log().acks)
    await until_written_by(lab, {"node-2"}, after=seen)
    not_yet = await not_yet_elsewhere(lab, HOME, unsent, print)
    assert not_yet.writes > 0 and not_yet.unsent_bytes > 0

    for node in lab.cluster.in_region(HOME):
        await lab.start_node(node.node_id)
    group = lab.cluster.lease_group(HOME)
    await until_none(lambda: not_streaming(nodes, group), group.cluster_id, [])
    await lab.active.until_caught_up()
    seen = len(lab.ack_log().acks)
    await weights.shift(lab.cluster, before=LEFT, after=AT_HOME)
    await until_written_by(lab, {"node-1", "node-2"}, after=seen)
    await lab.stop_clients()

    report = await active_report(lab, not_yet, timelines)
    assert report.verified, report
    assert analyse(lab.ack_log(), await lab.active.rows(HOME)).lost == ()
    (contested,) = [one for one in report.conflicts if one.key == {"id": CONTESTED}]
    assert (contested.winner.region, contested.loser.region) == (AWAY, HOME), "the later one stays"
    assert contested.seen_in == (HOME, AWAY)
    assert (await status_of(lab)).state is ClusterState.HEALTHY


async def until_written_by(lab: Lab, node_ids: set[str], *, after: int = 0) -> None:
    """Until each of these nodes has acknowledged one of the writes since so many."""
    async with asyncio.timeout(WITHIN_S):
        while not node_ids <= {ack.server for ack in lab.ack_log().acks[after:]}:
            await asyncio.sleep(0.1)
