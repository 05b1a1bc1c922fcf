"""What a run did at each moment, from its history: pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, timedelta
from enum import StrEnum
from itertools import pairwise

from temporalio.api.history.v1 import HistoryEvent

BESIDE = frozenset({"notify", "look_back"})
"""Activities that a plain script would not have: the run sends notifications beside its steps, and looks back
at what Temporal knows of earlier runs."""
TTL_WAIT = "one old TTL"
"""Summary of the timer by which a plan waits until nobody has the old address any more."""


class Doing(StrEnum):
    """In the order in which the first counts where several are true of one moment."""

    CALL = "a call is carried out"
    PLAN = "the plan waits for the old TTL"
    DECIDES = "the workflow decides: a task is with the worker"
    TASK_WAITS = "a workflow task waits to be taken up"
    CALL_WAITS = "a call waits to be taken up"
    TELLS = "the guardian is told"
    NOTIFIES = "only a notification or the look back goes on"
    NOTHING = "nothing is under way"
    CLIENT = "start and answer, on the client's side"


EFFECTS = frozenset({Doing.CALL, Doing.PLAN})
"""All others are overhead."""


@dataclass(frozen=True)
class Span:
    """Seconds since the epoch."""

    doing: Doing
    begin_s: float
    end_s: float


@dataclass(frozen=True)
class Ran:
    """What a closed history says."""

    begin_s: float
    end_s: float
    spans: tuple[Span, ...]
    calls: tuple[str, ...]
    """Names of the activities, in the order in which they were scheduled; without those beside the run."""
    attempts: int
    """Of all its calls together: more than there are calls where one was tried again. What went before the
    last attempt counts as overhead."""


def ran(events: Sequence[HistoryEvent]) -> Ran:
    """Read a history from its first to its closing event. Spans that nothing ended end with it."""
    at = {event.event_id: _seconds(event) for event in events}
    end_s = _seconds(events[-1])
    scheduled: dict[int, str] = {}
    """By event: activities under way."""
    started: dict[int, float] = {}
    """By event that scheduled it."""
    waiting: dict[int, float] = {}
    """By event: workflow tasks and signals under way."""
    timers: dict[int, float] = {}
    """By event: until when the plan waits."""
    spans: list[Span] = []
    calls: list[str] = []
    attempts = 0

    def activity(scheduled_id: int, ended_s: float) -> None:
        name = scheduled.pop(scheduled_id)
        begun_s = started.pop(scheduled_id, ended_s)
        if name in BESIDE:
            spans.append(Span(Doing.NOTIFIES, at[scheduled_id], ended_s))
            return
        spans.append(Span(Doing.CALL_WAITS, at[scheduled_id], begun_s))
        spans.append(Span(Doing.CALL, begun_s, ended_s))

    for event in events:
        now_s = _seconds(event)
        match event.WhichOneof("attributes"):
            case "activity_task_scheduled_event_attributes":
                name = event.activity_task_scheduled_event_attributes.activity_type.name
                scheduled[event.event_id] = name
                calls += [] if name in BESIDE else [name]
            case "activity_task_started_event_attributes":
                begun = event.activity_task_started_event_attributes
                started[begun.scheduled_event_id] = now_s
                attempts += begun.attempt if scheduled[begun.scheduled_event_id] not in BESIDE else 0
            case "activity_task_completed_event_attributes":
                activity(event.activity_task_completed_event_attributes.scheduled_event_id, now_s)
            case "activity_task_failed_event_attributes":
                activity(event.activity_task_failed_event_attributes.scheduled_event_id, now_s)
            case "activity_task_timed_out_event_attributes":
                activity(event.activity_task_timed_out_event_attributes.scheduled_event_id, now_s)
            case "activity_task_canceled_event_attributes":
                activity(event.activity_task_canceled_event_attributes.scheduled_event_id, now_s)
            case "workflow_task_scheduled_event_attributes":
                waiting[event.event_id] = now_s
            case "workflow_task_started_event_attributes":
                begun_id = event.workflow_task_started_event_attributes.scheduled_event_id
                spans.append(Span(Doing.TASK_WAITS, waiting.pop(begun_id), now_s))
                waiting[begun_id] = now_s
            case "workflow_task_completed_event_attributes":
                done = event.workflow_task_completed_event_attributes
                spans.append(Span(Doing.DECIDES, waiting.pop(done.scheduled_event_id), now_s))
            case "workflow_task_failed_event_attributes":
                failed = event.workflow_task_failed_event_attributes
                spans.append(Span(Doing.DECIDES, waiting.pop(failed.scheduled_event_id), now_s))
            case "workflow_task_timed_out_event_attributes":
                late = event.workflow_task_timed_out_event_attributes
                spans.append(Span(Doing.TASK_WAITS, waiting.pop(late.scheduled_event_id), now_s))
            case "timer_started_event_attributes":
                if _summary(event) == TTL_WAIT:
                    lasts: timedelta = (
                        event.timer_started_event_attributes.start_to_fire_timeout.ToTimedelta()
                    )
                    timers[event.event_id] = now_s + lasts.total_seconds()
            case "timer_fired_event_attributes":
                begun_id = event.timer_fired_event_attributes.started_event_id
                if begun_id in timers:
                    # Late is overhead.
                    spans.append(Span(Doing.PLAN, at[begun_id], min(now_s, timers.pop(begun_id))))
            case "signal_external_workflow_execution_initiated_event_attributes":
                waiting[event.event_id] = now_s
            case "external_workflow_execution_signaled_event_attributes":
                told = event.external_workflow_execution_signaled_event_attributes
                spans.append(Span(Doing.TELLS, waiting.pop(told.initiated_event_id), now_s))
    for scheduled_id in list(scheduled):
        activity(scheduled_id, end_s)
    return Ran(_seconds(events[0]), end_s, tuple(spans), tuple(calls), attempts)


def attributed(spans: Iterable[Span], begin_s: float, end_s: float) -> dict[Doing, float]:
    """Seconds of the time from one moment to the other, each counted once: of what comes first in `Doing`
    where several spans cover it, of `Doing.NOTHING` where none does."""
    order = list(Doing)
    cut = [
        Span(span.doing, max(begin_s, span.begin_s), min(end_s, span.end_s))
        for span in spans
        if span.end_s > begin_s and span.begin_s < end_s and span.end_s > span.begin_s
    ]
    edges = sorted({begin_s, end_s, *(s.begin_s for s in cut), *(s.end_s for s in cut)})
    found = dict.fromkeys(Doing, 0.0)
    for left_s, right_s in pairwise(edges):
        over = [span.doing for span in cut if span.begin_s <= left_s and right_s <= span.end_s]
        found[min(over, key=order.index, default=Doing.NOTHING)] += right_s - left_s
    return found


def _seconds(event: HistoryEvent) -> float:
    return event.event_time.ToDatetime(tzinfo=UTC).timestamp()


def _summary(event: HistoryEvent) -> str | None:
    data = event.user_metadata.summary.data
    return json.loads(data) if data else None
