"""A few named sets of activity options, chosen on purpose; no call makes up its own.

Heartbeat timeouts bound how long a killed worker is waited for; start-to-close bounds one attempt;
schedule-to-close bounds what a run waits in all before it calls an effect's outcome unknown. Each takes the
`summary` that the Temporal UI shows beside the activity.
"""

from __future__ import annotations

from datetime import timedelta

from temporalio.common import RetryPolicy
from temporalio.workflow import ActivityCancellationType, ActivityConfig

EFFECT_WITHIN_S = 60.0
"""After this an effect that nobody could carry out is given up: its outcome is unknown."""
PREVIEWED_WITHIN_S = 30.0
"""Of each look of a dry run, for which a person waits."""
VERIFIED_WITHIN_S = 1800.0
"""Of the last look at what was done, which changes nothing."""
FENCED_WITHIN_S = 20.0
"""The same for fencing, which is undone then; beside the time that its power switch or its drain may take."""
HANDED_OVER_WITHIN_S = 780.0
"""Longer by two attempts than a hand-over by Patroni is asked for."""
RUN_ENDS_WITHIN_S = 900.0
"""How long an evacuation waits for a run that another has started. Longer than the limits of what a run does,
one after the other (some twelve minutes for Patroni); one that has not ended by then has no end in sight, and
the clusters of all later waves wait as well."""

UNRECORDABLE = "Unrecordable"
"""The class of the audit store's error for what can never be a record."""


def _retry(first_ms: int, longest_s: float, backoff: float = 2.0) -> RetryPolicy:
    return RetryPolicy(
        initial_interval=timedelta(milliseconds=first_ms),
        backoff_coefficient=backoff,
        maximum_interval=timedelta(seconds=longest_s),
    )


def read(summary: str) -> ActivityConfig:
    """Reading and deciding: quick, repeatable, retried until it works."""
    return ActivityConfig(
        start_to_close_timeout=timedelta(seconds=5), retry_policy=_retry(100, 2), summary=summary
    )


def look_back(summary: str) -> ActivityConfig:
    """Reading what may be much, of a server that may be far away: as long as it gets on. The next attempt
    goes on where the last one was."""
    return ActivityConfig(
        {
            **read(summary),
            "start_to_close_timeout": timedelta(minutes=10),
            "heartbeat_timeout": timedelta(seconds=4),
        }
    )


def look(summary: str) -> ActivityConfig:
    """Looking at everything, silent servers too; given up when nobody could do it."""
    return ActivityConfig(
        start_to_close_timeout=timedelta(seconds=30),
        schedule_to_close_timeout=timedelta(minutes=2),
        retry_policy=_retry(200, 5),
        summary=summary,
    )


def look_last(summary: str) -> ActivityConfig:
    """`look` of an evacuation that has moved clusters and has a record to leave: see `verify`."""
    return ActivityConfig(
        {**look(summary), "schedule_to_close_timeout": timedelta(seconds=VERIFIED_WITHIN_S)}
    )


def preview(summary: str) -> ActivityConfig:
    """Looking at what an effect would meet. Given up soon, and at once where somebody says no: a dry run goes
    on without it."""
    retry = _retry(200, 5)
    retry.non_retryable_error_types = ["Refused"]
    return ActivityConfig(
        start_to_close_timeout=timedelta(seconds=10),
        schedule_to_close_timeout=timedelta(seconds=PREVIEWED_WITHIN_S),
        retry_policy=retry,
        summary=summary,
    )


def effect(summary: str) -> ActivityConfig:
    """Changing the world. When schedule-to-close is over the outcome is unknown, and the stepper decides."""
    return ActivityConfig(
        start_to_close_timeout=timedelta(seconds=25),
        schedule_to_close_timeout=timedelta(seconds=EFFECT_WITHIN_S),
        heartbeat_timeout=timedelta(seconds=2),
        retry_policy=_retry(200, 2, backoff=1.5),
        cancellation_type=ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
        summary=summary,
    )


def fence(summary: str) -> ActivityConfig:
    """Fencing: given up, and undone, sooner than what is past return."""
    return ActivityConfig(
        {**effect(summary), "schedule_to_close_timeout": timedelta(seconds=FENCED_WITHIN_S)}
    )


def verify(summary: str, *, by_patroni: bool) -> ActivityConfig:
    """Reading the world after it was changed. A run past its point of no return has a record to leave, so
    nobody's absence for some minutes may fail it."""
    return ActivityConfig(
        {
            **(patroni if by_patroni else effect)(summary),
            "schedule_to_close_timeout": timedelta(seconds=VERIFIED_WITHIN_S),
        }
    )


def longer(config: ActivityConfig, by_s: float) -> ActivityConfig:
    """The same, with so much more time for an attempt and for all of them: what configuration allows a power
    switch or a drain to take must not be cut off here."""
    more, longer = timedelta(seconds=by_s), ActivityConfig({**config})
    if (attempt := config.get("start_to_close_timeout")) is not None:
        longer["start_to_close_timeout"] = attempt + more
    if (in_all := config.get("schedule_to_close_timeout")) is not None:
        longer["schedule_to_close_timeout"] = in_all + more
    return longer


def patroni(summary: str) -> ActivityConfig:
    """Having Patroni move its leader: it answers after twice its loop_wait, and acts after its ttl."""
    return ActivityConfig(
        {
            **effect(summary),
            "start_to_close_timeout": timedelta(seconds=90),
            "schedule_to_close_timeout": timedelta(seconds=180),
        }
    )


def hand_over(summary: str) -> ActivityConfig:
    """Having Patroni hand its leader over: the activity itself gives that up, counting from its first
    attempt, and says what is left to people."""
    return ActivityConfig(
        {**patroni(summary), "schedule_to_close_timeout": timedelta(seconds=HANDED_OVER_WITHIN_S)}
    )


def application(summary: str) -> ActivityConfig:
    """Having an application demote or promote itself: its answer and what is seen after it take at most 30 s
    each, as the topology says."""
    return patroni(summary)


def compensate_application(summary: str) -> ActivityConfig:
    return compensate_patroni(summary)


def compensate_patroni(summary: str) -> ActivityConfig:
    """Undoing what Patroni was told: each attempt as long as it takes Patroni."""
    return ActivityConfig({**compensate(summary), "start_to_close_timeout": timedelta(seconds=90)})


def compensate(summary: str) -> ActivityConfig:
    """Undoing: without a limit of its own, since no lack of workers may leave it out. What may never be
    answered the activity itself gives up, counting from its first attempt, and says what is left to
    people."""
    return ActivityConfig(
        start_to_close_timeout=timedelta(seconds=25),
        heartbeat_timeout=timedelta(seconds=2),
        retry_policy=_retry(200, 5),
        cancellation_type=ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
        summary=summary,
    )


def rejoin(summary: str) -> ActivityConfig:
    """Bringing a node back: as long as a fresh copy of a large database takes."""
    return ActivityConfig(
        start_to_close_timeout=timedelta(minutes=65),
        schedule_to_close_timeout=timedelta(hours=2),
        heartbeat_timeout=timedelta(seconds=2),
        retry_policy=_retry(200, 30),
        cancellation_type=ActivityCancellationType.TRY_CANCEL,
        summary=summary,
    )


def hook(summary: str, timeout_s: float) -> ActivityConfig:
    """A hook: once, within its own time, which the worker keeps. Whatever else takes time (reading the file,
    killing what hangs) has 5 s; in all there is time for a second call where a worker died during the first.
    """
    return ActivityConfig(
        start_to_close_timeout=timedelta(seconds=timeout_s + 5),
        schedule_to_close_timeout=timedelta(seconds=2 * timeout_s + 30),
        heartbeat_timeout=timedelta(seconds=2),
        retry_policy=_retry(200, 2),
        cancellation_type=ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
        summary=summary,
    )


def probe(summary: str, longest_s: float) -> ActivityConfig:
    """The steady state at one moment; `longest_s` is what its slowest probe takes to be in breach."""
    return ActivityConfig(
        start_to_close_timeout=timedelta(seconds=2 * longest_s + 5),
        schedule_to_close_timeout=timedelta(seconds=3 * longest_s + 30),
        heartbeat_timeout=timedelta(seconds=2),
        retry_policy=_retry(200, 2),
        summary=summary,
    )


def record(summary: str) -> ActivityConfig:
    """The audit record: a run is not done before it is written, unless it can never be (`unrecorded`)."""
    retry = _retry(200, 10)
    retry.non_retryable_error_types = [UNRECORDABLE]
    return ActivityConfig(start_to_close_timeout=timedelta(seconds=10), retry_policy=retry, summary=summary)


def notify(summary: str) -> ActivityConfig:
    """A notification: tried, never waited for. An attempt has time for the slowest channel."""
    return ActivityConfig(
        start_to_close_timeout=timedelta(seconds=7),
        schedule_to_close_timeout=timedelta(seconds=15),
        summary=summary,
    )


def watch(summary: str, task_queue: str, *, silent_s: float, spoken: bool) -> ActivityConfig:
    """Watching: as long as nothing changes. A worker that is silent for `silent_s` ends it. It waits for a
    worker without limit, but where the vantage has `spoken` only for as long: its word must not stand while
    nobody watches from there.

    A server that tried again by itself would leave the vantage's old word standing meanwhile.
    """
    retry = _retry(200, 5)
    retry.non_retryable_error_types = ["TemporalTimeout:Heartbeat"]
    return ActivityConfig(
        task_queue=task_queue,
        start_to_close_timeout=timedelta(days=365),
        schedule_to_start_timeout=timedelta(seconds=silent_s) if spoken else None,
        heartbeat_timeout=timedelta(seconds=silent_s),
        retry_policy=retry,
        cancellation_type=ActivityCancellationType.TRY_CANCEL,
        summary=summary,
    )


def watch_steadily(summary: str) -> ActivityConfig:
    """Watching the steady state while a plan is carried out; nobody waits for it to hear that it may end."""
    return ActivityConfig(
        start_to_close_timeout=timedelta(days=365),
        heartbeat_timeout=timedelta(seconds=4),
        retry_policy=_retry(200, 5),
        cancellation_type=ActivityCancellationType.TRY_CANCEL,
        summary=summary,
    )


def watch_runs(summary: str, *, silent_s: float = 4.0) -> ActivityConfig:
    """Watching the cluster's runs: as long as nothing changes, whatever becomes of the worker that does. One
    that is silent for `silent_s` is replaced."""
    return ActivityConfig(
        start_to_close_timeout=timedelta(days=365),
        heartbeat_timeout=timedelta(seconds=silent_s),
        retry_policy=_retry(200, 5),
        cancellation_type=ActivityCancellationType.TRY_CANCEL,
        summary=summary,
    )


def await_run(summary: str) -> ActivityConfig:
    """Waiting for the end of another's run; it may have none."""
    return ActivityConfig(
        {**watch_runs(summary), "schedule_to_close_timeout": timedelta(seconds=RUN_ENDS_WITHIN_S)}
    )
