"""What a guardian decides, also what it refuses, is on record; a store that fails keeps it from nothing."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from temporalio.client import WorkflowUpdateFailedError

from qnwis.continuity.audit import AuditRecord
from qnwis.providers.errors import Unreachable
from tests.looking import WITHIN_S, Looks
from workflows.guardian import Guardian
from workflows.guardian_state import AcknowledgeRequest, PauseRequest, ResumeRequest
from workflows.names import guardian_id, reprotect_id

from .conftest import Setting, Stage
from .test_guardian import all_healthy, until


async def records_of(on: Stage, operation: str, *, count: int = 1) -> list[AuditRecord]:
    """Oldest first, once there are so many."""
    async with asyncio.timeout(WITHIN_S):
        looks = Looks()
        while True:
            newest = await on.providers.audit.latest(200)
            found = [record for record in reversed(newest) if record.operation == operation]
            if len(found) >= count:
                return found
            await looks.again()


async def test_a_failover_that_is_refused_is_recorded_once_with_the_rule_and_what_was_seen(
    stage: Setting,
) -> None:
    on = await stage()
    guardian = await on.start_guardian()
    await until(guardian, all_healthy)
    await guardian.execute_update(Guardian.pause_answered, PauseRequest(by="ann", reason="network work"))
    on.world.kill("node-1")
    await until(guardian, lambda view: view.holding is not None)
    (refused,) = await records_of(on, "failover_refused")
    assert refused.refusal is not None and refused.refusal.rule == "guardian_paused"
    assert (refused.initiated_by, refused.role) == (guardian_id(on.cluster_id), "service")
    assert refused.source_node == "node-1" and refused.reason.startswith("failed: say failed")
    assert not refused.result.success

    on.world.kill("node-3")  # it judges anew, and the same rule refuses in another situation of a standby
    await until(guardian, lambda view: view.statuses["node-3"] != view.statuses["node-2"])
    await guardian.execute_update(Guardian.resume_answered, ResumeRequest(by="ann", reason="done"))
    await until(guardian, lambda view: view.last_result is not None)
    rules = [one.refusal.rule for one in await records_of(on, "failover_refused") if one.refusal]
    assert rules.count("guardian_paused") == 1
    assert await on.providers.audit.verify() == ()
    await guardian.terminate()


async def test_whoever_is_taken_at_their_word_and_whoever_is_refused_is_recorded(stage: Setting) -> None:
    on = await stage()
    guardian = await on.start_guardian()
    await until(guardian, all_healthy)
    for _ in range(2):
        await guardian.execute_update(Guardian.pause_answered, PauseRequest(by="ann", reason="work"))
    await guardian.signal(Guardian.resume_failover, ResumeRequest(by="bob", reason="done"))
    unknown = AcknowledgeRequest(run_id="another", by="ann", reason="looked")
    with pytest.raises(WorkflowUpdateFailedError):
        await guardian.execute_update(Guardian.acknowledge, unknown)

    paused = await on.providers.audit.latest(200)
    assert [one.operation for one in paused].count("decide_pause") == 2, "on record before it is answered"
    assert {
        (one.initiated_by, one.role, one.reason) for one in paused if one.operation == "decide_pause"
    } == {("ann", "unauthenticated", "work")}
    (resumed,) = await records_of(on, "decide_resume")
    assert (resumed.initiated_by, resumed.result.success) == ("bob", True)
    _, refused = await records_of(on, "decide_acknowledge", count=2)
    assert refused.refusal is not None and refused.refusal.rule == "run_unknown"
    assert not refused.result.success
    await guardian.terminate()


async def test_a_store_that_fails_keeps_no_guardian_from_failing_over_and_nothing_is_lost(
    stage: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    on = await stage()
    guardian = await on.start_guardian()
    await until(guardian, all_healthy)
    real, broken = on.providers.audit.append, asyncio.Event()

    async def append(draft: Any, artefacts: Any) -> AuditRecord:
        if not broken.is_set() and draft.operation == "failover_refused":
            raise Unreachable("the disk is full")
        return await real(draft, artefacts)

    monkeypatch.setattr(on.providers.audit, "append", append)
    on.world.cut_off("node-1")
    await until(guardian, lambda view: "[partition_suspected]" in (view.holding or ""))
    on.world.kill("node-1")
    view = await until(guardian, lambda view: view.last_result is not None)
    assert view.last_result is not None and view.last_result.verified
    broken.set()
    first, *_ = await records_of(on, "failover_refused")
    assert first.refusal is not None and first.refusal.rule == "partition_suspected"
    await guardian.terminate()


async def test_what_is_not_on_record_goes_on_with_the_guardian(stage: Setting) -> None:
    """As one that went on as new while its store did not answer."""
    on = await stage()
    guardian = await on.start_guardian()
    await until(guardian, all_healthy)
    on.world.cut_off("node-1")
    (record,) = await records_of(on, "failover_refused")
    text = (await on.providers.audit.artefacts(record.audit_id))["decision"]
    await guardian.terminate()

    left = {**json.loads(text), "decision_id": "left-over"}
    again = await on.start_guardian(unrecorded=[left])
    first, second = await records_of(on, "failover_refused", count=2)
    assert (first.run_id, second.run_id) == (record.run_id, "left-over")
    await again.terminate()


async def test_each_rejoin_that_reprotect_orders_is_recorded(stage: Setting) -> None:
    on = await stage(reprotect="automatic", reprotect_after_s=0.1)
    guardian = await on.start_guardian()
    await until(guardian, all_healthy)
    on.world.kill("node-1")
    moved = await until(guardian, lambda view: view.last_result is not None)
    on.world.revive("node-1")
    *_, record = await records_of(on, "reprotect")
    assert (record.initiated_by, record.role) == (reprotect_id(on.cluster_id), "service")
    assert (record.source_node, record.target_node) == (moved.primary_node_id, "node-1")
    assert record.result.success and record.reason.startswith("node-1 ")
    await guardian.terminate()
    await on.client.get_workflow_handle(reprotect_id(on.cluster_id)).terminate()
