"""What the activities that change the world share: the request's base, heartbeats, and outcomes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Sequence
from datetime import datetime
from math import inf
from time import monotonic

from temporalio import activity

from qnwis.continuity.executor import LEFT_TO_DO, Outcome, OutcomeStatus
from qnwis.continuity.model import Model
from qnwis.continuity.run import DRY_RUN_MARK
from qnwis.continuity.topology import Cluster
from qnwis.providers.errors import Refused, Unreachable

BEAT_S = 0.5
"""Well under the heartbeat timeout of effects, so that a living worker is never taken for a dead one."""


class EffectRequest(Model):
    """What every effect carries: the run it belongs to, its fencing token, and the world it speaks of."""

    run_id: str
    epoch: int
    cluster: Cluster
    again: bool = False
    """An earlier attempt of this run ended unknown."""

    @property
    def may_be_asked(self) -> bool:
        """Whether this may have been asked for already, by an earlier attempt; to be used in an activity."""
        return self.again or activity.info().attempt > 1

    @property
    def if_refused(self) -> OutcomeStatus:
        """What a refusal makes of an action that can be undone: it says nothing of earlier attempts."""
        return OutcomeStatus.UNKNOWN if self.may_be_asked else OutcomeStatus.FAILED

    def effect_id(self, action_id: str) -> str:
        """The same for every attempt of the same action of the same run."""
        return f"{self.run_id}/{action_id}"


@contextlib.asynccontextmanager
async def heartbeating(
    every_s: float = BEAT_S, *, told: Callable[[], Sequence[str]] = tuple
) -> AsyncIterator[None]:
    """Heartbeat while the body runs: a dead worker is noticed in seconds, not at the step's timeout. Each
    beat tells a later attempt when the first began, and what else it is `told`."""
    first = _first_asked_at().isoformat()
    activity.heartbeat(first, *told())

    async def beat() -> None:
        while True:
            await asyncio.sleep(every_s)
            activity.heartbeat(first, *told())

    task = asyncio.create_task(beat())
    try:
        yield
    finally:
        task.cancel()


async def carried_out(
    action_id: str,
    effect: Callable[[], Awaitable[Outcome]],
    *,
    if_refused: OutcomeStatus = OutcomeStatus.FAILED,
) -> Outcome:
    """The effect's outcome with its duration; a refusal becomes `failed`, since the refuser changed nothing,
    or `if_refused` where something may have been changed before it.

    Raises `Unreachable` for Temporal to retry: whether there was an effect is not known then.
    """
    started = monotonic()
    async with heartbeating():
        try:
            outcome = await effect()
        except Refused as refused:
            outcome = Outcome(
                action_id=action_id,
                status=if_refused,
                changed=False if if_refused is OutcomeStatus.FAILED else None,
                detail=str(refused.refusal),
                facts={"rule": refused.refusal.rule, "values": refused.refusal.values},
            )
    return outcome.model_copy(update={"duration_ms": (monotonic() - started) * 1000})


async def compensated(
    action_id: str, undo: Callable[[], Awaitable[Outcome]], *, attempt_s: float, within_s: float, left: str
) -> Outcome:
    """The outcome of a compensation. It is asked for again, after a refusal too, until an ask fails that ends
    later than `within_s` after the first: the run holds its cluster's lock meanwhile, and whatever could help
    waits for that. From there on it is for people, as `left` tells them. What passes before a worker takes it
    up at all does not count.

    `attempt_s`: how long one ask may take, seconds; less than Temporal gives an attempt, so that what came of
    it is said. Raises Unreachable, or what else the ask failed with, for Temporal to ask again.
    """
    began = monotonic()

    async def asked() -> Outcome:
        try:
            async with asyncio.timeout(attempt_s):
                return await undo()
        except Exception as error:
            asked_s = asked_s_ago() + monotonic() - began
            if asked_s < within_s:
                if isinstance(error, Refused):
                    raise Unreachable(str(error)) from error
                raise
            why = str(error) or f"no answer within {attempt_s:g} s"
            told = f"{left} (asked for {asked_s:.0f} s: {why})"
            return Outcome(
                action_id=action_id,
                status=OutcomeStatus.UNDONE,
                detail=told,
                facts={LEFT_TO_DO: told},
            )

    return await carried_out(action_id, asked)


@contextlib.contextmanager
def in_case_it_was_done(tells_nothing: Collection[str]) -> Iterator[None]:
    """Around an effect. A refusal says that this attempt changed nothing; by one of these rules it does not
    say what an earlier one changed, whose answer was lost, and is raised as Unreachable then."""
    try:
        yield
    except Refused as refused:
        if refused.refusal.rule in tells_nothing and activity.info().attempt > 1:
            raise Unreachable(f"it may have been changed before, and now: {refused}") from refused
        raise


def attempt_ends_at() -> float:
    """When Temporal gives this attempt up, by `monotonic`. To be asked first thing in an activity: it counts
    the attempt's own time from now, and takes what was before it from the server's clock alone."""
    info = activity.info()
    limits = [info.start_to_close_timeout]
    if info.schedule_to_close_timeout:
        limits.append(info.schedule_to_close_timeout - (info.started_time - info.scheduled_time))
    return monotonic() + min((limit.total_seconds() for limit in limits if limit is not None), default=inf)


def scheduled_s_ago() -> float:
    """How long before this attempt's start the activity was asked for, by the server's clock alone."""
    info = activity.info()
    return (info.started_time - info.scheduled_time).total_seconds()


def asked_s_ago() -> float:
    """How long before this attempt's start the first one began, by the server's clock alone."""
    return (activity.info().started_time - _first_asked_at()).total_seconds()


def _first_asked_at() -> datetime:
    """As the attempts before this tell by their heartbeats. Where they told nothing, it is taken to be when
    the activity was asked for: too early, rather than anew with each attempt."""
    info = activity.info()
    if info.heartbeat_details:
        return datetime.fromisoformat(info.heartbeat_details[0])
    return info.started_time if info.attempt == 1 else info.scheduled_time


def preview(action_id: str, detail: str) -> Outcome:
    """What a dry run answers for an effect: it says what would be done, visibly marked."""
    return Outcome(
        action_id=action_id, status=OutcomeStatus.SKIPPED, changed=False, detail=f"{DRY_RUN_MARK} {detail}"
    )
