"""The agents that `make bench-scale` plays, as the product's own client and activities find them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

import pytest
from temporalio.testing import ActivityEnvironment

from activities.beats import LIVE, READY
from activities.fencing import FenceRequest, Fencing
from activities.promotion import PromoteRequest, Promotion, RepointRequest
from qnwis.continuity.evidence import ClusterEvidence
from qnwis.continuity.executor import Outcome, OutcomeStatus
from qnwis.continuity.heartbeat import NodeStatus
from qnwis.continuity.plan import FencePrimary, Plan, PromoteTarget, RepointStandbys
from qnwis.continuity.planner import make_plan
from qnwis.continuity.topology import Cluster
from qnwis.continuity.verifier import verify
from qnwis.providers.errors import Unreachable
from qnwis.providers.evidence import collect_evidence
from qnwis.providers.fencing import HookByMaker, PowerHook
from qnwis.providers.nodes import HttpNodes
from qnwis.transport import Transport
from tests.bench.scale.agents import Agents
from tests.bench.scale.control import Control, How
from tests.bench.scale.world import NODES, policy, topology

CLUSTERS = 2


@dataclass
class Scene:
    nodes: HttpNodes
    control: Control
    port: int
    cluster: Cluster
    """The second of two; nobody asks for its record."""


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    server = await Agents(CLUSTERS).listen(port=0)
    port = server.sockets[0].getsockname()[1]
    cluster = topology(1, wave_size=5, dns="127.0.0.1", key_file=Path("none"))
    nodes = tuple(
        node.model_copy(update={"endpoint": f"http://{node.hostname}:{port}"}) for node in cluster.nodes
    )
    cluster = cluster.model_copy(update={"nodes": nodes, "dns": None})
    control = Control(port)
    async with HttpNodes(Transport()) as client:
        yield Scene(client, control, port, cluster)
    await control.aclose()
    server.close()


async def test_every_node_is_probed_and_counted(scene: Scene) -> None:
    for node in scene.cluster.nodes:
        for path in (LIVE, READY):
            assert (await scene.nodes.probe(node, path, timeout_s=2)).ok
        state = await scene.nodes.state(node, timeout_s=2)
        assert state.writable is (node.node_id == "node-1")
    counts = await scene.control.counts()
    assert counts.asked == {LIVE: NODES, READY: NODES} and counts.others == NODES
    assert (counts.heard, counts.heard_twice, counts.nodes) == (NODES, 0, NODES * CLUSTERS)
    await scene.control.mark()
    assert (await scene.control.counts()).probes == 0


async def test_a_killed_node_resets_its_streams_and_is_there_again_once_healed(scene: Scene) -> None:
    node = scene.cluster.nodes[0]
    async with aclosing(scene.nodes.events(node)) as events:
        assert (await anext(events)).writable
        await scene.control.fail((1, 0), how=How.KILLED)
        with pytest.raises(Unreachable):
            await anext(events)
    assert not (await scene.nodes.probe(node, LIVE, timeout_s=2)).ok
    await scene.control.heal((1, 0))
    assert (await scene.nodes.probe(node, LIVE, timeout_s=2)).ok


async def test_a_silent_node_lets_nobody_connect_and_others_answer(scene: Scene) -> None:
    silent, other = scene.cluster.nodes[0], scene.cluster.nodes[1]
    assert (await scene.nodes.probe(silent, LIVE, timeout_s=2)).ok
    await scene.control.fail((1, 0), how=How.SILENT)
    probe = await scene.nodes.probe(silent, LIVE, timeout_s=0.2)
    assert (probe.ok, probe.error_type) == (False, "timeout")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await asyncio.open_connection(silent.hostname, scene.port)
    assert (await scene.nodes.probe(other, LIVE, timeout_s=2)).ok
    await scene.control.heal((1, 0))
    assert (await scene.nodes.probe(silent, LIVE, timeout_s=2)).ok


async def test_a_failover_is_carried_out_and_verified(scene: Scene) -> None:
    """By the product's own activities, past the primary that was killed."""
    nodes, cluster = scene.nodes, scene.cluster
    await scene.control.fail((1, 0), how=How.KILLED)
    before = await collect_evidence(nodes, cluster)
    assert [seen.status for seen in before.nodes].count(NodeStatus.HEALTHY) == NODES - 1
    planning = make_plan(cluster, policy(cluster), before, trigger_reason="a test")
    assert planning.plan is not None, planning.refusal
    plan = planning.plan
    assert plan.failover_target_id == "node-2"  # of the same region
    fenced = await _carried_out(scene, plan)
    after = await collect_evidence(nodes, cluster)
    report = _verified(scene, plan, before, after, fenced)
    assert report == []
    await scene.control.heal((1, 0))
    old = await nodes.state(cluster.nodes[0], timeout_s=2)
    assert (old.writable, old.upstream, old.streaming, old.timeline) == (False, "node-2", True, 2)


async def _carried_out(scene: Scene, plan: Plan) -> Outcome:
    """What fencing came to; the other two succeed."""
    nodes, world = scene.nodes, {"run_id": "run-1", "epoch": 2, "cluster": scene.cluster}
    fencing, promotion = Fencing(nodes, HookByMaker(PowerHook(Transport()))), Promotion(nodes)
    within = ActivityEnvironment()
    fence, promote, repoint = plan.actions[:3]
    assert isinstance(fence, FencePrimary) and isinstance(promote, PromoteTarget)
    assert isinstance(repoint, RepointStandbys)
    fenced = await within.run(
        fencing.fence, FenceRequest(action=fence, target=plan.failover_target_id, **world)
    )
    promoted = await within.run(
        promotion.promote,
        PromoteRequest(action=promote, plan=plan, policy=policy(scene.cluster), **world),
    )
    repointed = await within.run(promotion.repoint, RepointRequest(action=repoint, **world))
    outcomes = [fenced, promoted, repointed]
    assert {outcome.status for outcome in outcomes} == {OutcomeStatus.SUCCEEDED}, outcomes
    return fenced


def _verified(
    scene: Scene, plan: Plan, before: ClusterEvidence, after: ClusterEvidence, fenced: Outcome
) -> list[str]:
    """What the verifier finds wrong."""
    report = verify(
        plan,
        scene.cluster,
        policy(scene.cluster),
        before,
        after,
        fencing=fenced.fencing,
        dns=None,
        elapsed_ms=1.0,
        epoch=2,
    )
    return [f"{check.name}: {check.detail}" for check in report.failures]
