"""The guardian on a real Temporal server: it starts the runbook by itself, by its rules, once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from temporalio import activity
from temporalio.client import WorkflowFailureError, WorkflowHandle, WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError

from activities.people import People, Proof, ProofRequest
from qnwis.continuity.access import Deed
from qnwis.continuity.approvals import Vote
from qnwis.continuity.detection import Finding
from qnwis.continuity.guardian_rules import Acknowledgement, PastRun
from qnwis.continuity.region_wait import RegionFinding, RegionWord
from qnwis.continuity.run import RunOutcome
from qnwis.continuity.topology import NodeStatus
from qnwis.guardians import LOOK_WITHIN, begun, cluster_view
from qnwis.providers.errors import Refused
from qnwis.starting import running, say_to_guardian
from qnwis.temporal import connect
from tests.looking import WITHIN_S, Looks
from workflows.guardian import Guardian
from workflows.guardian_state import AcknowledgeRequest, GuardianView, PauseRequest, ResumeRequest
from workflows.names import failover_id, guardian_id
from workflows.primary_failure import PrimaryFailure

from .conftest import Setting, Stage
from .people import Crowd, asked
from .world import write_registry

Guard = WorkflowHandle[Guardian, None]


async def until(guardian: Guard, holds: Callable[[GuardianView], bool]) -> GuardianView:
    """The guardian's view once it is as asked. A failure shows the last one."""
    view = None
    try:
        async with asyncio.timeout(WITHIN_S):
            looks = Looks()
            while view is None or not holds(view):
                view = await guardian.query(Guardian.view)
                await looks.again()
    except TimeoutError:
        pytest.fail(f"never came true; last seen: {view!r}")
    return view


def all_healthy(view: GuardianView) -> bool:
    return len(view.statuses) == 3 and set(view.statuses.values()) == {NodeStatus.HEALTHY}


async def history_length(guardian: Guard) -> int:
    return (await guardian.describe()).history_length


async def test_a_killed_primary_is_failed_over_without_anybody(stage: Setting) -> None:
    on = await stage()
    guardian = await on.start_guardian()
    await until(guardian, all_healthy)

    on.world.kill("node-1")
    view = await until(guardian, lambda v: v.last_result is not None)

    assert view.last_result is not None and view.last_result.verified
    assert view.primary_node_id == "node-2" and on.world.writable() == ["node-2"]
    assert [effect for effect, _ in on.world.journal] == ["power_off", "promote", "follow", "dns"]
    record = await on.providers.audit.get(view.last_result.audit_id or "")
    assert record is not None and record.initiated_by == guardian_id(on.cluster_id)
    assert "3 misses in a row" in record.reason
    await guardian.terminate()


async def test_history_does_not_grow_while_nothing_changes(stage: Setting) -> None:
    on = await stage(cluster={"heartbeat": {"interval_sec": 0.02, "timeout_sec": 0.2}})
    guardian = await on.start_guardian()
    await until(guardian, all_healthy)
    before = await history_length(guardian)

    asked = 0
    probe = on.world.probe

    async def counting(node, path, *, timeout_s):  # type: ignore[no-untyped-def]
        nonlocal asked
        asked += 1
        return await probe(node, path, timeout_s=timeout_s)

    on.world.probe = counting  # type: ignore[method-assign]
    async with asyncio.timeout(WITHIN_S):
        looks = Looks()
        while asked < 300:
            await looks.again()

    assert await history_length(guardian) == before
    await guardian.terminate()


async def test_a_paused_guardian_says_who_paused_it_and_acts_when_resumed(stage: Setting) -> None:
    on = await stage()
    guardian = await on.start_guardian()
    await until(guardian, all_healthy)
    await guardian.signal(Guardian.pause_failover, PauseRequest(by="ann", reason="network work"))

    on.world.kill("node-1")
    view = await until(guardian, lambda v: v.holding is not None)
    assert "paused by ann: network work" in (view.holding or "") and on.world.journal == []

    await guardian.signal(Guardian.resume_failover, ResumeRequest(by="ann", reason="done"))
    view = await until(guardian, lambda v: v.last_result is not None)
    assert view.last_result is not None and view.last_result.verified
    await guardian.terminate()


async def test_a_standby_that_hears_the_primary_stops_an_automatic_failover(stage: Setting) -> None:
    """GitHub, October 2018: the watcher is cut off, the replicas are not."""
    on = await stage()
    guardian = await on.start_guardian()
    await until(guardian, all_healthy)

    on.world.cut_off("node-1")
    view = await until(guardian, lambda v: v.holding is not None)

    verdict = view.verdicts["node-1"]
    assert verdict.finding is Finding.PARTITION_SUSPECTED
    assert "still heard by node-2, node-3" in verdict.why and "[partition_suspected]" in (view.holding or "")
    assert view.last_result is None and view.history == ()
    assert on.world.journal == [] and on.world.writable() == ["node-1"]

    on.world.revive("node-1")
    on.world.machines["node-1"].reachable = True
    view = await until(guardian, all_healthy)
    assert view.holding is None
    with pytest.raises(RPCError, match="not found"):
        await on.client.get_workflow_handle(failover_id(on.cluster_id)).describe()
    await guardian.terminate()


async def test_a_suspected_partition_is_looked_at_again_without_a_vote_that_changes(
    stage: Setting,
) -> None:
    on = await stage()
    guardian = await on.start_guardian()
    await until(guardian, all_healthy)
    on.world.cut_off("node-1")
    await until(guardian, lambda v: v.verdicts["node-1"].finding is Finding.PARTITION_SUSPECTED)

    on.world.kill("node-1")  # no vote changes by that

    view = await until(guardian, lambda v: v.last_result is not None)
    assert view.last_result is not None and view.last_result.verified
    assert on.world.writable() == ["node-2"]
    await guardian.terminate()


async def test_a_run_of_a_person_counts_for_the_cooldown(stage: Setting) -> None:
    on = await stage()
    guardian = await on.start_guardian()
    await until(guardian, all_healthy)

    result = await (await on.start(even_if_healthy=True)).result()
    assert result.verified
    view = await until(guardian, lambda v: v.primary_node_id == "node-2" and len(v.history) == 1)
    assert view.history[0].run_id == result.run_id

    on.world.kill("node-2")
    view = await until(guardian, lambda v: v.holding is not None)
    assert "cooldown" in (view.holding or "") and on.world.writable() == []
    await guardian.terminate()


async def test_a_person_who_looked_at_a_failover_ends_its_cooldown(stage: Setting) -> None:
    on = await stage()
    guardian = await on.start_guardian()
    await until(guardian, all_healthy)
    on.world.kill("node-1")
    view = await until(guardian, lambda v: len(v.history) == 1)
    run_id = view.history[0].run_id
    on.world.come_back("node-1")
    await until(guardian, all_healthy)
    on.world.kill("node-2")
    view = await until(guardian, lambda v: v.holding is not None)
    assert "[cooldown]" in (view.holding or "") and run_id in (view.holding or "")

    with pytest.raises(WorkflowUpdateFailedError) as refused:
        await acknowledge(guardian, "another")
    assert isinstance(refused.value.cause, ApplicationError)
    assert (refused.value.cause.type, on.world.writable()) == ("run_unknown", [])
    marked = await acknowledge(guardian, run_id)

    assert marked.acknowledged is not None
    assert (marked.acknowledged.by, marked.acknowledged.reason) == ("ann", "disk replaced")
    view = await until(guardian, lambda v: len(v.history) == 2)
    assert on.world.writable() != [] and view.history[0].acknowledged == marked.acknowledged
    await guardian.terminate()


async def acknowledge(guardian: Guard, run_id: str) -> PastRun:
    request = AcknowledgeRequest(run_id=run_id, by="ann", reason="disk replaced")
    return await guardian.execute_update(Guardian.acknowledge, request)


@pytest.mark.parametrize(("strategy", "writable"), [("automatic", ["node-2"]), ("quorum_based", [])])
async def test_quorum_based_starts_by_itself_and_only_while_the_quorum_is_there(
    stage: Setting, strategy: str, writable: list[str]
) -> None:
    """Two of three nodes are left where the topology asks for all, under a policy that demands no quorum."""
    on = await stage(strategy=strategy, require_quorum=False, cluster={"quorum_size": 3})
    guardian = await on.start_guardian()
    await until(guardian, all_healthy)

    on.world.kill("node-1")

    view = await until(guardian, lambda v: v.last_result is not None)
    assert view.last_result is not None and on.world.writable() == writable
    refusal = view.last_result.refusal
    assert refusal is None if writable else refusal is not None and refusal.rule == "no_quorum_of_observers"
    await guardian.terminate()


async def test_it_continues_as_new_and_still_knows_what_it_knew(stage: Setting) -> None:
    on = await stage(strategy="manual")
    guardian = await on.start_guardian(events_before_new=40)
    first = guardian.first_execution_run_id

    async with asyncio.timeout(WITHIN_S):
        while (await on.client.get_workflow_handle(guardian.id).describe()).run_id == first:
            await guardian.signal(Guardian.pause_failover, PauseRequest(by="ann", reason="work"))
    current = on.client.get_workflow_handle_for(Guardian.run, guardian.id)
    view = await until(current, all_healthy)
    assert view.pause is not None and view.pause.by == "ann"
    await current.terminate()


async def test_an_acknowledgement_and_the_waits_survive_a_continuation_as_new(stage: Setting) -> None:
    on = await stage()
    ended_at = datetime.now(UTC)
    ann = Acknowledgement(by="ann", reason="looked", at=ended_at)
    history = [
        PastRun(run_id="moved", outcome=RunOutcome.COMPLETED, ended_at=ended_at, acknowledged=ann),
        PastRun(run_id="not-moved", outcome=RunOutcome.REFUSED, ended_at=ended_at, reason="no quorum"),
    ]
    guardian = await on.start_guardian(history=history, events_before_new=40)
    first = guardian.first_execution_run_id
    known = await until(guardian, all_healthy)

    async with asyncio.timeout(WITHIN_S):
        while (await on.client.get_workflow_handle(guardian.id).describe()).run_id == first:
            await guardian.signal(Guardian.resume_failover, ResumeRequest(by="ann", reason="work"))
    current = on.client.get_workflow_handle_for(Guardian.run, guardian.id)
    view = await until(current, all_healthy)
    assert view.history == known.history == tuple(history)
    assert (view.changed_at, view.watching_since) == (known.changed_at, known.watching_since)
    assert view.statements.keys() == known.statements.keys() and not view.abstaining
    await current.terminate()


async def test_files_that_cannot_be_used_for_a_while_end_no_guardian(stage: Setting) -> None:
    """Neither when it hears of a run then, nor when it continues as new."""
    on = await stage(strategy="manual")
    guardian = await on.start_guardian(events_before_new=60)
    first = guardian.first_execution_run_id
    await until(guardian, all_healthy)
    policy = on.settings.config_dir / "clusters" / on.cluster_id / "policy.yaml"
    usable = policy.read_text()
    policy.write_text("policy_id: [")
    run = PastRun(run_id="theirs", outcome=RunOutcome.COMPLETED, ended_at=datetime.now(UTC))
    await guardian.signal(Guardian.run_ended, run)
    await until(guardian, lambda view: "theirs" in [one.run_id for one in view.history])

    async with asyncio.timeout(WITHIN_S):
        while (await on.client.get_workflow_handle(guardian.id).describe()).run_id == first:
            await guardian.signal(Guardian.pause_failover, PauseRequest(by="ann", reason="work"))
    current = on.client.get_workflow_handle_for(Guardian.run, guardian.id)
    policy.write_text(usable)
    view = await until(current, all_healthy)
    assert "theirs" in [one.run_id for one in view.history]
    await current.terminate()


async def begin(on: Stage, guardian: Guard, monkeypatch: pytest.MonkeyPatch) -> GuardianView | None:
    """As `guardian start` sees it begin; a busy machine takes its time."""
    monkeypatch.setattr("qnwis.guardians.BEGINS_WITHIN_S", WITHIN_S)
    look = partial(cluster_view, on.client, on.cluster_id, within=LOOK_WITHIN)
    return await begun(guardian, look, lambda view: bool(view.verdicts))


async def test_one_that_was_ended_would_answer_and_is_none(
    stage: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    on = await stage()
    guardian = await on.start_guardian()
    seen = await begin(on, guardian, monkeypatch)
    assert seen is not None and seen.primary_node_id == "node-1" and len(seen.verdicts) == 3
    await guardian.terminate()
    assert (await guardian.query(Guardian.view)).primary_node_id == "node-1", "as it was"
    with pytest.raises(Refused) as caught:
        await cluster_view(on.client, on.cluster_id)
    assert "has ended (terminated)" in caught.value.refusal.message


async def test_one_of_a_cluster_that_nobody_registered_says_so_as_it_begins(
    stage: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    on = await stage()
    (on.settings.config_dir / "clusters" / on.cluster_id / "cluster.yaml").unlink()
    guardian = await on.start_guardian()
    with pytest.raises(WorkflowFailureError) as failed:
        await begin(on, guardian, monkeypatch)
    assert "cluster.yaml: found no readable file" in str(failed.value.cause.__cause__)


async def test_in_another_namespace_nothing_is_known_of_it(
    stage: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    on = await stage(serve=False)
    monkeypatch.setenv("TEMPORAL_NAMESPACE", "typo")
    elsewhere = await connect(on.client.service_client.config.target_host)
    for asked_for in (
        cluster_view(elsewhere, on.cluster_id),
        running(elsewhere, failover_id(on.cluster_id)),
        say_to_guardian(elsewhere, on.cluster_id, "pause", PauseRequest(by="ann", reason="test")),
    ):
        with pytest.raises(RPCError, match="Namespace typo is not found"):
            await asked_for


async def test_a_changed_policy_reaches_a_quiet_guardian(stage: Setting) -> None:
    """Where from then on people must prove who they are, a claimed name is taken no longer."""
    on = await stage()
    guardian = await on.start_guardian()
    await until(guardian, all_healthy)
    request = ResumeRequest(by="ann", reason="done")
    await guardian.execute_update(Guardian.resume_answered, request)
    write_registry(on.settings.config_dir, on.world.cluster, approvals=True)
    with pytest.raises(WorkflowUpdateFailedError):
        async with asyncio.timeout(WITHIN_S):
            while True:
                await guardian.execute_update(Guardian.resume_answered, request)
                await asyncio.sleep(1.0)
    await guardian.terminate()


async def test_a_policy_that_changed_while_no_worker_watched_is_taken_in(stage: Setting) -> None:
    on = await stage(serve=False)
    async with AsyncExitStack() as running:
        for worker in on.workers():
            await running.enter_async_context(worker)
        guardian = await on.start_guardian()
        await until(guardian, all_healthy)
    write_registry(on.settings.config_dir, on.world.cluster, approvals=True)
    async with AsyncExitStack() as running:
        for worker in on.workers():
            await running.enter_async_context(worker)
        request = ResumeRequest(by="ann", reason="done")
        with pytest.raises(WorkflowUpdateFailedError):
            async with asyncio.timeout(WITHIN_S):
                while True:
                    await guardian.execute_update(Guardian.resume_answered, request)
                    await asyncio.sleep(1.0)
        await guardian.terminate()


async def test_a_guardian_of_another_id_is_refused(stage: Setting) -> None:
    on = await stage()
    run = await on.client.start_workflow(
        "Guardian", {"cluster_id": on.cluster_id}, id=f"g-{on.cluster_id}", task_queue=on.settings.task_queue
    )
    with pytest.raises(WorkflowFailureError) as failed:
        await run.result()
    assert guardian_id(on.cluster_id) in str(failed.value.cause)


async def test_a_guardian_that_goes_on_as_new_watches_while_it_is_not_known_who_speaks(
    stage: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, known = asyncio.Event(), asyncio.Event()
    prove = People.prove

    @activity.defn(name="prove")
    async def slow(self, request: ProofRequest) -> Proof:  # type: ignore[no-untyped-def]
        asked.set()
        await known.wait()
        return await prove(self, request)

    monkeypatch.setattr(People, "prove", slow)
    on = await stage(approvals=True)
    guardian = await on.start_guardian(events_before_new=60)
    await until(guardian, all_healthy)
    first = (await on.client.get_workflow_handle(guardian.id).describe()).run_id
    pausing = PauseRequest(by="ann", reason="a rack is being moved")
    said = asyncio.create_task(guardian.execute_update(Guardian.pause_answered, pausing))
    word = RegionWord(region="region-1", finding=RegionFinding.WELL, why="test")
    async with asyncio.timeout(WITHIN_S):
        await asked.wait()
        while (await guardian.describe()).history_length < 60:
            await guardian.signal(Guardian.region_word, word)
    on.world.kill("node-1")
    assert (await until(guardian, lambda view: view.own_run is not None)).own_run
    known.set()
    with pytest.raises(WorkflowUpdateFailedError):
        await said  # without a token
    async with asyncio.timeout(WITHIN_S):
        looks = Looks()
        while (await on.client.get_workflow_handle(guardian.id).describe()).run_id == first:
            await looks.again()


MISTYPED = {
    "RoundTrip": [{"cluster_id": "c", "initiated_by": "bob", "reason": "test", "maintenance": {}}],
    "ReadinessCheck": [{"cluster_id": "c"}],
    "AccessReviewRun": [{}],
    "UsedToken": [],
}


@pytest.mark.parametrize("kind", MISTYPED)
async def test_what_is_no_run_is_refused_under_a_clusters_lock(stage: Setting, kind: str) -> None:
    """It would stand where runs are looked for, and keep one that is due from beginning."""
    on = await stage()
    mistyped = await on.client.start_workflow(
        kind, args=MISTYPED[kind], id=failover_id(on.cluster_id), task_queue=on.settings.task_queue
    )
    with pytest.raises(WorkflowFailureError) as failed:
        await mistyped.result()
    assert "these are the locks" in str(failed.value.cause)
    on.world.kill("node-1")
    assert (await (await on.start()).result()).verified


async def test_a_lock_that_is_free_again_is_taken_at_once(
    stage: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever terminates what held it leaves no result that a guardian would hear of."""
    monkeypatch.setattr("workflows.guardian.RETRY_FIRST", timedelta(hours=1))
    on = await stage()
    lock = failover_id(on.cluster_id)
    held = await on.client.start_workflow("Stuck", id=lock, task_queue="nobody-polls-here")
    guardian = await on.start_guardian()
    await until(guardian, all_healthy)
    on.world.kill("node-1")
    await until(guardian, lambda v: v.holding == "a run holds the cluster's lock")
    await held.terminate("stuck")
    view = await until(guardian, lambda v: v.last_result is not None)
    assert view.last_result is not None and view.last_result.verified
    await guardian.terminate()


async def test_a_guardian_that_continues_as_new_knows_its_own_run(stage: Setting) -> None:
    """It hears of its end as of anybody's; until then that gives no way, and no second one is started."""
    on = await stage(strategy="manual", approvals=True)
    crowd = Crowd(on)
    guardian = await on.start_guardian(events_before_new=60)
    await until(guardian, all_healthy)
    on.world.kill("node-1")
    own = (await until(guardian, lambda v: v.own_run is not None)).own_run
    run = on.client.get_workflow_handle_for(PrimaryFailure.run, failover_id(on.cluster_id), run_id=own)
    waiting = await asked(run)

    first = (await on.client.get_workflow_handle(guardian.id).describe()).run_id
    word = RegionWord(region="region-1", finding=RegionFinding.WELL, why="test")
    async with asyncio.timeout(WITHIN_S):
        while (await on.client.get_workflow_handle(guardian.id).describe()).run_id == first:
            await guardian.signal(Guardian.region_word, word)
    current = on.client.get_workflow_handle_for(Guardian.run, guardian.id)
    on.world.kill("node-3")
    view = await until(current, lambda v: v.statuses.get("node-3") is NodeStatus.FAILED)
    assert view.own_run == own and view.last_result is None and view.regions["region-1"].word == word

    vote = crowd.vote("ann", waiting, Deed.REJECT, reason="test")
    await run.execute_update("reject", vote, result_type=Vote)
    view = await until(current, lambda v: v.own_run is None)
    assert [(past.run_id, past.outcome) for past in view.history] == [(own, RunOutcome.REJECTED)]
    view = await until(current, lambda v: v.holding is not None)
    assert "[people_said_no]" in (view.holding or "")
    await current.terminate()


TWO_REGIONS = [
    {
        "node_id": f"node-{n}",
        "hostname": f"10.0.{n}.10",
        "role": "primary",
        "region": f"region-{n}",
        "site": "a",
    }
    | {"weight": weight}
    for n, weight in ((1, 60), (2, 40))
]


async def test_of_an_active_active_cluster_as_a_whole_nothing_is_failed_over_and_whose_it_is_to_act_is_told(
    stage: Setting,
) -> None:
    fields: dict[str, object] = {"deployment": "active_active", "nodes": TWO_REGIONS, "replication": {}}
    on = await stage(cluster=fields, min_healthy_nodes=0)
    second = on.world.machines["node-2"]
    second.primary, second.upstream, second.epoch = True, None, 5
    guardian = await on.start_guardian()
    view = await until(guardian, lambda v: [*v.statuses.values()] == [NodeStatus.HEALTHY] * 2)
    assert view.primaries == {"region-1": "node-1", "region-2": "node-2"} and view.primary_node_id is None

    on.world.kill("node-1")
    view = await until(guardian, lambda v: v.holding is not None)
    assert "node-1, the primary of region-1 failed" in (view.holding or "")
    assert "[regions_decide_alone]" in (view.holding or "")
    assert "region evacuate region-1" in (view.holding or "")
    on.world.kill("node-2")
    await until(guardian, lambda v: "node-2, the primary of region-2" in (v.holding or ""))
    with pytest.raises(RPCError):
        await on.client.get_workflow_handle(failover_id(on.cluster_id)).describe()
    assert on.world.journal == []
    await guardian.terminate()
