"""How an execution of a run learns of what the run did before it, and under which identity it acts."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from datetime import datetime, timedelta

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError

from . import options

with workflow.unsafe.imports_passed_through():
    from activities.past_runs import PAST_NOT_KNOWN, LookBackRequest, PastRuns
    from qnwis.continuity.executor import Outcome
    from qnwis.continuity.refusal import Refusal
    from qnwis.continuity.run import Continued, FailoverRequest
    from qnwis.continuity.takeover import (
        Remains,
        may_still_happen,
        nothing_left_refusal,
        past_not_known_refusal,
        unfinished_refusal,
    )

HEARD_WHILE_READING = "an abort is heard while what was before the run is read"
"""Patch: before, only once that was read, which a server that does not answer may put off without end."""
READ_STILL = timedelta(seconds=15)
"""How long an abort waits for that: mostly it is read in no time, and the run can say that it did nothing."""
LINGER = timedelta(seconds=3)
"""An activity of an execution that is gone hears of it with its next heartbeat, and ends."""


class Takeover:
    """The run behind this execution. A reset makes another execution of it, and so does finishing it."""

    def __init__(self, request: FailoverRequest) -> None:
        self._request = request
        self._found: Remains | None = None
        self._denied = False
        self._left_unread = False
        self.forgot = False
        """A reset has set this workflow back since it last looked: others may know more of the run."""
        # Temporal gives a new seed at the point that a workflow was reset to, in every replay alike.
        workflow.register_random_seed_callback(self._reset)

    @property
    def remains(self) -> Remains | None:
        """What is left of the run that this execution goes on with; None for one that begins anew."""
        return None if self._denied else self._found

    def deny(self) -> None:
        """Whoever started this execution may not: it must not speak, nor make a record, as the run that it
        was to finish."""
        self._denied = self._request.continues is not None

    @property
    def run_id(self) -> str:
        """Names the run's effects, promise and record; the same in all its executions."""
        return workflow.info().original_execution_run_id if self.remains is None else self.remains.run_id

    @property
    def request(self) -> FailoverRequest:
        """What the run was started with."""
        return self._request if self.remains is None else self.remains.request

    @property
    def started_at(self) -> datetime:
        return workflow.info().start_time if self.remains is None else self.remains.started_at

    @property
    def outcomes(self) -> tuple[Outcome, ...]:
        return () if self.remains is None else self.remains.outcomes

    @property
    def stop(self) -> str | None:
        """A run is continued because a person ended it: that person wanted it to stop."""
        if self._request.continues is None or self.remains is None:
            return None
        return f"the run was {self.remains.ended}"

    @property
    def continued(self) -> Continued | None:
        """For the record: what was interrupted, and how."""
        if self.remains is None:
            return None
        return Continued(
            execution_id=self.remains.execution_id,
            ended=self.remains.ended,
            outcomes=self.remains.outcomes,
        )

    async def look_back(self, stop: Callable[[], str | None] = lambda: None) -> Refusal | None:
        """Learn what this run had done before; or why it must not begin. `stop`: why it is to stop."""
        self.forgot = False
        info = workflow.info()
        reading = workflow.start_activity_method(
            PastRuns.look_back,
            LookBackRequest(
                workflow_id=info.workflow_id,
                run_id=info.original_execution_run_id,
                reset=self.is_reset,
                continues=self._request.continues,
            ),
            **options.look_back("earlier runs of this cluster"),
        )
        stopping = asyncio.create_task(self._leave_unread(reading, stop))
        try:
            found = await reading
        except (ActivityError, asyncio.CancelledError) as error:
            if self._left_unread:
                # Refused: an end of its own would hide what another run has left unfinished.
                return past_not_known_refusal(self._request.cluster_id, f"{stop()}, before that was read")
            if not isinstance(error, ActivityError):
                raise
            if not isinstance(error.cause, ApplicationError) or error.cause.type != PAST_NOT_KNOWN:
                raise
            return past_not_known_refusal(self._request.cluster_id, error.cause.message)
        finally:
            stopping.cancel()
        if found is None:
            continues = self._request.continues
            return nothing_left_refusal(continues) if continues is not None else None
        if self._request.continues is None and found.run_id != info.original_execution_run_id:
            return unfinished_refusal(found)
        self._found = found
        if may_still_happen(found):
            await workflow.sleep(LINGER, summary="effects of the ended execution")
        return None

    async def _leave_unread(
        self, reading: workflow.ActivityHandle[Remains | None], stop: Callable[[], str | None]
    ) -> None:
        """Once it is to stop, what was before is not waited for much longer; but of a reset run, which may
        have acted."""
        await workflow.wait_condition(lambda: stop() is not None)
        if self.is_reset or not workflow.patched(HEARD_WHILE_READING):
            return
        with contextlib.suppress(TimeoutError):
            await workflow.wait_condition(
                reading.done, timeout=READ_STILL, timeout_summary="for what was before the run"
            )
        self._left_unread = True
        reading.cancel()

    @property
    def is_reset(self) -> bool:
        """Whether this execution was made by a reset."""
        info = workflow.info()
        return info.run_id != info.original_execution_run_id

    def _reset(self, _seed: int) -> None:
        self.forgot = True
