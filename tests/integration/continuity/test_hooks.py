"""Hooks and the steady state of real runs, on the time-skipping server, with real programs and requests."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from qnwis.continuity.access import Deed
from qnwis.continuity.executor import OutcomeStatus
from qnwis.continuity.run import (
    AbortRequest,
    Maintenance,
    PauseRunRequest,
    ResumeRunRequest,
    RunOutcome,
    RunProgress,
    RunResult,
    SkipRequest,
    StepStatus,
)
from qnwis.continuity.steady_state import Moment
from qnwis.providers.calls import Caller, Came
from qnwis.providers.errors import Unreachable
from tests.receiver import SECRET, Receiver, receiving
from workers import wiring

from .conftest import Run, Stage
from .people import Crowd
from .test_planned_maintenance import maintain, progress_until, serving
from .time_skipping import Hours, hours

LONG_TTL_S = 30


class Mortal(Caller):
    """The worker that makes a call can be made to die when it has made it, before it says so."""

    dies = 0

    async def make(self, *args: Any, **kwargs: Any) -> Came:
        came = await super().make(*args, **kwargs)
        if Mortal.dies:
            Mortal.dies -= 1
            raise Unreachable("the worker died here")
        return came


@dataclass
class Scene:
    """One cluster whose runs follow one another, and what its hooks talk to."""

    on: Hours
    crowd: Crowd
    receiver: Receiver
    folder: Path

    @property
    def stage(self) -> Stage:
        return self.on.stage

    def declare(self, *hooks: Mapping[str, object], steady_state: tuple[object, ...] = ()) -> None:
        """Write hooks.yaml; what was journaled and received before is forgotten."""
        self.stage.world.journal.clear()
        self.stage.world.before_effect = lambda effect: None
        self.receiver.took.clear()
        self.receiver.headers.clear()
        file = self.stage.settings.config_dir / "hooks.yaml"
        file.write_text(yaml.safe_dump({"hooks": list(hooks), "steady_state": list(steady_state)}))

    def command(self, name: str, script: str, **where: object) -> dict[str, object]:
        return {"name": name, "command": ["sh", "-c", script], **where}

    def request(self, name: str, manner: str = "takes", **where: object) -> dict[str, object]:
        url = f"http://127.0.0.1:{self.receiver.port}/{manner}/{name}"
        return {"name": name, "http": {"url": url}, **where}

    async def maintain(self, **request: object) -> Run:
        return await maintain(self.stage, self.crowd, **request)

    async def result(self, **request: object) -> RunResult:
        return await (await self.maintain(**request)).result()

    @property
    def moved(self) -> bool:
        return bool(self.stage.world.changes("promote"))


async def activities_of(run: Run) -> list[str]:
    """What the run has asked for so far, by name."""
    return [
        event.activity_task_scheduled_event_attributes.activity_type.name
        async for event in run.fetch_history_events()
        if event.HasField("activity_task_scheduled_event_attributes")
    ]


@pytest.fixture(scope="module")
async def scene(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    """One server for all of these runs, which come one after the other."""
    home = tmp_path_factory.mktemp("hooks")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(wiring, "Caller", Mortal)
        async with hours(home) as on, receiving() as receiver:
            yield Scene(on, serving(on.stage), receiver, home)


async def test_hooks_are_called_around_steps_and_stand_in_checklist_and_record(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOOK_AUTH", f"Bearer {SECRET}")
    told = scene.folder / "told"
    secret = scene.request("tell", before="audit")
    secret["http"] = {**secret["http"], "headers": {"Authorization": "env:HOOK_AUTH"}}  # type: ignore[dict-item]
    scene.declare(
        scene.command("first", f"cat > {told}; echo drained", before="execution"),
        scene.request("second", before="execution"),
        scene.request("undrain", after="execution"),
        secret,
        scene.request("never", before="execution", runbooks=["primary_failure"]),
    )
    run = await scene.maintain()
    result = await run.result()

    assert result.verified and result.plan is not None
    places = [(hook.hook, hook.when, hook.step, hook.ok) for hook in result.hooks]
    assert places == [
        ("first", "before", "execution", True),
        ("second", "before", "execution", True),
        ("undrain", "after", "execution", True),
        ("tell", "before", "audit", True),
    ]
    first, (second, undrain, tell) = json.loads(told.read_text()), scene.receiver.took
    assert first["plan_digest"] == second["plan_digest"] == result.plan.digest
    assert (first["run_id"], first["runbook"], first["step"]) == (
        result.run_id,
        "planned_maintenance",
        "execution",
    )
    assert (first["target"], first["outcome"]) == (result.new_primary, "")
    assert (undrain["step_status"], tell["outcome"]) == ("done", "completed")
    assert [h["Idempotency-Key"] for h in scene.receiver.headers] == [
        f"{result.run_id}/before-execution/second",
        f"{result.run_id}/after-execution/undrain",
        f"{result.run_id}/before-audit/tell",
    ]
    assert scene.receiver.headers[2]["Authorization"] == f"Bearer {SECRET}"

    progress = await run.query("progress", result_type=RunProgress)
    execution = next(step for step in progress.steps if step.name == "execution")
    assert execution.remarks[0] == "☑ hook first before execution done: exit status 0: drained"
    artefacts = await scene.stage.providers.audit.artefacts(result.audit_id or "")
    assert [hook["hook"] for hook in json.loads(artefacts["result"])["hooks"]] == [
        hook.hook for hook in result.hooks
    ]
    async for event in run.fetch_history_events():
        assert SECRET.encode() not in event.SerializeToString()
    assert not any(SECRET in artefact for artefact in artefacts.values())


async def test_a_hook_that_fails_stops_the_run_before_it_has_changed_anything(scene: Scene) -> None:
    scene.declare(
        scene.command("check", "echo batch runs; exit 1", before="execution", on_failure="stop"),
        scene.request("not-reached", before="execution"),
        scene.request("undo", after="execution"),
    )
    result = await scene.result()
    assert result.outcome is RunOutcome.UNTOUCHED
    assert result.reason == "hook check before execution failed: exit status 1: batch runs"
    assert scene.stage.world.journal == []
    assert [(hook.hook, hook.ok) for hook in result.hooks] == [("check", False), ("undo", True)]
    assert scene.receiver.took[0]["step_status"] == "failed", "what hooks before it began can be taken back"


async def test_a_hook_that_may_fail_is_noted_and_past_return_none_stops_the_run(scene: Scene) -> None:
    scene.declare(
        scene.command("may", "exit 1", before="execution"),
        scene.command("late", "exit 2", after="execution", on_failure="stop"),
        scene.command("later", "exit 3", before="verification", on_failure="stop"),
    )
    result = await scene.result()
    assert result.verified and scene.moved
    assert result.notes == (
        "hook may before execution failed: exit status 1",
        "hook late after execution failed: exit status 2",
        "hook later before verification failed: exit status 3",
    )


async def test_a_hook_that_hangs_is_killed_at_its_time(scene: Scene) -> None:
    scene.declare(scene.command("hangs", "sleep 1000", before="execution", timeout_s=0.5, on_failure="stop"))
    result = await scene.result()
    assert result.outcome is RunOutcome.UNTOUCHED
    assert result.reason == "hook hangs before execution failed: killed after 0.5 s"


async def test_a_hook_whose_worker_died_is_called_again_under_the_same_key(scene: Scene) -> None:
    scene.declare(scene.request("twice", before="execution"))
    Mortal.dies = 1
    result = await scene.result()
    assert result.verified
    assert [(hook.ok, hook.attempts) for hook in result.hooks] == [(True, 2)]
    keys = [headers["Idempotency-Key"] for headers in scene.receiver.headers]
    assert keys == [f"{result.run_id}/before-execution/twice"] * 2


async def test_an_abort_does_not_wait_for_a_hook(scene: Scene) -> None:
    scene.declare(scene.request("slow", "hangs", before="execution", timeout_s=600))
    scene.receiver.held.clear()
    run = await scene.maintain()
    await scene.receiver.held.wait()
    request = AbortRequest(by="bob", reason="not today")
    await run.execute_update("abort", scene.crowd.signed(run, Deed.ABORT, request))
    result = await run.result()
    assert (result.outcome, result.reason) == (RunOutcome.UNTOUCHED, "aborted by bob: not today")
    assert result.hooks[0].detail == "cut off, because the run stops; whether it had an effect is not known"
    scene.receiver.go_on.set()


async def test_a_run_that_is_held_calls_no_hook_until_it_is_resumed(scene: Scene) -> None:
    scene.declare(
        scene.request("wait", "hangs", before="notification", timeout_s=60),
        scene.request("drain", before="execution"),
    )
    scene.receiver.held.clear()
    scene.receiver.go_on.clear()
    run = await scene.maintain()
    await scene.receiver.held.wait()
    pause = PauseRunRequest(by="bob", reason="the switch is not ready")
    await run.execute_update("pause", scene.crowd.signed(run, Deed.PAUSE, pause))
    scene.receiver.go_on.set()
    await progress_until(
        run, lambda p: any(s.name == "execution" and s.status is StepStatus.RUNNING for s in p.steps)
    )
    assert (await activities_of(run)).count("call_hook") == 1, "the one that the run was held in"
    resume = ResumeRunRequest(by="bob", reason="it is ready")
    await run.execute_update("resume", scene.crowd.signed(run, Deed.RESUME, resume))
    assert (await run.result()).verified
    assert [message["hook"] for message in scene.receiver.took] == ["wait", "drain"]


async def test_a_run_that_was_held_past_its_window_does_not_begin(scene: Scene) -> None:
    scene.declare(
        scene.request("wait", "hangs", before="notification", timeout_s=60),
        scene.request("drain", before="execution"),
    )
    scene.receiver.held.clear()
    scene.receiver.go_on.clear()
    run = await scene.maintain(maintenance=Maintenance(window_s=600))
    await scene.receiver.held.wait()
    pause = PauseRunRequest(by="bob", reason="the switch is not ready")
    await run.execute_update("pause", scene.crowd.signed(run, Deed.PAUSE, pause))
    scene.receiver.go_on.set()
    await progress_until(
        run, lambda p: any(s.name == "execution" and s.status is StepStatus.RUNNING for s in p.steps)
    )
    await scene.on.pass_by(600)
    resume = ResumeRunRequest(by="bob", reason="it is ready")
    await run.execute_update("resume", scene.crowd.signed(run, Deed.RESUME, resume))
    result = await run.result()
    assert result.refusal is not None and result.refusal.rule == "window_too_short"
    assert scene.stage.world.journal == []


async def test_a_simulation_that_is_skipped_is_played_neither_before_nor_after_the_votes(
    tmp_path: Path,
) -> None:
    async with hours(tmp_path, approvals=True) as on, receiving() as receiver:
        scene = Scene(on, serving(on.stage), receiver, tmp_path)
        scene.declare(scene.request("wait", "hangs", before="notification", timeout_s=60))
        run = await scene.maintain()
        await receiver.held.wait()
        request = SkipRequest(by="bob", reason="the model is wrong", step="simulation")
        await run.execute_update("skip", scene.crowd.signed(run, Deed.SKIP, request))
        receiver.go_on.set()
        await scene.crowd.approve(run)
        assert (await run.result()).verified
        asked = await activities_of(run)
        assert "rehearse" not in asked and asked.count("assess") == 2


async def test_a_dry_run_names_the_hooks_and_probes_and_calls_none(scene: Scene) -> None:
    scene.declare(scene.request("drain", before="execution"), steady_state=(scene.command("shop", "exit 1"),))
    run = await scene.maintain(dry_run=True)
    result = await run.result()
    assert result.outcome is RunOutcome.PREVIEWED and result.hooks == () and result.steady_state == ()
    assert scene.receiver.took == []
    progress = await run.query("progress", result_type=RunProgress)
    remarks = next(step.remarks for step in progress.steps if step.name == "execution")
    assert "[DRY-RUN] would call hook drain before execution" in remarks
    assert "[DRY-RUN] would probe shop before" in remarks


async def test_a_file_that_cannot_be_used_refuses_what_a_person_starts(scene: Scene) -> None:
    scene.declare({"name": "drain", "before": "exection", "command": ["drain"]})
    result = await scene.result()
    assert result.refusal is not None and result.refusal.rule == "hooks_unreadable"
    assert "hooks[0].before: found exection" in result.reason


async def test_nobody_has_hooks_called_who_may_not_start_the_run(tmp_path: Path) -> None:
    async with hours(tmp_path, approvals=True) as on, receiving() as receiver:
        own = Scene(on, serving(on.stage), receiver, tmp_path)
        own.declare(own.request("tell", after="preparation"), own.request("record", before="audit"))
        result = await own.result(person="eve")
        assert result.refusal is not None and result.refusal.rule == "permission_missing"
        assert receiver.took == [] and result.hooks == ()


# ---- the steady state


def shop(broken: Path) -> dict[str, object]:
    return {
        "name": "shop",
        "command": ["test", "!", "-e", str(broken)],
        "every_s": 0.05,
        "failures": 2,
        "timeout_s": 30,
    }


async def test_a_service_that_is_not_steady_is_left_alone(scene: Scene) -> None:
    broken = scene.folder / "broken-before"
    broken.touch()
    scene.declare(scene.request("drain", before="execution"), steady_state=(shop(broken),))
    result = await scene.result()
    assert result.refusal is not None and result.refusal.rule == "steady_state_breached"
    assert "shop: exit status 1" in result.reason
    assert scene.stage.world.journal == [] and scene.receiver.took == []


async def test_a_breach_before_the_promotion_undoes_what_was_begun(tmp_path: Path) -> None:
    broken = tmp_path / "broken"

    def breaks(effect: str) -> None:
        if effect == "ttl":
            broken.touch()

    dns = {"zone": "lab.test", "name": "db", "ttl_s": LONG_TTL_S, "servers": ["127.0.0.1:53"]}
    async with hours(tmp_path, cluster={"dns": dns}, max_failover_time_s=300) as on, receiving() as receiver:
        scene = Scene(on, serving(on.stage), receiver, tmp_path)
        scene.declare(steady_state=(shop(broken),))
        (primary,) = scene.stage.world.writable()
        scene.stage.world.before_effect = breaks  # and the old TTL is waited for, which is long
        result = await scene.result()

    assert result.outcome is RunOutcome.ROLLED_BACK
    assert result.reason.startswith("steady state during: shop: exit status 1")
    assert scene.stage.world.writable() == [primary] and not scene.moved
    assert scene.stage.world.ttl_s == LONG_TTL_S
    assert [o.status for o in result.outcomes if o.action_id == "1-lower-ttl"] == [OutcomeStatus.UNDONE]
    assert [(r.moment, r.ok) for r in result.steady_state] == [(Moment.BEFORE, True), (Moment.DURING, False)]


async def test_a_breach_past_return_is_noted_and_takes_nothing_back(scene: Scene) -> None:
    broken = scene.folder / "broken-after"
    scene.declare(
        scene.command("break", f"touch {broken}", before="verification"), steady_state=(shop(broken),)
    )
    result = await scene.result()

    assert result.verified and scene.moved
    after = next(reading for reading in result.steady_state if reading.moment is Moment.AFTER)
    assert not after.ok and str(after) in result.notes
    verification = next(step for step in result.steps if step.name == "verification")
    assert verification.status is StepStatus.DONE
