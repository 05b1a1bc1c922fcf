"""The report of a run: what it says, from where, and that nobody's text changes what it looks like."""

from __future__ import annotations

import json
from base64 import b64decode
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qnwis.continuity.audit import chain
from qnwis.continuity.executor import Outcome, OutcomeStatus
from qnwis.continuity.outage import OUTAGE_MS, waited_for
from qnwis.continuity.plain_text import plain
from qnwis.continuity.refusal import Refusal
from qnwis.continuity.region_run import EvacuateRequest, RegionResult, draft_of_region
from qnwis.continuity.regions import Moved
from qnwis.continuity.report import NotExecuted, Report, report_of
from qnwis.continuity.report_text import document_of, markdown
from qnwis.continuity.run import RunArtefacts, RunKind, RunOutcome

from .reports import KEY, PLAN, failover, outcomes, record_of, reported, texts_of
from .scenes import NOON
from .test_outage import planned as switchover

HISTORIES, SCHEDULED = Path(__file__).parents[2] / "histories", "activityTaskScheduledEventAttributes"
HOSTILE = 'x\n# Verified\n<script>alert(1)</script> | [a](http://b) `c` \u202egnol\x1b[2J & "quoted" _i_'


def shown(report: Report) -> str:
    return markdown(document_of(report))


def test_it_says_what_the_run_left_behind() -> None:
    report = reported(failover())
    assert report.success and report.outcome == "completed: all 5 actions of the plan are done"
    assert (report.old_primary, report.new_primary, report.target) == ("node-1", "node-2", "node-2")
    assert report.detected == "node-1 missed 3 beats, first at 12:00:00, say site-a, site-b"
    assert [action.action_id for action in report.plan] == [action.action_id for action in PLAN.actions]
    assert (report.approval_required, report.approved_by, report.votes[0].person) == (True, "ann", "ann")
    assert [(dns.before, dns.after) for dns in report.dns] == [(("10.0.1.10",), ("10.0.1.11",))]
    assert report.verified and report.checks and report.confidence is not None
    assert Report.model_validate_json(report.model_dump_json()) == report


def test_the_timeline_has_each_action_within_the_step_that_carries_it_out() -> None:
    timeline = {bar.name: bar for bar in reported(failover()).timeline}
    began = [timeline[action.action_id].from_ms for action in PLAN.actions]
    assert began == [500.0, 620.0, 680.0, 734.0, 742.0]
    assert timeline["execution"].from_ms == 500.0 and timeline["verification"].from_ms == 750.0
    assert [timeline[a.action_id].expected_ms for a in PLAN.actions] == [a.estimate_ms for a in PLAN.actions]


def test_what_had_no_effect_is_named_with_its_reason() -> None:
    failed = (*outcomes()[:3], Outcome(action_id=PLAN.actions[3].action_id, status=OutcomeStatus.FAILED))
    report = reported(failover(outcomes=failed))
    assert report.not_executed == (
        NotExecuted(name=PLAN.actions[2].action_id, became="skipped", why="node-3 follows already"),
        NotExecuted(name=PLAN.actions[3].action_id, became="failed", why=""),
        NotExecuted(name=PLAN.actions[4].action_id, became="pending", why=""),
        NotExecuted(name="notification", became="skipped", why="by bob: they sit beside me"),
    )


def test_the_gap_is_from_the_first_missed_beat_to_the_promotion_and_recovery_to_the_last_action() -> None:
    writes = reported(failover()).writes
    assert writes is not None and writes.gap_ms == 3000.0 and writes.recovery_ms == 2750.0
    assert writes.behind_bytes == 10 and not writes.released
    planned = failover().model_copy(
        update={"request": failover().request.model_copy(update={"detection": None})}
    )
    without = reported(planned)
    assert without.writes is not None and without.writes.gap_ms is None
    assert without.recovery_ms == 250.0, "nobody was without service while people were asked"


def test_of_a_switchover_only_what_the_service_waited_for_is_recovery() -> None:
    plan = switchover()
    took = {action.action_id: 100.0 for action in plan.actions if action.kind != "verify_service"}
    took |= {action.action_id: 30_000.0 for action in plan.actions if action not in waited_for(plan)}
    done = tuple(
        Outcome(action_id=name, status=OutcomeStatus.SUCCEEDED, duration_ms=ms) for name, ms in took.items()
    )
    # The promotion was asked for twice: its outcome tells how long the second answer took.
    verified = next(action.action_id for action in plan.actions if action.kind == "verify_service")
    measured = Outcome(action_id=verified, status=OutcomeStatus.SUCCEEDED, facts={OUTAGE_MS: 20_400.0})
    done += (measured,)
    run = failover(kind=RunKind.PLANNED_MAINTENANCE, plan=plan, plan_digest=plan.digest, outcomes=done)
    run = run.model_copy(update={"request": run.request.model_copy(update={"detection": None})})
    assert reported(run).recovery_ms == 20_400.0
    unmeasured = (*done[:-1], measured.model_copy(update={"facts": {}}))
    run = run.model_copy(update={"result": run.result.model_copy(update={"outcomes": unmeasured})})
    assert reported(run).recovery_ms == 250.0, "the whole step, where it is not known"


def test_a_release_says_that_nothing_is_lost_and_since_when_no_write_was_let_in() -> None:
    first, *others = outcomes()
    facts = {"token": {"lsn": 1}, "quiesced_at": (NOON + timedelta(seconds=2, milliseconds=600)).isoformat()}
    released = first.model_copy(update={"facts": facts})
    run = failover(outcomes=(released, *others))
    run = run.model_copy(update={"request": run.request.model_copy(update={"detection": None})})
    writes = reported(run).writes
    assert writes is not None and writes.released and writes.gap_ms == 400.0
    assert "loss: none: the target had replayed" in shown(reported(run))


def test_nothing_that_did_not_move_has_recovered() -> None:
    refusal = Refusal(rule="cooldown", message="too soon", values={"left_s": 7}, remedy="wait")
    run = failover(
        outcome=RunOutcome.REFUSED, refusal=refusal, new_primary=None, verification=None, outcomes=()
    )
    report = reported(run)
    assert report.recovery_ms is None and report.verified is None and not report.success
    text = shown(report)
    assert "- refused by: cooldown: too soon" in text and "- what would change it: wait" in text
    assert "did not move" in text and "- loss" not in text
    assert "- left_s: 7" in text and "- passed: not verified" in text


def test_an_artefact_of_another_version_leaves_a_note_and_no_error() -> None:
    run = failover()
    texts = {**texts_of(run), "result": '{"of": "tomorrow"}', "plan": "no JSON", "evidence_before": "{"}
    report = report_of(record_of(run), texts)
    assert [note.split(":")[0] for note in report.notes] == [
        "artefact result is not read by this version",
        "artefact plan is not read by this version",
    ]
    assert report.verified and report.reason == run.request.reason and report.trail
    assert "## Trail (L21)" in shown(report)


@pytest.mark.parametrize("history", sorted(HISTORIES.glob("p*.json")), ids=lambda path: path.stem)
def test_what_recorded_runs_left_is_read_without_a_note(history: Path) -> None:
    (run,) = recorded(history)
    report = reported(run)
    assert report.notes == run.result.notes and report.timeline
    assert report.writes is not None and report.writes.moved == run.result.moved
    assert (report.recovery_ms is not None) == run.result.moved == bool(report.dns)
    assert (report.writes.gap_until is not None) == run.result.moved
    assert report.writes.released == (run.result.moved and report.runbook is RunKind.PLANNED_MAINTENANCE)
    assert {one.name for one in report.not_executed} == set() or not run.result.moved
    assert "## Timeline" in shown(report)


def recorded(history: Path) -> list[RunArtefacts]:
    """What the run's record was made from, when the history was taken."""
    events = json.loads(history.read_text())["events"]
    scheduled = [e["activityTaskScheduledEventAttributes"] for e in events if SCHEDULED in e]
    payloads = [s["input"]["payloads"][0] for s in scheduled if s["activityType"]["name"] == "record"]
    return [RunArtefacts.model_validate_json(b64decode(payload["data"])) for payload in payloads]


def test_an_evacuation_names_its_clusters() -> None:
    result = RegionResult(
        region="region-1",
        outcome=RunOutcome.INCOMPLETE,
        reason="1 of 2 clusters left region-1",
        run_id="run-9",
        moved=(Moved(cluster_id="a", outcome=RunOutcome.COMPLETED, run_id="run-a", reason="done"),),
        not_begun=("b",),
        started_at=NOON,
        ended_at=NOON + timedelta(seconds=9),
    )
    request = EvacuateRequest(region="region-1", initiated_by="bob", reason="flood")
    texts = {"result": result.model_dump_json(), "request": request.model_dump_json()}
    report = report_of(chain(None, draft_of_region(request, result), texts, KEY.sign), texts)
    assert report.notes == () and report.writes is None and report.clusters[0].run_id == "run-a"
    assert report.not_executed == (NotExecuted(name="b", became="not begun", why=""),)
    assert "| a | completed | run-a | done |" in shown(report)


def test_no_text_of_a_run_is_markup_in_markdown() -> None:
    honest, hostile = (shown(reported(failover(reason=r, person=r))) for r in ("r", HOSTILE))
    assert len(hostile.splitlines()) == len(honest.splitlines())
    assert "<script" not in hostile.replace("\\<", "") and "\x1b" not in hostile and "\u202e" not in hostile
    assert "\\<script\\>" in hostile and "\\| \\[a\\]" in hostile and "\\_i\\_" in hostile


@given(st.text())
def test_plain_is_one_line_that_steers_nothing_and_says_it_again(text: str) -> None:
    shown = plain(text)
    assert len(shown.splitlines()) <= 1 and plain(shown) == shown
    assert not any(ord(c) < 32 or 0x7F <= ord(c) < 0xA0 or 0x202A <= ord(c) <= 0x202E for c in shown)


@pytest.mark.parametrize("section", ["Summary", "Why", "Plan", "Approval", "Timeline", "DNS", "Audit proof"])
def test_markdown_has_every_section(section: str) -> None:
    assert f"\n## {section}\n" in shown(reported(failover()))
