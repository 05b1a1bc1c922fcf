"""People in the loop: who may start, approve and reject, by update and by signal, within the window."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from temporalio import activity
from temporalio.client import WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError
from typer.testing import CliRunner

from activities.people import OpenRequest, People, ProofRequest
from qnwis.cli.qnwis_continuity import app
from qnwis.continuity.access import Deed
from qnwis.continuity.approvals import VoteRequest
from qnwis.continuity.run import (
    AbortRequest,
    ExtendRequest,
    FailoverRequest,
    Maintenance,
    RunOutcome,
    StepStatus,
)
from qnwis.lab.temporal_server import TemporalServer
from qnwis.providers.keys import write_key
from qnwis.providers.nonces import TemporalNonces
from qnwis.starting import start_round_trip
from tests.looking import WITHIN_S, Looks
from workflows.guardian import Guardian
from workflows.guardian_state import PauseRequest, ResumeRequest
from workflows.names import failover_id
from workflows.primary_failure import PrimaryFailure

from .conftest import Run, Setting
from .people import ROLES, Crowd, asked, asked_once_begun, rule_of
from .test_guardian import all_healthy, until
from .time_skipping import Hours, hours

Meeting = Callable[..., Awaitable[Crowd]]


@pytest.fixture
async def meeting(stage: Setting) -> Meeting:
    """A stage with people, whose primary is dead."""

    async def build(**policy: Any) -> Crowd:
        crowd = Crowd(await stage(approvals=True, **policy))
        crowd.stage.world.kill("node-1")
        return crowd

    return build


async def refused(run: Run, request: VoteRequest, update: str = "approve") -> str:
    with pytest.raises(WorkflowUpdateFailedError) as caught:
        await run.execute_update(update, request)
    return rule_of(caught.value)


async def test_a_persons_run_awaits_one_approval_and_its_record_says_whose(meeting: Meeting) -> None:
    crowd = await meeting()
    run = await crowd.start("bob")
    pending = await asked(run)
    assert crowd.stage.world.journal == []
    assert pending.voters == ("ann", "carl", "dora", "fay")
    assert (pending.plan.digest, pending.window.name) == (pending.window.digest, "manual_failover")

    await crowd.approve(run, "carl", reason="agreed")
    result = await run.result()

    assert result.outcome is RunOutcome.COMPLETED and result.verified
    record = await crowd.stage.providers.audit.get(result.audit_id or "")
    assert record is not None
    assert (record.initiated_by, record.role) == ("bob", "continuity_operator")
    assert (record.approval.required, record.approval.approved_by) == (True, "carl")


async def test_the_vote_counts_as_a_signal_too_and_a_forged_one_does_not(meeting: Meeting) -> None:
    crowd = await meeting()
    run = await crowd.start("bob")
    pending = await asked(run)

    await run.signal("approve", crowd.vote("ann", pending, signer="eve"))
    await until_noted(run, "token_forged")
    assert crowd.stage.world.journal == []

    await run.signal("approve", crowd.vote("ann", pending))
    assert (await run.result()).verified


@pytest.mark.parametrize(
    ("vote", "rule"),
    [
        (("bob", {}), "initiator_excluded"),
        (("eve", {}), "role_not_allowed"),
        (("ann", {"signer": "bob"}), "token_forged"),
        (("ann", {"person": "zoe"}), "person_unknown"),
        (("ann", {"digest": "sha256:" + "0" * 64}), "another_digest"),
        (("ann", {"run_id": "another"}), "token_for_another"),
        (("ann", {"cluster_id": "another"}), "token_for_another"),
        (("ann", {"expires_at": "2020-01-01T00:00:00Z"}), "token_expired"),
    ],
)
async def test_a_vote_that_does_not_count_is_refused_by_its_rule_as_an_update_and_as_a_signal(
    meeting: Meeting, vote: tuple[str, dict[str, Any]], rule: str
) -> None:
    crowd = await meeting()
    run = await crowd.start("bob")
    pending = await asked(run)
    (person, claim) = vote

    def made() -> VoteRequest:
        if claim.get("person") != "zoe":
            return crowd.vote(person, pending, **claim)
        token = crowd.token("ann", Deed.APPROVE, run_id=pending.run_id, digest=pending.window.digest)
        return VoteRequest(
            token=token.model_copy(update={"claim": token.claim.model_copy(update={"person": "zoe"})})
        )

    assert await refused(run, made()) == rule
    await run.signal("approve", made())
    await until_noted(run, rule)
    assert await refused(run, crowd.vote("ann", pending), "reject") == "token_for_another"
    assert crowd.stage.world.journal == []
    await run.terminate()


async def test_a_vote_that_does_not_count_is_refused_by_its_rule_at_the_command_line(
    meeting: Meeting, server: TemporalServer, tmp_path: Path
) -> None:
    crowd = await meeting()
    run = await crowd.start("bob")
    await asked(run)
    for name in ROLES:
        write_key(tmp_path / name, crowd.keys[name], person=name)

    async def typed(command: str, key: str, *arguments: str) -> tuple[int, str]:
        line = [command, crowd.stage.cluster_id, "--yes", "--key", str(tmp_path / key), *arguments]
        line += ["--address", server.address]
        done = await asyncio.to_thread(CliRunner().invoke, app, line, env={"COLUMNS": "300"})
        return done.exit_code, done.output

    for key, named, rule in (
        ("bob", (), "initiator_excluded"),
        ("eve", (), "role_not_allowed"),
        ("bob", ("--by", "ann"), "token_forged"),
        ("ann", ("--by", "zoe"), "person_unknown"),
    ):
        for command in (("approve",), ("reject", "--reason", "no")):
            status, output = await typed(command[0], key, *command[1:], *named)
            assert (status, f"[{rule}]" in output) == (3, True), output
    assert crowd.stage.world.journal == []

    status, output = await typed("approve", "carl", "--reason", "agreed")
    assert status == 0 and "carl's vote is counted" in output
    assert (await run.result()).verified
    status, output = await typed("approve", "ann")
    assert (status, "[no_window]" in output) == (3, True), output


async def test_two_distinct_approvers_where_the_workflow_wants_two_and_a_replay_is_no_second(
    meeting: Meeting,
) -> None:
    crowd = await meeting()
    rbac = crowd.stage.settings.config_dir.parent / "rbac" / "continuity.yaml"
    rbac.parent.mkdir()
    shipped = (Path(__file__).parents[3] / "config" / "rbac" / "continuity.yaml").read_text()
    rbac.write_text(shipped.replace("required_approvers: 1", "required_approvers: 2"))
    run = await crowd.start("bob")
    pending = await asked(run)
    first = crowd.vote("ann", pending)
    await run.execute_update("approve", first)

    assert await refused(run, first) == "token_used"
    assert await refused(run, crowd.vote("ann", pending)) == "voted_already"
    assert crowd.stage.world.journal == []

    await crowd.approve(run, "dora")
    result = await run.result()
    record = await crowd.stage.providers.audit.get(result.audit_id or "")
    assert record is not None and record.approval.approved_by == "ann, dora"


async def test_an_override_passes_the_policys_limits_lists_them_and_takes_two_admins(
    meeting: Meeting,
) -> None:
    crowd = await meeting(min_healthy_nodes=3)
    refused_run = await (await crowd.start("bob")).result()
    assert refused_run.refusal is not None and refused_run.refusal.rule == "too_few_healthy_nodes"
    not_allowed = await (await crowd.start("bob", override=True)).result()
    assert not_allowed.refusal is not None and not_allowed.refusal.rule == "permission_missing"

    run = await crowd.start("ann", override=True)
    pending = await asked(run)
    assert (pending.window.name, pending.voters) == ("emergency_override", ("dora", "fay"))
    await crowd.approve(run, "dora")
    assert await refused(run, crowd.vote("carl", pending)) == "role_not_allowed"
    await crowd.approve(run, "fay")
    result = await run.result()
    assert result.verified
    (passed,) = (note for note in result.notes if note.startswith("passed by the override"))
    assert "too_few_healthy_nodes" in passed


async def test_a_rejection_ends_the_run_with_its_reason_and_nothing_changed(meeting: Meeting) -> None:
    crowd = await meeting()
    run = await crowd.start("bob")
    pending = await asked(run)
    await run.execute_update("reject", crowd.vote("ann", pending, Deed.REJECT, reason="wait for the backup"))

    result = await run.result()
    assert (result.outcome, result.reason) == (RunOutcome.REJECTED, "rejected by ann: wait for the backup")
    assert crowd.stage.world.journal == []
    assert {s.name: s.status for s in result.steps}["execution"] is StepStatus.SKIPPED


async def test_a_plan_that_changed_while_people_voted_is_asked_for_anew(meeting: Meeting) -> None:
    crowd = await meeting()
    run = await crowd.start("bob")
    first = await asked(run)
    assert first.plan.failover_target_id == "node-2"
    crowd.stage.world.machines["node-3"].lsn += 1000  # it has more now, so it is the better target
    await run.execute_update("approve", crowd.vote("ann", first))

    second = await asked(run, besides=first.window.digest)
    assert second.plan.failover_target_id == "node-3"
    assert crowd.stage.world.journal == []
    assert await refused(run, crowd.vote("ann", first)) == "another_digest"
    await crowd.approve(run, "ann")
    assert (await run.result()).new_primary == "node-3"


async def test_a_revoked_key_does_not_vote_in_a_window_that_is_open(meeting: Meeting) -> None:
    crowd = await meeting()
    run = await crowd.start("bob")
    pending = await asked(run)
    crowd.write({name: role for name, role in ROLES.items() if name != "ann"})

    assert await refused(run, crowd.vote("ann", pending)) == "person_unknown"
    await run.terminate()


@pytest.mark.parametrize(
    ("start", "rule"),
    [
        (lambda crowd: crowd.request("bob").model_copy(update={"token": None}), "token_missing"),
        (lambda crowd: crowd.request("bob").model_copy(update={"reason": "another"}), "token_for_another"),
        (lambda crowd: crowd.request("bob").model_copy(update={"initiated_by": "ann"}), "token_of_another"),
        (lambda crowd: crowd.request("eve"), "permission_missing"),
    ],
)
async def test_who_starts_a_run_proves_it(meeting: Meeting, start: Callable[[Crowd], Any], rule: str) -> None:
    crowd = await meeting()
    result = await (await crowd.stage.start(**start(crowd).model_dump(exclude_none=True))).result()
    assert result.outcome is RunOutcome.REFUSED and result.refusal is not None
    assert result.refusal.rule == rule
    assert crowd.stage.world.journal == []


@pytest.mark.parametrize(
    "more", [{}, {"override": True, "give_up": {"node_ids": ["node-1"], "attested_by": "bob"}}]
)
async def test_nobody_but_the_guardian_starts_a_run_as_automatic(
    meeting: Meeting, more: dict[str, object]
) -> None:
    """Such a run asks nobody, and needs no token."""
    crowd = await meeting()
    crowd.stage.world.kill("node-1")
    detection = {"node_id": "node-1", "vantages": ["v"], "misses": 9, "detected_at": datetime.now(UTC)}
    request = crowd.request("bob", automatic=True, detection=detection, **more)
    fields = request.model_copy(update={"token": None}).model_dump(exclude_none=True)
    result = await (await crowd.stage.start(**fields)).result()
    assert result.outcome is RunOutcome.REFUSED and "only the cluster's guardian" in result.reason
    assert crowd.stage.world.journal == []


async def test_a_token_that_started_a_run_starts_no_other(meeting: Meeting) -> None:
    crowd = await meeting()
    request = crowd.request("bob").model_dump(exclude_none=True)
    first = await crowd.stage.start(**request)
    await first.execute_update("reject", crowd.vote("ann", await asked(first), Deed.REJECT))
    await first.result()

    again = await (await crowd.stage.start(**request)).result()
    assert again.refusal is not None and again.refusal.rule == "token_used"


async def test_only_what_was_signed_for_a_schedule_starts_more_than_one_round_trip(meeting: Meeting) -> None:
    crowd = await meeting()
    crowd.stage.world.revive("node-1")
    once = crowd.request("bob", maintenance=Maintenance())
    rules = [await rule_of_trip(crowd, once, votes=votes) for votes in (True, False)]
    assert rules == [None, "token_used"]

    scheduled = crowd.proved(once, Deed.SCHEDULE)
    assert [await rule_of_trip(crowd, scheduled, votes=True) for _ in range(2)] == [None, None]
    by_hand = await (await crowd.stage.start(**scheduled.model_dump(exclude_none=True))).result()
    assert by_hand.refusal is not None and by_hand.refusal.rule == "token_for_another"


async def rule_of_trip(crowd: Crowd, request: FailoverRequest, *, votes: bool) -> str | None:
    """By which rule the way there was refused; with a vote against it, so that nothing moves."""
    on = crowd.stage
    trip = await start_round_trip(on.client, request, on.settings.task_queue)
    if votes:
        run = on.client.get_workflow_handle_for(PrimaryFailure.run, failover_id(on.cluster_id))
        await run.execute_update("reject", crowd.vote("ann", await asked_once_begun(run), Deed.REJECT))
    there = (await trip.result()).there
    assert there is not None
    return there.refusal.rule if there.refusal is not None else None


async def test_a_token_serves_once_whichever_worker_looks_at_it(meeting: Meeting) -> None:
    crowd = await meeting()
    run = await crowd.start("bob")
    before = (await asked(run)).window.closes_at
    extend = crowd.signed(run, Deed.EXTEND, ExtendRequest(by="dora", reason="more time", by_s=60))
    await run.execute_update("extend", extend)
    with pytest.raises(WorkflowUpdateFailedError) as caught:
        await run.execute_update("extend", extend)
    assert rule_of(caught.value) == "token_used"
    assert (await asked(run)).window.closes_at - before == timedelta(seconds=60)
    await run.terminate()

    here, there = TemporalNonces(crowd.stage.client), TemporalNonces(crowd.stage.client)
    nonce = extend.token.claim.nonce if extend.token is not None else ""
    for nonces, person, used_by, answer in (
        (here, "ann", "start of run-1", "start of run-1"),  # another's nonce is another token
        (there, "ann", "start of run-1", "start of run-1"),  # asked again after a retry
        (there, "ann", "start of run-2", "start of run-1"),
    ):
        used = await nonces.use(person, nonce, used_by=used_by, task_queue=crowd.stage.settings.task_queue)
        assert used == answer == await here.used(person, nonce)
    assert await here.used("dora", secrets.token_hex(16)) is None


@pytest.mark.parametrize("approvals", [True, False])
async def test_more_time_to_vote_is_given_by_another_than_the_initiator_and_not_without_end(
    stage: Setting, approvals: bool
) -> None:
    """Of an override, which asks two people whatever the policy says of approvals."""
    on = await stage(approvals=approvals)
    on.world.kill("node-1")
    crowd = Crowd(on)
    run = await crowd.start("ann", override=True)
    before = (await asked(run)).window

    async def extended(by: str, by_s: float, signer: str | None = None) -> str | None:
        """The rule that refuses it."""
        request = crowd.signed(run, Deed.EXTEND, ExtendRequest(by=signer or by, reason="late", by_s=by_s))
        try:
            await run.execute_update("extend", request.model_copy(update={"by": by}))
        except WorkflowUpdateFailedError as refusal:
            return rule_of(refusal)
        return None

    assert await extended("ann", 1) == "initiator_excluded"
    assert await extended("dora", 1, signer="ann") == "token_of_another"
    assert await extended("carl", 1) == "permission_missing"
    assert await extended("bob", 24 * 3600) == "extended_too_far"
    assert [await extended(by, 300) for by in ("bob", "dora", "fay")] == [None, None, None]
    assert await extended("dora", 1) == "extended_too_far"
    assert (await asked(run)).window.closes_at - before.closes_at == timedelta(seconds=900)
    await run.terminate()


async def test_without_anybody_who_may_vote_no_window_opens(meeting: Meeting) -> None:
    crowd = await meeting()
    crowd.write({"bob": "continuity_operator", "eve": "continuity_viewer"})
    result = await (await crowd.start("bob")).result()
    assert result.refusal is not None and result.refusal.rule == "too_few_voters"


async def test_an_abort_is_proved_and_ends_the_wait(meeting: Meeting) -> None:
    crowd = await meeting()
    run = await crowd.start("bob")
    await asked(run)
    claim = AbortRequest(by="bob", reason="not today")
    with pytest.raises(WorkflowUpdateFailedError) as caught:
        await run.execute_update("abort", claim)
    assert rule_of(caught.value) == "token_missing"

    await run.execute_update("abort", crowd.signed(run, Deed.ABORT, claim))
    result = await run.result()
    assert (result.outcome, result.reason) == (RunOutcome.UNTOUCHED, "aborted by bob: not today")


@pytest.mark.parametrize("silent", ["prove", "open_window"])
async def test_a_run_gives_way_while_it_is_not_known_who_may_start_it_or_vote(
    stage: Setting, monkeypatch: pytest.MonkeyPatch, silent: str
) -> None:
    """A file that cannot be read keeps no failover from the lock: that asks nobody."""
    asked = asyncio.Event()

    @activity.defn(name=silent)
    async def not_loaded(self: People, about: ProofRequest | OpenRequest) -> None:
        asked.set()
        raise ApplicationError("people.yaml: line 1", type="people_not_loaded")

    monkeypatch.setattr(People, silent, not_loaded)
    crowd = Crowd(on := await stage(strategy="manual", approvals=True))
    on.world.kill("node-1")
    run = await crowd.start()
    async with asyncio.timeout(WITHIN_S):
        await asked.wait()
        await run.signal("give_way", "its primary failed")
        result = await run.result()
    assert result.outcome is RunOutcome.UNTOUCHED and result.reason.startswith("gave way"), result.reason
    assert on.world.journal == []


async def test_strategy_manual_asks_people_and_acts_when_they_agree(stage: Setting) -> None:
    on = await stage(strategy="manual", approvals=True)
    crowd = Crowd(on)
    guardian = await on.start_guardian()
    await until(guardian, all_healthy)
    on.world.kill("node-1")

    view = await until(guardian, lambda v: v.holding is not None)
    assert "strategy manual" in (view.holding or "")
    run = on.client.get_workflow_handle_for(PrimaryFailure.run, f"failover-{on.cluster_id}")
    pending = await asked(run)
    assert pending.window.initiator == f"guardian-{on.cluster_id}"
    assert on.world.journal == []
    await crowd.approve(run, "ann")

    view = await until(guardian, lambda v: v.last_result is not None)
    assert view.last_result is not None and view.last_result.verified
    await guardian.terminate()


async def test_after_a_rejection_the_guardian_asks_again_only_when_something_changes(stage: Setting) -> None:
    on = await stage(strategy="manual", approvals=True)
    crowd = Crowd(on)
    guardian = await on.start_guardian()
    await until(guardian, all_healthy)
    on.world.kill("node-1")
    run = on.client.get_workflow_handle_for(PrimaryFailure.run, f"failover-{on.cluster_id}")
    await until(guardian, lambda v: v.holding is not None)
    await run.execute_update("reject", crowd.vote("ann", await asked(run), Deed.REJECT, reason="no"))

    view = await until(guardian, lambda v: "people_said_no" in (v.holding or ""))
    assert view.last_result is not None and view.last_result.outcome is RunOutcome.REJECTED
    assert on.world.journal == []
    await guardian.terminate()


async def test_a_guardian_is_paused_by_who_proves_to_be_allowed(stage: Setting) -> None:
    on = await stage(approvals=True)
    crowd = Crowd(on)
    guardian = await on.start_guardian()
    await until(guardian, all_healthy)
    pause = PauseRequest(by="bob", reason="work on the network")
    await guardian.signal(Guardian.pause_failover, pause)
    view = await until(guardian, lambda v: v.last_refused is not None)
    assert view.pause is None and "token_missing" in (view.last_refused or "")

    signed = pause.model_copy(
        update={"token": crowd.token("bob", Deed.PAUSE, digest=pause.digest, reason=pause.reason)}
    )
    await guardian.execute_update("pause", signed)
    view = await until(guardian, lambda v: v.pause is not None)
    assert view.pause is not None and view.pause.by == "bob"

    resume = ResumeRequest(by="bob", reason="done")
    token = crowd.token("bob", Deed.RESUME, digest=resume.digest, reason=resume.reason)
    await guardian.execute_update("resume", resume.model_copy(update={"token": token}))
    await guardian.terminate()
    another = await on.start_guardian()
    await until(another, all_healthy)
    with pytest.raises(WorkflowUpdateFailedError) as caught:
        await another.execute_update("pause", signed)
    assert rule_of(caught.value) == "token_used", "though the guardian that took it is gone"
    await another.terminate()


# The windows, in skipping time


@pytest.fixture
async def skipping(tmp_path: Path) -> AsyncIterator[Callable[..., Awaitable[Hours]]]:
    async with AsyncExitStack() as running:
        yield lambda **policy: running.enter_async_context(hours(tmp_path, **policy))


@pytest.mark.parametrize(
    ("override", "name", "window_s"), [(False, "manual_failover", 600), (True, "emergency_override", 300)]
)
async def test_a_window_without_enough_votes_expires_at_its_end_and_not_before(
    skipping: Callable[..., Awaitable[Hours]], override: bool, name: str, window_s: int
) -> None:
    on = await skipping(approvals=True)
    crowd = Crowd(on.stage)
    on.stage.world.kill("node-1")
    run = await crowd.start("ann" if override else "bob", override=override)
    pending = await asked(run)
    assert (pending.window.name, pending.window.workflow.timeout_sec) == (name, window_s)

    await on.pass_by(window_s - 20)
    assert (await run.query(PrimaryFailure.progress_view)).approval is not None
    await on.pass_by(30)
    result = await run.result()
    assert result.outcome is RunOutcome.EXPIRED and f"{name} came within {window_s} s" in result.reason
    assert on.stage.world.journal == []


async def until_noted(run: Run, word: str) -> None:
    async with asyncio.timeout(WITHIN_S):
        looks = Looks()
        while True:
            steps = (await run.query(PrimaryFailure.progress_view)).steps
            if any(word in text for step in steps for text in (step.note, *step.remarks)):
                return
            await looks.again()
