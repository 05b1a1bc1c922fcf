"""What people see of a run while it goes on: the runbook's steps as a checklist, in the UI and by query."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from datetime import datetime

from temporalio import workflow

from .checklist import asked, checklist, how_to_vote
from .details import show_details
from .ended import Ended

with workflow.unsafe.imports_passed_through():
    from qnwis.continuity.approvals import PendingApproval
    from qnwis.continuity.executor import Outcome
    from qnwis.continuity.refusal import Refusal
    from qnwis.continuity.run import RunKind, RunProgress, StepProgress, StepStatus
    from qnwis.continuity.skipping import skip_refusal
    from qnwis.runbook import ManualStep, load_runbook
    from qnwis.whereabouts import standing_at


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
        """As the view has it."""
        self.plan_digest: str | None = None
        self.approval: PendingApproval | None = None
        self._ended: Ended | None = None
        self._answer = ""
        self.paused: str | None = None
        """By whom and why the run is held."""
        self._remarks: dict[tuple[str, str], str] = {}
        """By step and what they are about, for example a hook."""
        self._confirmed: dict[str, str] = {}
        """Manual steps that are done, and who said so."""

    def hold(self, paused: str | None) -> None:
        """Show by whom the run is held; None when it goes on."""
        self.paused = paused
        self.refresh()

    def awaited(self, step: str) -> tuple[ManualStep, ...]:
        """What people have to confirm before this step."""
        return tuple(
            manual
            for manual in self._runbook.manual_steps
            if manual.before == step and manual.name not in self._confirmed
        )

    def confirm(self, name: str, by: str, reason: str) -> Refusal | None:
        """Take a manual step as done; or why it is none."""
        known = [manual.name for manual in self._runbook.manual_steps]
        if name not in known:
            return Refusal(
                rule="no_such_manual_step",
                message=f"The runbook has no manual step {name}",
                values={"manual_steps": [*known]},
                remedy=f"Name one of {', '.join(known)}." if known else "Nothing has to be confirmed.",
            )
        self._confirmed[name] = f"{by}: {reason}"
        self.refresh()
        return None

    def skip_refusal(self, name: str) -> Refusal | None:
        """Why this step cannot be left out."""
        return skip_refusal(name, self.steps, self._runbook.may_be_skipped)

    def skip(self, name: str, by: str, reason: str) -> None:
        """Leave the step out; people and the record see by whom and why."""
        self._update(name, status=StepStatus.SKIPPED, note=f"skipped by {by}: {reason}")

    def is_skipped(self, name: str) -> bool:
        return self._steps[name].status is StepStatus.SKIPPED

    @property
    def approval_workflow(self) -> str | None:
        """Which one the runbook's runs await."""
        return self._runbook.approval_workflow

    def show_approval(self, pending: PendingApproval | None) -> None:
        """What waits for votes; None when nothing does any more."""
        self.approval = pending
        if pending is not None:
            self.note("approval", asked(pending))
        else:
            self.refresh()

    def answer(self, said: str) -> None:
        """Show what became of the newest signal, below the step that runs; nothing else makes way for it."""
        self._answer = said
        self.refresh()

    @contextlib.asynccontextmanager
    async def step(self, name: str) -> AsyncIterator[None]:
        """Run one step: announce its text, then mark it done, as `Ended` says, or failed."""
        self._began[name] = workflow.now()
        self._answer = ""
        self._set(name, StepStatus.RUNNING)
        try:
            with standing_at(step=name):
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

    def remark(self, step: str, about: str, text: str) -> None:
        """A sentence below a step; a later one about the same takes its place."""
        self._remarks[step, about] = text
        self.refresh()

    def miss(self, undelivered: str) -> None:
        """Show that somebody was not told, or what is not on record."""
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
            steps=tuple(self._seen(step) for step in self._steps.values()),
            outcomes=tuple(self.outcomes),
            plan_digest=self.plan_digest,
            approval=self.approval,
            paused=self.paused,
            awaits=tuple(manual.name for step in self._steps for manual in self.awaited(step)),
            undelivered=self.undelivered,
        )

    def _seen(self, step: StepProgress) -> StepProgress:
        """The step with what is asked of people below it, and how long it runs."""
        asked_for = (
            how_to_vote(self.approval) if self.approval is not None and step.name == "approval" else ()
        )
        kept = (text for (name, _), text in self._remarks.items() if name == step.name)
        remarks = (*asked_for, *self._by_hand(step.name), *kept)
        if step.status is not StepStatus.RUNNING:
            return step.model_copy(update={"remarks": remarks})
        answer = (self._answer,) if self._answer else ()
        return step.model_copy(
            update={"remarks": (*remarks, *answer), "elapsed_ms": self._elapsed_ms(step.name)}
        )

    def _by_hand(self, step: str) -> tuple[str, ...]:
        """The manual steps before this one, and who confirmed them."""
        return tuple(
            f"{'☑' if manual.name in self._confirmed else '☐'} before it, by hand: `{manual.name}`:"
            f" {manual.text} {self._confirmed.get(manual.name) or self._how_to_confirm(manual)}"
            for manual in self._runbook.manual_steps
            if manual.before == step
        )

    def _how_to_confirm(self, manual: ManualStep) -> str:
        return f"Then `qnwis-continuity run confirm {self._cluster_id} {manual.name} --reason …`"

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
