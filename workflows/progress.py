"""What people see of a run while it goes on: the runbook's steps as a checklist, in the UI and by query."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from datetime import datetime

from temporalio import workflow

from .checklist import asked, checklist, how_to_vote
from .details import show_details

with workflow.unsafe.imports_passed_through():
    from qnwis.continuity.approvals import PendingApproval
    from qnwis.continuity.executor import Outcome
    from qnwis.continuity.refusal import Refusal
    from qnwis.continuity.run import RunKind, RunOutcome, RunProgress, StepProgress, StepStatus
    from qnwis.runbook import load_runbook


class Ended(Exception):
    """The run goes no further: what remains is the audit. `step` is how the step that ended it is marked."""

    def __init__(
        self,
        outcome: RunOutcome,
        reason: str,
        *,
        refusal: Refusal | None = None,
        step: StepStatus = StepStatus.FAILED,
    ) -> None:
        super().__init__(reason)
        self.outcome = outcome
        self.reason = reason
        self.refusal = refusal
        self.step = step


class Progress:
    """The steps of one run and where it stands. Steps are entered by the runbook's own names."""

    def __init__(self, kind: RunKind, cluster_id: str, *, dry_run: bool) -> None:
        self._runbook = load_runbook(kind)
        self._cluster_id = cluster_id
        self._dry_run = dry_run
        self._steps = {
            step.name: StepProgress(name=step.name, title=step.title, expected_ms=step.expected_ms)
            for step in self._runbook.steps
        }
        self._began: dict[str, datetime] = {}
        self.outcomes: Sequence[Outcome] = ()
        self.undelivered: tuple[str, ...] = ()
        """Notifications that did not reach somebody, a sentence each."""
        self.plan_digest: str | None = None
        self.approval: PendingApproval | None = None
        self._ended: Ended | None = None

    @property
    def approval_workflow(self) -> str | None:
        """Which one the runbook's runs await."""
        return self._runbook.approval_workflow

    def show_approval(self, pending: PendingApproval | None) -> None:
        """What waits for votes; None when nothing does any more."""
        self.approval = pending
        if pending is not None:
            self.note("approval", asked(pending))
        self._remark_approval()

    def refuse_vote(self, why: str) -> None:
        """Show the newest vote that does not count, beside what people still have to vote on."""
        self._remark_approval(f"a vote was refused: {why}")

    def _remark_approval(self, *refused: str) -> None:
        asked_for = how_to_vote(self.approval) if self.approval is not None else ()
        self._update("approval", remarks=(*asked_for, *refused))

    @contextlib.asynccontextmanager
    async def step(self, name: str) -> AsyncIterator[None]:
        """Run one step: announce its text, then mark it done, as `Ended` says, or failed."""
        self._began[name] = workflow.now()
        self._set(name, StepStatus.RUNNING)
        try:
            yield
        except Ended as ended:
            self._set(name, ended.step)
            raise
        except (Exception, asyncio.CancelledError):
            # And nothing else: a workflow that leaves a worker's memory is closed outside its own time.
            self._set(name, StepStatus.FAILED)
            raise
        self._set(name, StepStatus.DONE)

    def note(self, name: str, note: str) -> None:
        """A sentence beside a step, for example why it ended as it did."""
        self._update(name, note=note)

    def say(self, note: str) -> None:
        """A sentence beside the step that runs."""
        running = next(step.name for step in self._steps.values() if step.status is StepStatus.RUNNING)
        self.note(running, note)

    def miss(self, undelivered: str) -> None:
        """Show that somebody was not told."""
        self.undelivered = (*self.undelivered, undelivered)
        self.refresh()

    def end(self, ended: Ended) -> None:
        """Show how the run ends; the steps not reached are skipped, all but the audit, which always runs."""
        self._ended = ended
        for step in list(self._steps.values()):
            if step.status is StepStatus.PENDING and step.name != "audit":
                self._steps[step.name] = step.model_copy(update={"status": StepStatus.SKIPPED})

    @property
    def steps(self) -> tuple[StepProgress, ...]:
        return tuple(self._steps.values())

    def view(self) -> RunProgress:
        return RunProgress(
            kind=self._runbook.kind,
            cluster_id=self._cluster_id,
            dry_run=self._dry_run,
            steps=tuple(self._with_elapsed(step) for step in self._steps.values()),
            outcomes=tuple(self.outcomes),
            plan_digest=self.plan_digest,
            approval=self.approval,
            undelivered=self.undelivered,
        )

    def _with_elapsed(self, step: StepProgress) -> StepProgress:
        if step.status is not StepStatus.RUNNING:
            return step
        return step.model_copy(update={"elapsed_ms": self._elapsed_ms(step.name)})

    def _elapsed_ms(self, name: str) -> float:
        return (workflow.now() - self._began[name]).total_seconds() * 1000

    def _set(self, name: str, status: StepStatus) -> None:
        elapsed_ms = None if status is StepStatus.RUNNING else self._elapsed_ms(name)
        self._update(name, status=status, elapsed_ms=elapsed_ms)

    def _update(self, name: str, **fields: object) -> None:
        self._steps[name] = self._steps[name].model_copy(update=fields)
        self.refresh()

    def refresh(self) -> None:
        """Give the UI its "current details"."""
        show_details(checklist(self.view(), self._below()))

    def _below(self) -> str:
        running = next((s for s in self._steps.values() if s.status is StepStatus.RUNNING), None)
        ended = f"### {self._ended.outcome.value}\n{self._ended.reason}" if self._ended is not None else ""
        if running is None:
            return ended
        return f"{ended}\n\n### {running.title}\n{self._runbook.step(running.name).text}"
