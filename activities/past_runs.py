"""What earlier executions under a cluster's lock did, and what its newest one does."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from pydantic import ValidationError
from temporalio import activity
from temporalio.client import Client
from temporalio.service import RPCError

from qnwis.continuity.guardian_rules import PastRun
from qnwis.continuity.model import Model
from qnwis.continuity.takeover import PastExecution, Remains, looked_back, unfinished

from .effect import heartbeating
from .executions import GONE, RUNNING, executions, last_event, newest
from .run_changes import RunChanges, changed_or_anyhow
from .run_history import LOOK_BACK, HistoryReader, result_in
from .waiting import speaks_every_s


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


class PastRuns:
    def __init__(self, client: Client, prefix: str) -> None:
        """`prefix`: of the locks of clusters."""
        self._client = client
        self._changes = RunChanges(client, prefix)

    @activity.defn(name=LOOK_BACK)
    async def look_back(self, asked: LookBackRequest) -> Remains | None:
        """What the asking run had done before, if it was reset or continues one; else whatever run is
        unfinished under its lock."""
        ids = await executions(self._client, asked.workflow_id, but=activity.info().workflow_run_id)
        if asked.reset or asked.continues is not None:
            named = {asked.run_id, asked.continues} - {*ids, None, activity.info().workflow_run_id}
            past = await self._all(asked.workflow_id, [*ids, *sorted(filter(None, named))])
        else:
            past = await self._unsettled(asked.workflow_id, ids)
        return looked_back(past, run_id=asked.run_id, reset=asked.reset, continues=asked.continues)

    @activity.defn
    async def watch_runs(self, asked: WatchRunsRequest) -> RunsReport:
        """Return when the newest execution under the lock is another, or has ended; at first at once."""
        async with heartbeating(speaks_every_s()):
            with self._changes.of(asked.workflow_id) as changed:
                while (seen := await newest(self._client, asked.workflow_id)) == asked.seen:
                    await changed_or_anyhow(changed)
        first, _, status = seen.partition(" ")
        ids = list(dict.fromkeys([first, *await executions(self._client, asked.workflow_id)]))
        # One that goes on has no last event; the answer to the question for it does not end.
        ended = [one for one in ids if one != first or status != RUNNING]
        results = await asyncio.gather(*(self._result(asked.workflow_id, one) for one in ended))
        return RunsReport(
            seen=seen,
            recent=tuple(result for result in results if result is not None),
            unfinished=unfinished(await self._unsettled(asked.workflow_id, ids)),
        )

    async def _all(self, workflow_id: str, ids: Sequence[str]) -> list[PastExecution]:
        read = await asyncio.gather(*(self._read(workflow_id, execution_id) for execution_id in ids))
        return [execution for execution in read if execution is not None]

    async def _unsettled(self, workflow_id: str, ids: Sequence[str]) -> list[PastExecution]:
        """Back to the newest that has an end: usually that one alone, so that no failover waits for more."""
        past: list[PastExecution] = []
        for execution_id in ids:
            execution = await self._read(workflow_id, execution_id)
            if execution is not None:
                past.append(execution)
                if execution.finished:
                    break
        return past

    async def _result(self, workflow_id: str, execution_id: str) -> PastRun | None:
        """Of one that is closed, from its last event alone. None where it ended without one."""
        last = await last_event(self._client, workflow_id, execution_id)
        if last is not None and last.HasField("workflow_execution_completed_event_attributes"):
            return await result_in(self._client, last)
        return None

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
