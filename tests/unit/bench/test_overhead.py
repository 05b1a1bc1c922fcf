"""`make bench-overhead`: what a run did at each moment, and what of it is overhead."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import WorkflowHistory

from tests.bench.overhead.figures import GOAL_MS, HEAD, Round, failures, rows
from tests.bench.overhead.timeline import EFFECTS, TTL_WAIT, Doing, Span, attributed, ran

HISTORY = Path(__file__).parents[2] / "histories" / "planned_maintenance_completed.json"
moments = st.integers(min_value=0, max_value=100).map(float)


def test_each_moment_counts_once_and_a_call_counts_before_all_else() -> None:
    spans = [
        Span(Doing.TASK_WAITS, 1, 3),
        Span(Doing.CALL, 2, 5),
        Span(Doing.DECIDES, 4, 6),
        Span(Doing.NOTIFIES, 0, 8),
    ]
    found = attributed(spans, 0, 10)
    assert {doing: s for doing, s in found.items() if s} == {
        Doing.CALL: 3,
        Doing.TASK_WAITS: 1,
        Doing.DECIDES: 1,
        Doing.NOTIFIES: 3,
        Doing.NOTHING: 2,
    }


@given(st.lists(st.builds(Span, st.sampled_from(list(Doing)), moments, moments)), moments, moments)
def test_nothing_is_counted_twice_or_left_out(spans: list[Span], one_s: float, other_s: float) -> None:
    begin_s, end_s = sorted((one_s, other_s))
    found = attributed(spans, begin_s, end_s)
    assert sum(found.values()) == pytest.approx(end_s - begin_s)
    assert all(seconds >= 0 for seconds in found.values())
    calls = [(span.begin_s, span.end_s) for span in spans if span.doing is Doing.CALL]
    covered = sum(any(b <= at and at + 1 <= e for b, e in calls) for at in range(int(begin_s), int(end_s)))
    assert found[Doing.CALL] == pytest.approx(covered), "the union of all calls, whatever else goes on"


def test_of_a_recorded_run_every_call_is_found_and_every_moment_is_told() -> None:
    history = WorkflowHistory.from_json("failover-c1", HISTORY.read_text())
    found = ran(history.events)
    assert {"prepare", "release", "promote", "flip", "repoint", "rejoin"} <= set(found.calls)
    assert found.calls[0] == "load_cluster" and found.calls[-2:] == ("verify", "record")
    assert not {"notify", "look_back"} & set(found.calls)
    assert sum(span.doing is Doing.CALL for span in found.spans) == len(found.calls)
    assert sum(span.doing is Doing.NOTIFIES for span in found.spans) >= 2
    assert found.attempts >= len(found.calls)
    doing = attributed(found.spans, found.begin_s, found.end_s)
    assert sum(doing.values()) == pytest.approx(found.end_s - found.begin_s)
    assert all(doing[each] > 0 for each in (Doing.CALL, Doing.DECIDES, Doing.TASK_WAITS, Doing.CALL_WAITS))


def an_event(number: int, at_s: float, name: str, **attributes: object) -> HistoryEvent:
    at = Timestamp()
    at.FromNanoseconds(round(at_s * 1e9))
    return HistoryEvent(event_id=number, event_time=at, **{f"{name}_event_attributes": attributes})


def test_of_a_timer_only_what_the_plan_asked_for_is_no_overhead() -> None:
    def timer(number: int, at_s: float, summary: str) -> HistoryEvent:
        lasts = Duration()
        lasts.FromTimedelta(timedelta(seconds=1))
        event = an_event(number, at_s, "timer_started", start_to_fire_timeout=lasts)
        event.user_metadata.summary.data = json.dumps(summary).encode()
        return event

    found = ran(
        [
            an_event(1, 10, "workflow_execution_started"),
            timer(2, 11, TTL_WAIT),
            timer(3, 11, "patience with the channels"),
            an_event(4, 12.25, "timer_fired", started_event_id=2),
            an_event(5, 12.5, "timer_fired", started_event_id=3),
            an_event(6, 13, "workflow_execution_completed"),
        ]
    )
    doing = attributed(found.spans, found.begin_s, found.end_s)
    assert (doing[Doing.PLAN], doing[Doing.NOTHING]) == (1, 2)


def a_round(overhead_ms: float, *, script_ms: float) -> Round:
    doing = {**dict.fromkeys(Doing, 0.0), Doing.CALL: 700.0, Doing.PLAN: 1000.0, Doing.DECIDES: overhead_ms}
    return Round(run_ms=1700 + overhead_ms, script_ms=script_ms, doing=doing, calls=12, attempts=12)


def test_what_neither_a_call_nor_the_plan_takes_is_overhead() -> None:
    one = a_round(250, script_ms=1600)
    assert one.overhead_ms == 250 and one.difference_ms == 350
    table = {
        row[0]: row[1:] for row in rows([one, a_round(210, script_ms=1710), a_round(230, script_ms=1700)])
    }
    assert all(len(row) + 1 == len(HEAD) for row in table.values())
    assert table["overhead: run less its calls"] == ("230", "210", "250")
    assert table["run less script"] == ("230", "200", "350")
    dotted = {what.removeprefix("· ") for what in table if what.startswith("·")}
    assert dotted == set(Doing) - EFFECTS


def test_each_median_over_the_goal_is_a_failure() -> None:
    good, over = a_round(GOAL_MS, script_ms=1700), a_round(GOAL_MS + 1, script_ms=1700)
    assert failures([good, good, over]) == []
    assert len(failures([good, over, over])) == 2
    assert failures([a_round(100, script_ms=1400)]) == [
        "the median of the difference to the script is 400 ms, over 300 ms"
    ]
