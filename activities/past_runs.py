"""What earlier executions under a cluster's lock did, and what its newest one does."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from pydantic import ValidationError
from temporalio import activity
from temporalio.client import Client, WorkflowExecution, WorkflowExecutionStatus
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError

from qnwis.continuity.guardian_rules import PastRun
from qnwis.continuity.model import Model
from qnwis.continuity.takeover import PastExecution, Remains, is_an_end, looked_back, unfinished

from .effect import heartbeating
from .executions import (
    GONE,
    LOOKED_BACK,
    LOOKED_BACK_AT_MOST,
    RUNNING,
    executions,
    executions_before,
    last_event,
    newest,
)
from .run_changes import RunChanges, changed_or_anyhow
from .run_history import LOOK_BACK, HistoryReader, result_in
from .waiting import speaks_every_s

RESULTS_KEPT = 2_000
"""Of all clusters together; one has at most `LOOKED_BACK` that count."""
PAST_NOT_KNOWN = "past_not_known"
"""Of the error where it cannot be said whether a run was left unfinished."""


class LookBackRequest(Model):
    workflow_id: str
    """The lock."""
    run_id: str
    """Of the run that looks back."""
    reset: bool
    """Whether this execution is a reset of another one of that run."""
    continues: str | None
    """The run that it is to bring to an end."""


class WatchRunsRequest(Model):
    workflow_id: str
    seen: str | None = None
    """`RunsReport.seen` of the report before; None at first."""


class RunsReport(Model):
    """The runs of a cluster, as a guardian needs to know them."""

    seen: str
    """Names the newest execution and its status."""
    recent: tuple[PastRun, ...] = ()
    """Those that have an end, newest first."""
    unfinished: Remains | None = None

    @property
    def going_on(self) -> str | None:
        """The newest execution, while it goes on."""
        newest, _, status = self.seen.partition(" ")
        return newest if status == RUNNING else None


class _Before(NamedTuple):
    """What was read of earlier executions."""

    past: list[PastExecution]
    more: bool
    """Whether there are more that were not read, and none of these has an end."""


@dataclass
class Reached:
    """How far back was read, beyond the newest executions: a later attempt goes on from there."""

    before: str = ""
    """Of what started at this moment or later, all that counts is in `began`."""
    began: list[str] = field(default_factory=list)
    """Executions that began something, or have an end."""

    @classmethod
    def told(cls, details: Sequence[str]) -> Reached:
        """By an earlier attempt's heartbeat."""
        return cls(details[0], [*details[1:]]) if details else cls()

    def to_tell(self) -> tuple[str, ...]:
        return (self.before, *self.began)


class PastRuns:
    def __init__(self, client: Client, prefix: str, outcome: str) -> None:
        """`prefix`: of the locks of clusters; `outcome`: the search attribute of how a run ended."""
        self._client = client
        self._outcome = outcome
        self._changes = RunChanges(client, prefix)
        self._results: dict[str, PastRun] = {}
        """By execution: a result stays what it is, and every report asks for those of the newest."""

    @activity.defn(name=LOOK_BACK)
    async def look_back(self, asked: LookBackRequest) -> Remains | None:
        """What the asking run had done before, if it was reset or continues one; else whatever run is
        unfinished under its lock. Raises ApplicationError where that is not known: of all that could be read
        none has an end, and there is more."""
        reached = Reached.told(activity.info().heartbeat_details[1:])
        async with heartbeating(speaks_every_s(), told=reached.to_tell):
            own = activity.info().workflow_run_id
            listed = await executions(self._client, asked.workflow_id, but=own)
            ids = [one.run_id for one in listed]
            if not asked.reset and asked.continues is None and listed and await self._has_an_end(listed[0]):
                return None  # mostly; its whole history says no more
            if asked.reset or asked.continues is not None:
                named = {asked.run_id, asked.continues} - {*ids, None, own}
                past = await self._all(asked.workflow_id, [*ids, *sorted(filter(None, named))])
            else:
                past = await self._unsettled(asked.workflow_id, ids)
            before = await self._before(asked.workflow_id, ids, past, reached)
        found = looked_back(
            [*past, *before.past], run_id=asked.run_id, reset=asked.reset, continues=asked.continues
        )
        if found is None and before.more:
            raise ApplicationError(
                f"none of the newest executions under {asked.workflow_id} has an end",
                type=PAST_NOT_KNOWN,
                non_retryable=True,
            )
        return found

    @activity.defn
    async def watch_runs(self, asked: WatchRunsRequest) -> RunsReport:
        """Return when the newest execution under the lock is another, or has ended; at first at once."""
        async with heartbeating(speaks_every_s()):
            with self._changes.of(asked.workflow_id) as changed:
                while (seen := await newest(self._client, asked.workflow_id)) == asked.seen:
                    await changed_or_anyhow(changed)
            return await self._report(asked, seen)

    async def _report(self, asked: WatchRunsRequest, seen: str) -> RunsReport:
        first, _, status = seen.partition(" ")
        listed = [one.run_id for one in await executions(self._client, asked.workflow_id)]
        ids = list(dict.fromkeys([first, *listed]))
        # One that goes on has no last event; the answer to the question for it does not end.
        ended = [one for one in ids if one != first or status != RUNNING]
        results = await asyncio.gather(*(self._result(asked.workflow_id, one) for one in ended))
        report = RunsReport(seen=seen, recent=tuple(result for result in results if result is not None))
        if status == RUNNING or is_an_end(results[0]):
            return report  # what came before is not asked about: the newest sees to it, or has seen to it
        past = await self._unsettled(asked.workflow_id, ids)
        before = await self._before(asked.workflow_id, ids, past, Reached())
        # Where it is not known whether there is one, none is finished; nor does a run begin then.
        return report.model_copy(update={"unfinished": unfinished([*past, *before.past])})

    async def _all(self, workflow_id: str, ids: Sequence[str]) -> list[PastExecution]:
        read = await asyncio.gather(*(self._read(workflow_id, execution_id) for execution_id in ids))
        return [execution for execution in read if execution is not None]

    async def _unsettled(self, workflow_id: str, ids: Sequence[str]) -> list[PastExecution]:
        """The newest, which mostly has an end; the others only where it has none, so that no failover waits
        for more."""
        past = await self._all(workflow_id, ids[:1])
        if not any(execution.finished for execution in past):
            past += await self._all(workflow_id, ids[1:])
        return past

    async def _before(
        self, workflow_id: str, ids: Sequence[str], past: Sequence[PastExecution], reached: Reached
    ) -> _Before:
        """What was before these newest executions, back to the newest that has an end; nothing where one of
        them has. Many that began nothing must not hide one that did, nor keep from looking for it."""
        if len(ids) + 1 < LOOKED_BACK or any(execution.finished for execution in past):
            return _Before([], more=False)  # the list leaves out who asks
        own = activity.info().workflow_run_id or ""
        known = {own, *ids, *(execution.execution_id for execution in past), *reached.began}
        found = await self._all(workflow_id, reached.began)
        if any(execution.finished for execution in found):
            return _Before(found, more=False)
        groups = executions_before(self._client, workflow_id, self._outcome, but=known, before=reached.before)
        async for group in groups:
            if len(reached.began) >= LOOKED_BACK_AT_MOST:
                return _Before(found, more=True)
            read = await self._all(workflow_id, [one.run_id for one in group])
            counts = [execution for execution in read if execution.outcomes or execution.finished]
            found += counts
            reached.began += [execution.execution_id for execution in counts]
            reached.before = min(one.start_time for one in group).isoformat()
            if any(execution.finished for execution in counts):
                break
        return _Before(found, more=False)

    async def _has_an_end(self, one: WorkflowExecution) -> bool:
        """Whether it brought its run to an end; False also where the list is late."""
        if one.status is not WorkflowExecutionStatus.COMPLETED:
            return False
        return is_an_end(await self._result(one.id, one.run_id))

    async def _result(self, workflow_id: str, execution_id: str) -> PastRun | None:
        """Of one that is closed, from its last event alone. None where it ended without one."""
        if (known := self._results.get(execution_id)) is not None:
            return known
        last = await last_event(self._client, workflow_id, execution_id)
        if last is None or not last.HasField("workflow_execution_completed_event_attributes"):
            return None
        found = await result_in(self._client, last)
        if found is not None:
            self._results[execution_id] = found
            if len(self._results) > RESULTS_KEPT:
                del self._results[next(iter(self._results))]
        return found

    async def _read(self, workflow_id: str, execution_id: str) -> PastExecution | None:
        handle = self._client.get_workflow_handle(workflow_id, run_id=execution_id)
        reader = HistoryReader(self._client, execution_id)
        try:
            return await reader.read(handle.fetch_history_events())
        except ValidationError:
            return None  # started with something that is no request: it failed at once
        except RPCError as error:
            if error.status in GONE:
                return None
            raise
