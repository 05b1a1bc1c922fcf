"""Records the histories that the replay test plays against the workflows' code of today.

    python -m tests.integration.continuity.record_histories [name …]

Record again only what a change of the workflows may break on purpose: an old history that still replays is
the proof that runs in progress survive a deploy. Each scene is a real run on a real server, over a world in
memory; what tells of the machine that recorded it is taken out.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from temporalio.client import WorkflowHandle, WorkflowHistory

from qnwis.continuity.access import Deed
from qnwis.continuity.refusal import Refusal
from qnwis.continuity.region_wait import RegionFinding, RegionWord
from qnwis.continuity.run import AbortRequest, PauseRunRequest, ResumeRunRequest
from qnwis.providers.errors import Refused, Unreachable
from qnwis.temporal import connect
from workflows.guardian import Guardian
from workflows.guardian_state import AcknowledgeRequest, PauseRequest, ResumeRequest
from workflows.names import failover_id
from workflows.planned_maintenance import PlannedMaintenance
from workflows.primary_failure import PrimaryFailure

from .conftest import Stage, dev_server
from .further_scenes import FURTHER_SCENES, Studio
from .matrix import reset, tasks
from .people import Crowd, asked

HISTORIES = Path(__file__).parents[2] / "histories"
WORKER = "worker@lab"
EVIDENCE_IS_OLD_S = 6.0

Scene = Callable[[Stage], Awaitable[WorkflowHandle[Any, Any]]]


async def primary_failure_completed(on: Stage) -> WorkflowHandle[Any, Any]:
    on.world.kill("node-1")
    return await _ended(on)


async def primary_failure_rolled_back(on: Stage) -> WorkflowHandle[Any, Any]:
    on.world.kill("node-1")

    def rival(effect: str) -> None:
        if effect == "promote":
            on.world.machines["node-2"].epoch = 9

    on.world.before_effect = rival
    return await _ended(on)


async def primary_failure_refused(on: Stage) -> WorkflowHandle[Any, Any]:
    return await _ended(on)


async def primary_failure_finished(on: Stage) -> WorkflowHandle[Any, Any]:
    """What finishes a run that was terminated past the point of no return."""
    on.world.kill("node-1")
    run = await _at(on, "promote")
    await run.terminate("enough")
    return await _ended(on, continues="unfinished")


async def primary_failure_reset(on: Stage) -> WorkflowHandle[Any, Any]:
    on.world.kill("node-1")
    run = await _at(on, "promote")
    await reset(run, on.client, (await tasks(run))[-1])
    run = on.client.get_workflow_handle_for(PrimaryFailure.run, failover_id(on.cluster_id))
    await run.result()
    return run


async def primary_failure_aborted(on: Stage) -> WorkflowHandle[Any, Any]:
    on.world.kill("node-1")
    run = await _at(on, "power_off")
    await run.execute_update(PrimaryFailure.abort, AbortRequest(by="operator", reason="wrong cluster"))
    await run.result()
    return run


async def primary_failure_dry_run(on: Stage) -> WorkflowHandle[Any, Any]:
    on.world.kill("node-1")
    return await _ended(on, dry_run=True)


async def primary_failure_approved(on: Stage) -> WorkflowHandle[Any, Any]:
    """A person's run: proved, approved, and looked at again."""
    crowd = _people(on)
    on.world.kill("node-1")
    run = await crowd.start("bob")
    await crowd.approve(run, "ann", reason="agreed")
    await run.result()
    return run


async def primary_failure_held(on: Stage) -> WorkflowHandle[Any, Any]:
    """Recorded before a run looked again at what it had seen before it was held."""
    run, crowd = await _held(on)
    await _resumed(run, crowd)
    return run


async def primary_failure_served_again(on: Stage) -> WorkflowHandle[Any, Any]:
    run, crowd = await _held(on)
    on.world.revive("node-1")
    await _resumed(run, crowd)
    return run


async def _held(on: Stage) -> tuple[WorkflowHandle[Any, Any], Crowd]:
    """A person's run, held before its first action until what it has seen is old."""
    crowd = _people(on)
    on.world.kill("node-1")
    run = await crowd.start("bob")
    await asked(run)
    pause = PauseRunRequest(by="bob", reason="recorded for replay")
    await run.execute_update("pause", crowd.signed(run, Deed.PAUSE, pause))
    await crowd.approve(run, "ann")
    await asyncio.sleep(EVIDENCE_IS_OLD_S)
    return run, crowd


async def _resumed(run: WorkflowHandle[Any, Any], crowd: Crowd) -> None:
    resume = ResumeRunRequest(by="bob", reason="recorded for replay")
    await run.execute_update("resume", crowd.signed(run, Deed.RESUME, resume))
    await run.result()


async def planned_maintenance_completed(on: Stage) -> WorkflowHandle[Any, Any]:
    return await _maintained(on)


async def planned_maintenance_rolled_back(on: Stage) -> WorkflowHandle[Any, Any]:
    refused = Refusal(rule="token_not_reached", message="it lags", remedy="wait")
    on.world.fail_next("promote", Refused(refused))
    return await _maintained(on)


async def _maintained(on: Stage) -> WorkflowHandle[Any, Any]:
    for machine in on.world.machines.values():
        machine.epoch = machine.held = 1
    crowd = _people(on)
    run = await on.client.start_workflow(
        PlannedMaintenance.run,
        crowd.request("bob"),
        id=failover_id(on.cluster_id),
        task_queue=on.settings.task_queue,
    )
    await crowd.approve(run, "ann")
    await run.result()
    return run


def _people(on: Stage) -> Crowd:
    """Have the policy ask for proofs and approvals."""
    policy = on.settings.config_dir / "clusters" / on.cluster_id / "policy.yaml"
    policy.write_text(policy.read_text().replace("approvals: false", "approvals: true"))
    return Crowd(on)


async def guardian_failed_over(on: Stage) -> WorkflowHandle[Any, Any]:
    guardian = await on.start_guardian()
    await _until_healthy(on, guardian)
    on.world.kill("node-1")
    while (await guardian.query(Guardian.view)).last_result is None:
        await asyncio.sleep(0.05)
    return guardian


async def guardian_took_a_free_lock(on: Stage) -> WorkflowHandle[Any, Any]:
    """What held it was terminated, and left no result."""
    lock = failover_id(on.cluster_id)
    held = await on.client.start_workflow("Stuck", id=lock, task_queue="nobody-polls-here")
    guardian = await on.start_guardian()
    await _until_healthy(on, guardian)
    on.world.kill("node-1")
    while (await guardian.query(Guardian.view)).holding != "a run holds the cluster's lock":
        await asyncio.sleep(0.05)
    await held.terminate("stuck")
    while (await guardian.query(Guardian.view)).last_result is None:
        await asyncio.sleep(0.05)
    return guardian


async def guardian_paused(on: Stage) -> WorkflowHandle[Any, Any]:
    guardian = await on.start_guardian()
    await _until_healthy(on, guardian)
    await guardian.signal(Guardian.pause_failover, PauseRequest(by="operator", reason="network work"))
    on.world.kill("node-1")
    while (await guardian.query(Guardian.view)).holding is None:
        await asyncio.sleep(0.05)
    on.world.revive("node-1")
    await _until_healthy(on, guardian)
    await guardian.signal(Guardian.resume_failover, ResumeRequest(by="operator", reason="done"))
    while (await guardian.query(Guardian.view)).pause is not None:
        await asyncio.sleep(0.05)
    return guardian


async def guardian_partition_suspected(on: Stage) -> WorkflowHandle[Any, Any]:
    guardian = await on.start_guardian()
    await _until_healthy(on, guardian)
    on.world.cut_off("node-1")
    while (await guardian.query(Guardian.view)).holding is None:
        await asyncio.sleep(0.05)
    on.world.machines["node-1"].reachable = True
    on.world.revive("node-1")
    await _until_healthy(on, guardian)
    return guardian


async def guardian_acknowledged(on: Stage) -> WorkflowHandle[Any, Any]:
    guardian = await guardian_failed_over(on)
    (past,) = (await guardian.query(Guardian.view)).history
    looked = AcknowledgeRequest(run_id=past.run_id, by="operator", reason="looked at")
    await guardian.execute_update(Guardian.acknowledge, looked)
    return guardian


async def guardian_left_to_its_region(on: Stage) -> WorkflowHandle[Any, Any]:
    """It waits for its region's guardian, and watches on while the run goes on that it starts after that."""
    guardian = await on.start_guardian()
    await _until_healthy(on, guardian)
    for finding in (RegionFinding.WELL, RegionFinding.SUSPECTED):
        word = RegionWord(region="region-1", finding=finding, why="recorded for replay")
        await guardian.signal(Guardian.region_word, word)
    on.world.kill("node-1")
    while (await guardian.query(Guardian.view)).holding is None:
        await asyncio.sleep(0.05)
    well = RegionWord(region="region-1", finding=RegionFinding.WELL, why="recorded for replay")
    await guardian.signal(Guardian.region_word, well)
    while (await guardian.query(Guardian.view)).last_result is None:
        await asyncio.sleep(0.05)
    return guardian


async def guardian_continued_as_new(on: Stage) -> WorkflowHandle[Any, Any]:
    guardian = await on.start_guardian(events_before_new=40)
    first = on.client.get_workflow_handle(guardian.id, run_id=guardian.first_execution_run_id)
    while (await on.client.get_workflow_handle(guardian.id).describe()).run_id == first.run_id:
        await guardian.signal(Guardian.pause_failover, PauseRequest(by="operator", reason="work"))
    return first


SCENES: dict[str, Scene] = {
    scene.__name__: scene
    for scene in (
        primary_failure_completed,
        primary_failure_rolled_back,
        primary_failure_refused,
        primary_failure_dry_run,
        primary_failure_finished,
        primary_failure_reset,
        primary_failure_aborted,
        primary_failure_approved,
        primary_failure_held,
        primary_failure_served_again,
        planned_maintenance_completed,
        planned_maintenance_rolled_back,
        guardian_failed_over,
        guardian_took_a_free_lock,
        guardian_paused,
        guardian_partition_suspected,
        guardian_acknowledged,
        guardian_left_to_its_region,
        guardian_continued_as_new,
    )
}


async def _ended(on: Stage, **request: object) -> WorkflowHandle[Any, Any]:
    run = await on.start(initiated_by="operator", reason="recorded for replay", **request)
    await run.result()
    return run


async def _at(on: Stage, effect: str) -> WorkflowHandle[Any, Any]:
    """A run that has asked for this effect, and is told that it did not come about, once."""
    asked = asyncio.Event()
    on.world.before_effect = lambda kind: asked.set() if kind == effect else None
    on.world.fail_next(effect, Unreachable("lost"), Unreachable("lost"), Unreachable("lost"))
    run = await on.start(initiated_by="operator", reason="recorded for replay")
    await asked.wait()
    return run


async def _until_healthy(on: Stage, guardian: WorkflowHandle[Guardian, None]) -> None:
    nodes = {node.node_id for node in on.world.cluster.nodes}
    while True:
        statuses = (await guardian.query(Guardian.view)).statuses
        if statuses.keys() == nodes and set(statuses.values()) == {"healthy"}:
            return
        await asyncio.sleep(0.05)


def without_its_machine(history: WorkflowHistory) -> dict[str, Any]:
    """The history as JSON, with the recording worker's names and its stack traces taken out."""
    return {"events": _cleaned(json.loads(history.to_json())["events"])}


def _cleaned(value: Any) -> Any:
    if isinstance(value, list):
        return [_cleaned(item) for item in value]
    if not isinstance(value, dict):
        return value
    if value.get("kind") == "TASK_QUEUE_KIND_STICKY":
        return {**value, "name": WORKER}
    return {
        name: WORKER if name == "identity" else _cleaned(item)
        for name, item in value.items()
        if name not in {"stackTrace", "encodedAttributes", "workerVersion", "binaryChecksum"}
    }


async def record(names: list[str]) -> None:
    HISTORIES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as home:
        async with dev_server(Path(home) / "temporal") as server:
            client = await connect(server.found.address)
            client.service_client.config.identity = WORKER  # who terminated a run stands in its record
            for name in names:
                async with AsyncExitStack() as running, asyncio.timeout(120):
                    studio = Studio(client, Path(home) / name, running)
                    further = FURTHER_SCENES.get(name)
                    run = await (SCENES[name](await studio.stage()) if further is None else further(studio))
                    if (await client.get_workflow_handle(run.id).describe()).close_time is None:
                        await client.get_workflow_handle(run.id).terminate("recorded")
                    events = without_its_machine(await run.fetch_history())
                    path = HISTORIES / f"{name}.json"
                    path.write_text(json.dumps(events, indent=1, ensure_ascii=False) + "\n")
                    print(f"{path.name}: {len(events['events'])} events")


if __name__ == "__main__":
    asyncio.run(record(sys.argv[1:] or [*SCENES, *FURTHER_SCENES]))
