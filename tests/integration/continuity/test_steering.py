"""A run that goes on, steered by commands as people type them, and by what these print for the UI."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from qnwis.cli.qnwis_continuity import app
from qnwis.continuity.approvals import PendingApproval
from qnwis.continuity.run import ConfirmRequest, RunKind, RunOutcome, RunProgress, StepStatus
from qnwis.runbook import ManualStep, Runbook, load_runbook
from tests.looking import WITHIN_S, Looks
from workflows.primary_failure import PrimaryFailure

from .conftest import Run, Setting
from .people import Crowd, asked
from .test_approvals import until_noted
from .test_hooks import activities_of
from .test_interrupted_runs import halted

DRAINED = ManualStep(name="drained", before="execution", text="Drain the load balancer.")
WHY = ("--reason", "the switch is not ready")
SOON = timedelta(seconds=0.2)
"""For so long a run counts on what it has seen, where a test waits for that."""


@dataclass
class Desk:
    """Where people sit who steer the run of a dead primary."""

    crowd: Crowd
    run: Run
    pending: PendingApproval
    address: str

    async def types(self, person: str, *arguments: str, key_of: str | None = None) -> Result:
        """This person types a command; `key_of` is whose key it is signed with."""
        key = str(self.crowd.key_file(key_of or person))
        typed = [*arguments, "--by", person, "--key", key, "--address", self.address]
        return await asyncio.to_thread(CliRunner().invoke, app, typed, env={"NO_COLOR": "1"})

    async def prints(self, person: str, *arguments: str) -> Any:
        """What the command prints to be pasted into the Temporal UI."""
        done = await self.types(person, *arguments, "--print")
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    async def progress(self) -> RunProgress:
        return await self.run.query(PrimaryFailure.progress_view)

    @property
    def cluster_id(self) -> str:
        return self.crowd.stage.cluster_id


@pytest.fixture
def by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Something has to be done by hand before each run's execution."""

    def with_manual_step(kind: RunKind) -> Runbook:
        return load_runbook(kind).model_copy(update={"manual_steps": (DRAINED,)})

    monkeypatch.setattr("workflows.progress.load_runbook", with_manual_step)


@pytest.fixture
async def desk(stage: Setting, by_hand: None) -> Desk:
    """bob's run waits for votes, and then for what is done by hand."""
    on = await stage(approvals=True)
    on.world.kill("node-1")
    crowd = Crowd(on)
    run = await crowd.start("bob")
    return Desk(crowd, run, await asked(run), on.client.service_client.config.target_host)


async def test_a_run_is_held_given_time_confirmed_and_let_go_by_commands(desk: Desk) -> None:
    cluster, world = desk.cluster_id, desk.crowd.stage.world

    held = await desk.types("bob", "run", "pause", cluster, *WHY)
    assert (held.exit_code, held.stdout) == (0, f"{cluster}: the run is held before its next action\n")
    assert (await desk.progress()).paused == "by bob: the switch is not ready"

    own = await desk.types("bob", "run", "extend", cluster, "--for", "10m", "--reason", "ann is late")
    assert own.exit_code == 3 and "[initiator_excluded]" in own.stderr
    longer = await desk.types(
        "ann", "run", "extend", cluster, "--for", "10m", "--reason", "I am late", "--json"
    )
    assert longer.exit_code == 0 and "votes are counted until" in json.loads(longer.stdout)["answer"]
    window = (await asked(desk.run)).window
    assert window.closes_at - desk.pending.window.closes_at == timedelta(minutes=10)

    assert (await desk.types("ann", "approve", cluster, "--yes")).exit_code == 0
    unknown = await desk.types("bob", "run", "confirm", cluster, "drunk", "--reason", "done")
    assert unknown.exit_code == 3 and "[no_such_manual_step]" in unknown.stderr
    assert (await desk.progress()).awaits == ("drained",)
    assert (await desk.types("bob", "run", "confirm", cluster, "drained", "--reason", "done")).exit_code == 0
    assert (await desk.progress()).awaits == () and world.journal == []

    assert (await desk.types("bob", "run", "resume", cluster, "--reason", "it is ready")).exit_code == 0
    assert (await desk.run.result()).verified


async def test_who_may_not_or_proves_nothing_is_refused_and_what_is_printed_is_the_signals_input(
    desk: Desk,
) -> None:
    cluster = desk.cluster_id
    deeds = {
        "pause": ("run", "pause", cluster, *WHY),
        "resume": ("run", "resume", cluster, *WHY),
        "confirm": ("run", "confirm", cluster, "drained", *WHY),
        "abort": ("abort", cluster, *WHY),
        "extend": ("run", "extend", cluster, "--for", "10m", *WHY),
    }
    who = dict.fromkeys(deeds, "bob") | {"extend": "ann"}
    before = await desk.progress()
    for deed, arguments in deeds.items():
        viewer = await desk.types("eve", *arguments)
        assert viewer.exit_code == 3 and "[permission_missing]" in viewer.stderr
        forged = await desk.types(who[deed], *arguments, key_of="eve")
        assert forged.exit_code == 3 and "[token_forged]" in forged.stderr
    printed = {deed: await desk.prints(who[deed], *arguments) for deed, arguments in deeds.items()}
    assert steered(await desk.progress()) == steered(before), "printing sends nothing, and no refusal did"

    await desk.run.signal("pause", printed["resume"])
    await until_noted(desk.run, "token_for_another")
    await desk.run.signal("extend", {**printed["extend"], "by_s": 9999})  # each answer replaces the last one
    await until_noted(desk.run, "extension by ann was refused")
    await desk.run.signal("pause", {**printed["pause"], "reason": "another"})
    await until_noted(desk.run, "token_for_another")
    assert steered(await desk.progress()) == steered(before)

    for deed in ("pause", "extend", "extend", "confirm", "resume", "abort"):
        await desk.run.signal(deed, printed[deed])
    result = await desk.run.result()
    assert (result.outcome, result.reason) == (
        RunOutcome.UNTOUCHED,
        "aborted by bob: the switch is not ready",
    )
    after = await desk.progress()
    assert (after.paused, after.awaits) == (None, ())
    assert result.approval is not None and result.approval.extended_s == 600

    gone = await desk.types("bob", *deeds["pause"])
    assert gone.exit_code == 3 and "[no_run]" in gone.stderr


@pytest.mark.parametrize("comes_back", ["while_a_manual_step_is_awaited", "while_the_run_is_held"])
async def test_a_primary_that_serves_again_before_the_run_may_act_is_left_alone(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, comes_back: str
) -> None:
    monkeypatch.setattr("workflows.run.EVIDENCE_LASTS", SOON)
    cluster, world = desk.cluster_id, desk.crowd.stage.world
    if comes_back == "while_the_run_is_held":
        await desk.types("bob", "run", "pause", cluster, *WHY)
    await desk.types("ann", "approve", cluster, "--yes")
    if comes_back == "while_a_manual_step_is_awaited":
        world.revive("node-1")
    await asyncio.sleep(2 * SOON.total_seconds())
    await desk.types("bob", "run", "confirm", cluster, "drained", "--reason", "done")
    if comes_back == "while_the_run_is_held":
        await until_looked_again(desk)
        world.revive("node-1")
        await asyncio.sleep(2 * SOON.total_seconds())
        await desk.types("bob", "run", "resume", cluster, "--reason", "it is ready")
    result = await desk.run.result()
    assert result.outcome is RunOutcome.REFUSED and world.journal == []
    assert result.refusal is not None and result.refusal.rule == "primary_is_healthy"


async def until_looked_again(desk: Desk) -> None:
    """Returns when the run, held before its first action, has seen that the primary still is gone."""
    async with asyncio.timeout(WITHIN_S):
        looks = Looks()
        while (await activities_of(desk.run)).count("collect") < 3:
            await looks.again()


async def test_a_run_that_was_held_goes_on_where_the_primary_still_is_gone(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workflows.run.EVIDENCE_LASTS", SOON)
    cluster = desk.cluster_id
    await desk.types("ann", "approve", cluster, "--yes")
    await asyncio.sleep(2 * SOON.total_seconds())
    await desk.types("bob", "run", "confirm", cluster, "drained", "--reason", "done")
    result = await desk.run.result()
    assert result.verified and desk.crowd.stage.world.writable() == ["node-2"]
    assert (await activities_of(desk.run)).count("collect") == 3, "at first, after the vote, and now"
    assert result.approval is not None and len(result.approval.votes) == 1, "nobody was asked again"


async def test_where_planning_takes_longer_than_evidence_lasts_one_new_look_is_enough(
    stage: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else no run ever begins while everything is slow, because hundreds fail over together."""
    monkeypatch.setattr("workflows.run.EVIDENCE_LASTS", timedelta(0))
    on = await stage()
    on.world.kill("node-1")
    run = await on.start()
    async with asyncio.timeout(WITHIN_S / 4):
        result = await run.result()
    assert result.verified and (await activities_of(run)).count("collect") == 2


async def test_a_run_that_asks_people_again_before_it_acts_gives_way_to_a_failover(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workflows.run.EVIDENCE_LASTS", SOON)
    cluster, world = desk.cluster_id, desk.crowd.stage.world
    await desk.types("bob", "run", "pause", cluster, *WHY)
    await desk.types("ann", "approve", cluster, "--yes")
    await desk.types("bob", "run", "confirm", cluster, "drained", "--reason", "done")
    async with asyncio.timeout(WITHIN_S):
        looks = Looks()
        while (
            StepStatus.RUNNING is not {s.name: s.status for s in (await desk.progress()).steps}["execution"]
        ):
            await looks.again()
    world.machines["node-3"].lsn += 1000  # it has more now, so it is the better target
    await asyncio.sleep(2 * SOON.total_seconds())
    await desk.types("bob", "run", "resume", cluster, "--reason", "it is ready")
    await asked(desk.run, besides=desk.pending.window.digest)
    await desk.run.signal("give_way", "its primary failed")
    result = await desk.run.result()
    assert result.outcome is RunOutcome.UNTOUCHED and result.reason.startswith("gave way"), result.reason
    assert world.journal == []


async def test_what_people_do_by_hand_before_a_run_acts_is_no_failover_time(
    stage: Setting, by_hand: None
) -> None:
    on = await stage()
    on.world.kill("node-1")
    run, by_hand_s = await on.start(), 3.0
    await asyncio.sleep(by_hand_s)
    confirmed = ConfirmRequest(by="ann", reason="done", manual_step=DRAINED.name)
    await run.execute_update("confirm", confirmed)
    result = await run.result()
    assert result.verified and result.verification is not None
    (took,) = [check.detail for check in result.verification.checks if check.name == "within_time"]
    assert float(took.split()[3]) < by_hand_s * 1000, took


async def test_a_run_that_finishes_what_another_had_begun_waits_for_nothing_by_hand(
    stage: Setting, by_hand: None
) -> None:
    on = await stage()
    on.world.kill("node-1")
    run = await on.start()
    confirmed = ConfirmRequest(by="ann", reason="done", manual_step=DRAINED.name)
    confirming = asyncio.create_task(run.execute_update("confirm", confirmed))
    async with halted(on, "promote"):
        await confirming
        await run.terminate("enough")
    finished = await (await on.start(continues="unfinished")).result()
    assert finished.verified and finished.run_id == run.result_run_id


def steered(progress: RunProgress) -> tuple[object, ...]:
    """What people have brought about."""
    window = progress.approval.window if progress.approval is not None else None
    return progress.paused, progress.awaits, window
