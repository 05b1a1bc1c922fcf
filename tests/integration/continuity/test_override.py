"""Emergency overrides that give nodes up: the run, what it leaves, and the review that a person closes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from temporalio.api.sdk.v1 import WorkflowMetadata
from temporalio.client import WorkflowHandle, WorkflowUpdateFailedError

from qnwis.continuity.access import Deed
from qnwis.continuity.forced import is_forced
from qnwis.continuity.orders import FencingEvidenceType
from qnwis.continuity.override import GiveUp
from qnwis.continuity.review import OPERATION, CloseRequest, Review
from qnwis.continuity.run import AbortRequest, RunOutcome, RunResult
from qnwis.continuity.topology import Node
from workflows.names import review_id
from workflows.review import OverrideReview

from .conftest import Run, Setting
from .people import Crowd, asked, rule_of
from .unrecordable import TOLD, takes_none_of

LOST = ("node-1", "node-3")
ReviewHandle = WorkflowHandle[OverrideReview, Review]
Ruin = Callable[..., Awaitable[Crowd]]


@pytest.fixture
async def ruin(stage: Setting) -> Ruin:
    """A stage with people, of whose three nodes only node-2 is left, and without a power switch."""

    async def build(**cluster: Any) -> Crowd:
        crowd = Crowd(await stage(cluster={"fencing": None, **cluster}, approvals=True))
        for node_id in LOST:
            crowd.stage.world.kill(node_id)
        return crowd

    return build


async def overridden(crowd: Crowd, *, attested_by: str | None = None) -> RunResult:
    """The run of ann's override, which dora and fay agree to."""
    run = await give_up(crowd, attested_by)
    for person in ("dora", "fay"):
        await crowd.approve(run, person)
    return await run.result()


async def give_up(crowd: Crowd, attested_by: str | None = None) -> Run:
    return await crowd.start("ann", override=True, give_up=GiveUp(node_ids=LOST, attested_by=attested_by))


def review_of(crowd: Crowd, result: RunResult) -> ReviewHandle:
    workflow_id = review_id(crowd.stage.cluster_id, result.run_id)
    return crowd.stage.client.get_workflow_handle_for(OverrideReview.run, workflow_id)


def closing(
    crowd: Crowd, person: str, result: RunResult, *, signer: str | None = None, **fields: Any
) -> CloseRequest:
    request = CloseRequest(by=person, reason="looked at", **fields)
    token = crowd.token(person, Deed.CLOSE_REVIEW, signer=signer, run_id=result.run_id, digest=request.digest)
    return request.model_copy(update={"token": token})


async def refused(review: ReviewHandle, request: CloseRequest) -> str:
    with pytest.raises(WorkflowUpdateFailedError) as caught:
        await review.execute_update("close", request)
    return rule_of(caught.value)


async def test_without_naming_the_lost_even_an_override_promotes_nothing(ruin: Ruin) -> None:
    crowd = await ruin()
    for request in ({}, {"override": True}):
        result = await (await crowd.start("ann", **request)).result()
        assert result.refusal is not None and result.refusal.rule == "no_quorum"
    assert crowd.stage.world.journal == []


async def test_two_admins_see_what_is_suspended_and_the_survivor_serves(ruin: Ruin) -> None:
    crowd = await ruin()
    run = await give_up(crowd, attested_by="ann")
    pending = await asked(run)
    assert (pending.window.name, pending.predicted_loss_bytes) == ("emergency_override", None)
    assert any("GUARANTEE SUSPENDED" in note for note in pending.notes)
    assert crowd.stage.world.journal == []
    for person in ("dora", "fay"):
        await crowd.approve(run, person)
    result = await run.result()

    assert result.outcome is RunOutcome.COMPLETED, result.reason
    world = crowd.stage.world
    assert world.writable() == ["node-2"] and world.address == world.cluster.node("node-2").hostname
    assert result.epoch == 1000
    assert result.fencing is not None and result.fencing.type is FencingEvidenceType.ATTESTED
    assert result.suspension is not None and result.suspension.lost == LOST
    view = await world.membership(world.cluster.node("node-2"), timeout_s=1)
    assert view.membership.members == ("node-2",)
    record = await crowd.stage.providers.audit.get(result.audit_id or "")
    assert record is not None and "suspension" in record.manifest
    assert record.approval.approved_by == "dora, fay"


async def test_on_nobodys_word_it_serves_and_is_not_called_verified(ruin: Ruin) -> None:
    crowd = await ruin()
    result = await overridden(crowd)
    assert crowd.stage.world.writable() == ["node-2"]
    assert (result.outcome, result.verified) == (RunOutcome.INCOMPLETE, False)
    assert result.verification is not None
    assert [check.name for check in result.verification.failures] == ["old_primary_fenced"]


async def test_the_review_stays_open_until_another_admin_has_accounted_for_every_lost_node(
    ruin: Ruin,
) -> None:
    crowd = await ruin()
    result = await overridden(crowd, attested_by="ann")
    review, world = review_of(crowd, result), crowd.stage.world

    for request, rule in (
        (closing(crowd, "ann", result, off=LOST), "initiator_excluded"),
        (closing(crowd, "bob", result, off=LOST), "permission_missing"),
        (closing(crowd, "dora", result, off=LOST, signer="bob"), "token_forged"),
        (closing(crowd, "dora", result), "lost_nodes_open"),
        (CloseRequest(by="dora", reason="a claim", off=LOST), "token_missing"),
    ):
        assert await refused(review, request) == rule
    # node-3 comes back and has heard of the membership.
    world.revive("node-3")
    survivor = await world.membership(world.cluster.node("node-2"), timeout_s=1)
    world.views["node-3"] = survivor.model_copy(update={"node_id": "node-3"})
    assert await refused(review, closing(crowd, "dora", result)) == "lost_nodes_open"
    seen = (await review.query(OverrideReview.state)).suspension
    assert seen is not None and seen.open == ("node-1",)

    await review.execute_update("close", closing(crowd, "dora", result, off=("node-1",)))
    closed = await review.result()
    assert closed.suspension is not None and closed.suspension.until is not None
    assert dict(closed.suspension.settled)["node-1"] == "off, states dora"
    records = await crowd.stage.providers.audit.by_run(result.run_id)
    (record,) = [record for record in records if record.operation == OPERATION]
    assert (record.initiated_by, record.reason) == ("dora", "looked at")


async def test_a_review_whose_record_can_never_be_written_is_closed_and_says_so(
    ruin: Ruin, monkeypatch: pytest.MonkeyPatch
) -> None:
    crowd = await ruin()
    result = await overridden(crowd, attested_by="ann")
    to_record = takes_none_of(crowd.stage.providers.audit, OPERATION, monkeypatch)
    review = review_of(crowd, result)
    await review.execute_update("close", closing(crowd, "dora", result, off=LOST))
    assert (await review.result()).closed is not None and to_record == [result.run_id]
    told = await review.query("__temporal_workflow_metadata", result_type=WorkflowMetadata)
    assert TOLD in told.current_details


async def test_an_override_that_only_passes_limits_leaves_a_review_as_well(stage: Setting) -> None:
    crowd = Crowd(await stage(approvals=True, min_healthy_nodes=3))
    crowd.stage.world.kill("node-1")
    run = await crowd.start("ann", override=True)
    for person in ("dora", "fay"):
        await crowd.approve(run, person)
    result = await run.result()
    review = review_of(crowd, result)
    opened = (await review.query(OverrideReview.state)).opened
    assert opened.suspension is None and any("too_few_healthy_nodes" in note for note in opened.notes)
    await review.signal("close", closing(crowd, "fay", result))
    assert (await review.result()).closed is not None


async def test_an_abort_before_the_promotion_makes_all_members_again(ruin: Ruin) -> None:
    crowd = await ruin()
    world, forced, go_on = crowd.stage.world, asyncio.Event(), asyncio.Event()
    promise = world.promise

    async def held(node: Node, *arguments: Any, **more: Any) -> Any:
        forced.set()
        await go_on.wait()
        return await promise(node, *arguments, **more)

    world.promise = held  # type: ignore[method-assign]
    run = await give_up(crowd, attested_by="ann")
    for person in ("dora", "fay"):
        await crowd.approve(run, person)
    await forced.wait()
    await run.execute_update(
        "abort", crowd.signed(run, Deed.ABORT, AbortRequest(by="bob", reason="node-1 answers again"))
    )
    go_on.set()
    result = await run.result()

    assert result.outcome is RunOutcome.ROLLED_BACK
    assert result.suspension is None
    view = await world.membership(world.cluster.node("node-2"), timeout_s=1)
    assert set(view.membership.members) == {"node-1", "node-2", "node-3"} and is_forced(view.membership)
    assert world.writable() == [] and world.changes("promote") == []
    assert len(world.changes("force")) == 2


async def test_a_power_switch_that_says_yes_leaves_nothing_suspended(stage: Setting) -> None:
    crowd = Crowd(await stage(approvals=True))
    for node_id in LOST:
        crowd.stage.world.kill(node_id)
    result = await overridden(crowd)
    assert result.verified, result.reason
    assert result.fencing is not None and result.fencing.type is FencingEvidenceType.HOOK
    assert result.suspension is None
