"""What the runs of every runbook share: evidence, decision, approval, effects, verification, record.

A runbook's own workflow names its steps and their order; what a step does is here or a named call away.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from temporalio import workflow

from . import options
from .announcements import Announcements
from .approval import Approval, Proposed
from .ended import Ended, end_if_refused
from .execution import Execution
from .hooks import HookCalls
from .known import Known
from .lock import refuse_another_id
from .names import CLUSTER, INITIATOR, KIND, OUTCOME, failover_id, guardian_id
from .opening_review import open_review
from .progress import Progress
from .results import result_of
from .steady_state import SteadyWatch
from .steered import Steered
from .stopping import uninterrupted
from .turns import Turns
from .unrecorded import told_if_unrecordable

with workflow.unsafe.imports_passed_through():
    from activities.audit import Audit
    from activities.verification import Verification, VerifyRequest
    from qnwis.continuity.assessment import approval_needed, approval_workflow, material_change
    from qnwis.continuity.executor import REVERSIBLE, Finish, Outcome, OutcomeStatus, RunEnd, is_committed
    from qnwis.continuity.guardian_rules import PastRun
    from qnwis.continuity.hooks import unreadable_refusal
    from qnwis.continuity.outage import OUTAGE_MS, Outage, acts_ahead
    from qnwis.continuity.plan import VerifyService
    from qnwis.continuity.regions import Moved
    from qnwis.continuity.run import (
        ACTING,
        DECIDING,
        FailoverRequest,
        Maintenance,
        RunArtefacts,
        RunKind,
        RunOutcome,
        RunResult,
        StepStatus,
    )
    from qnwis.continuity.steady_state import Moment, SteadyReading, Verdict, steady_refusal, verdict
    from qnwis.continuity.switchover import window_begins_at, window_refusal
    from qnwis.continuity.takeover import joined
    from qnwis.continuity.verifier import VerificationReport
    from qnwis.labels import label_of

if TYPE_CHECKING:
    from pydantic import JsonValue


EVIDENCE_LASTS = timedelta(seconds=5)
"""What was seen longer ago is looked at again before anything is changed; a run that waits for nobody is well
within that."""
LOOKS_AGAIN = "what was seen a while ago is looked at again before the first action"
"""Patch: before, a run acted on what it had seen before a hold, a hook or a manual step."""
LOOKS_ONCE = "what was just looked at again counts, however long it took to plan for it"
"""Patch: before, a run whose planning alone took longer than evidence lasts looked again without end."""
PATRONI_SETTLES_S = 45.0
"""Its members follow a new leader within some rounds of its loop, each of 10 s by default."""

SAYS_WHETHER_IT_ACTS = "a run's search attributes say that it acts once it does"
"""Patch: before, they said so from its start, and one that had begun nothing was not told from others."""
OVERRUN_OF_THE_OUTAGE = "an overrun is told of by the time that the service waits"
"""Patch: before, what a switchover does ahead and sets right afterwards counted, too."""
RECORD_PATIENCE = timedelta(seconds=5)
"""Of an evacuation, with a run that has ended in all but its record. To be told at once would be two more
workflow tasks for each run, in the midst of a wave."""
TELLS_THE_EVACUATION = "a cluster's run tells its evacuation how it ended before that is on record"
"""Patch: before, no wave began until the records of the one before were written, store or no store."""


class Run(Steered):
    """One run of a runbook, under its cluster's lock."""

    execution: Execution | None = None
    verification_due: VerifyService | None = None
    verification: VerificationReport | None = None
    ended: Ended | None = None

    def __init__(
        self, kind: RunKind, request: FailoverRequest, maintenance: Maintenance | None = None
    ) -> None:
        self.kind = kind
        self.request = request
        self.maintenance = maintenance
        self.acting_since: datetime | None = None
        """Where people and windows took the time they took: when what changes the world began, or was held
        before its first action."""
        self.outage = Outage()
        """Hooks after its end take the time they take, too."""
        self._looked_again = False
        """Whether nobody has held the run since it looked again before its first action."""
        self._standing = ACTING
        """Where its outcome is to be, for whoever looks for what was left unfinished."""
        self._overrun_due = False
        """Whether the notice of an overrun is still to be armed, when the outage begins."""
        self._past_its_record = False
        self.progress = Progress(kind, request.cluster_id, dry_run=request.dry_run)
        self.known = Known(kind, request, maintenance, self.progress)
        self.takeover = self.known.takeover
        self.hooks = HookCalls(
            kind,
            request,
            self.known,
            self.progress,
            stop=lambda: self.stop,
            past_return=lambda: self.past_return,
        )
        self.steady = SteadyWatch(request, self.known, self.progress)
        self.announcements = Announcements(request, self.progress)
        self.approval = Approval(request.cluster_id, request.initiated_by)
        self.turns = Turns()

    async def carry_out(self, runbook: Awaitable[None]) -> RunResult:
        """The runbook's steps, then the record; whatever is cancelled meanwhile."""
        refuse_another_id(failover_id(self.request.cluster_id, dry_run=self.request.dry_run))
        if workflow.patched(SAYS_WHETHER_IT_ACTS):
            self._standing = DECIDING
        workflow.upsert_search_attributes(
            [
                CLUSTER.value_set(self.request.cluster_id),
                KIND.value_set(self.kind.value),
                INITIATOR.value_set(label_of(self.request.initiated_by)),
                OUTCOME.value_set(self._standing),
            ]
        )
        return await uninterrupted(self._to_the_end(runbook), on_cancel=self._cancelled)

    async def _to_the_end(self, runbook: Awaitable[None]) -> RunResult:
        try:
            await runbook
        except Ended as ended:
            self.ended = ended
            self.progress.end(ended)
        telling = asyncio.create_task(self._tell_the_evacuation())
        result = await self._audit()
        self._past_its_record = True
        await self._tell(result)
        await telling
        return result.model_copy(update={"steps": self.progress.steps, "notes": self.notes})

    async def step(self, name: str, *parts: Callable[[], Awaitable[None]]) -> None:
        """One step of the runbook, unless a person had it left out."""
        if self.progress.is_skipped(name):
            return
        async with self.progress.step(name):
            await self.manual_steps(name)
            if name == "execution":
                await self._see_that_it_is_steady()
            try:
                await self._stop_over(await self.hooks.before(name))
                for part in parts:
                    await part()
            except Ended as ended:
                await self.hooks.after(name, ended.step, ended.outcome)
                raise
            await self._stop_over(await self.hooks.after(name, StepStatus.DONE))

    # The steps

    async def detect(self) -> None:
        """Load what is registered, read the world, and look for a run that was left unfinished."""
        looking_back = (
            None if self.request.dry_run else asyncio.create_task(self.takeover.look_back(lambda: self.stop))
        )
        await self.known.load()
        self.announcements.begin()
        try:
            await self.known.prove_initiator(lambda: self.stop)
        except Ended:
            self.takeover.deny()
            raise
        await self.known.look()
        if looking_back is not None:
            end_if_refused(await looking_back)
        begun = await self.known.taken_over()
        problem = self.known.declared.problem
        end_if_refused(unreadable_refusal(problem, automatic=self.request.automatic, begun=begun))
        self._stop_here()

    async def assess(self) -> None:
        """Decide: the plan and its epoch, or the rule that refuses."""
        if await self.known.taken_over():
            assert self.takeover.remains is not None
            self.progress.say(f"taken over: the run was {self.takeover.remains.ended}")
            return
        await self.known.make_plan()
        plan = self.known.plan
        self.progress.say(f"{plan.primary_node_id} → {plan.failover_target_id}, `{plan.digest[:19]}…`")
        self._stop_here()

    async def notify_operators(self) -> None:
        """Say what is going to be moved; nobody's answer is waited for."""
        plan = self.known.plan
        when = self.maintenance.not_before if self.maintenance is not None else None
        at = f"not before {when:%F %T} UTC" if when is not None else "as soon as it is approved"
        self.announcements.planned(f"{plan.primary_node_id} → {plan.failover_target_id}, {at}")
        self.progress.say(f"operators are told: {at}")

    async def wait_for_window(self) -> None:
        """Wait until the window begins; then see that the plan still is the one, and that it fits."""
        if self.maintenance is None or self.request.dry_run or await self.known.taken_over():
            return
        begins_at = window_begins_at(self.maintenance, self.takeover.started_at)
        if (left := begins_at - workflow.now()) > timedelta(0):
            self.progress.say(f"waits until {begins_at:%F %T} UTC")
            with contextlib.suppress(TimeoutError):
                await workflow.wait_condition(
                    lambda: self.stop is not None, timeout=left, timeout_summary="until the window begins"
                )
            self._stop_here()
            await self._look_again()
        self._refuse_outside_the_window()

    async def show_the_way_back(self) -> None:
        """What takes the service back, before anything is changed."""
        plan = self.known.plan
        undoes = [action.action_id for action in plan.actions if action.kind in REVERSIBLE]
        back = (
            f"qnwis-continuity maintenance run {plan.cluster_id} --target {plan.primary_node_id} --reason …"
        )
        self.progress.say(f"until the promotion a failure undoes {', '.join(undoes)}; after it: `{back}`")

    async def simulate(self) -> None:
        """Play the plan on paper first."""
        if await self.known.taken_over():
            return
        await self.known.rehearse()
        self._stop_here()

    async def approve(self) -> None:
        """Have the right people agree to exactly this plan, and see that it still is the one."""
        needed, why = approval_needed(self.request, self.known.policy)
        if not needed or await self.known.taken_over():
            self.progress.say(why)
            return
        while True:
            approved = self.known.assessment
            await self.approval.ask(
                approval_workflow(self.request, self.progress.approval_workflow),
                Proposed(self.known.plan, approved.predicted_loss_bytes, approved.candidates, approved.notes),
                stop=lambda: self.stop,
                announce=self.announcements.approval_pending,
                show=self.progress.show_approval,
                say=self.progress.say,
            )
            await self.known.look()
            await self.known.make_plan()
            if not self.progress.is_skipped("simulation"):
                await self.known.rehearse()
            change = material_change(approved, self.known.assessment, self.known.policy)
            if change is None:
                return
            self.progress.say(f"{change}; the votes are void, and people are asked again")

    async def execute(self) -> None:
        """Drive the plan through the stepper."""
        if not (await self.known.taken_over() or self.request.dry_run):
            self._refuse_outside_the_window()  # what people and hooks did before this step took its time
        people_took_time = self.approval.window is not None or self.waited_by_hand
        if people_took_time or self.maintenance is not None:
            self.acting_since = workflow.now()
        self._overrun_due = self._begins_before_the_outage()
        if not self._overrun_due:
            self.announcements.watch_overrun(self.known.policy.max_failover_time_s)
        end = None
        async with self.steady.watched(self._breached):
            while end is None:
                if not await self.known.taken_over() and self._is_outdated():
                    await self._begin_on_new_evidence()
                self.execution = Execution(
                    self.known.plan,
                    self.known.cluster,
                    self.known.limits,
                    self.known.assessment.epoch,
                    self.takeover.run_id,
                    joined(self.execution.log if self.execution is not None else (), self.takeover.outcomes),
                    self.outage,
                )
                self._show_outcomes()
                if self.request.dry_run:
                    raise await self._previewed(self.execution)
                end = await self.execution.drive(
                    stop=lambda: self.stop or self.takeover.stop,
                    held=self._is_held,
                    shown=self._show_outcomes,
                    forgot=lambda: self.takeover.forgot,
                    outdated=self._is_outdated,
                )
        if isinstance(end, Finish):
            raise Ended(_OUTCOMES[end.end], end.reason)
        self.verification_due = end

    async def _previewed(self, execution: Execution) -> Ended:
        """How a dry run ends."""
        if not await execution.preview(stop=lambda: self.stop, shown=self._show_outcomes):
            return Ended(RunOutcome.UNTOUCHED, self.stop or "stopped")
        unseen = f"; could not be looked at: {', '.join(execution.unseen)}" if execution.unseen else ""
        return Ended(
            RunOutcome.PREVIEWED,
            f"every effect was previewed, none was made{unseen}",
            step=StepStatus.DONE,
        )

    async def verify(self) -> None:
        """Read the world again; what the verifier says is what the run has achieved."""
        assert self.execution is not None and self.verification_due is not None
        fence = self.execution.fence
        verified = await workflow.execute_activity_method(
            Verification.verify,
            VerifyRequest(
                plan=self.known.plan,
                cluster=self.known.cluster,
                policy=self.known.limits,
                before=self.known.evidence,
                fencing=fence.fencing if fence is not None else None,
                epoch=self.known.assessment.epoch,
                elapsed_ms=self._elapsed_ms,
                **({"settle_s": PATRONI_SETTLES_S} if self.known.cluster.by_patroni else {}),
            ),
            **options.verify("read the world again", by_patroni=self.known.cluster.by_patroni),
        )
        self.known.after, self.verification = verified.after, verified.report
        failures = "; ".join(f"{c.name}: {c.detail}" for c in verified.report.checks if not c.ok)
        finish = self.execution.settle(
            Outcome(
                action_id=self.verification_due.action_id,
                status=OutcomeStatus.SUCCEEDED if verified.report.passed else OutcomeStatus.FAILED,
                detail=failures or "the verifier passed every check",
                changed=False,
                facts=self._measured,
            )
        )
        self._show_outcomes()
        self._breached(await self.steady.check(Moment.AFTER))
        confidence = verified.report.confidence
        self.progress.note("verification", failures or f"confidence {confidence.score} ({confidence.band})")
        step = StepStatus.DONE if verified.report.passed else StepStatus.FAILED
        raise Ended(_OUTCOMES[finish.end], finish.reason, step=step)

    async def _audit(self) -> RunResult:
        """Write the record before the run is reported done."""
        assert self.ended is not None
        with told_if_unrecordable(self.progress.miss):
            async with self.progress.step("audit"):
                await self.hooks.before("audit", outcome=self.ended.outcome)
                result = result_of(self, self.ended)
                recorded = await workflow.execute_activity_method(
                    Audit.record,
                    RunArtefacts(
                        request=self.takeover.request,
                        evidence_before=self.known.before,
                        evidence_after=self.known.after,
                        result=result,
                    ),
                    **options.record(f"record: {result.outcome.value}"),
                )
                self.progress.note("audit", recorded.audit_id)
                return result.model_copy(update={"audit_id": recorded.audit_id})
        return result

    async def _tell_the_evacuation(self) -> None:
        """How this ended, if it is part of one and its record takes long: no wave waits for a store."""
        assert self.ended is not None
        parent = workflow.info().parent
        if parent is None or self.request.agreed_with is None or not workflow.patched(TELLS_THE_EVACUATION):
            return
        with contextlib.suppress(TimeoutError):
            await workflow.wait_condition(
                lambda: self._past_its_record,
                timeout=RECORD_PATIENCE,
                timeout_summary="patience with the audit store",
            )
            return
        result = result_of(self, self.ended)
        told = Moved(
            cluster_id=self.request.cluster_id,
            outcome=result.outcome,
            reason=result.reason,
            run_id=result.run_id,
        )
        await self.announcements.tell_evacuation(parent.workflow_id, parent.run_id, told)

    async def _tell(self, result: RunResult) -> None:
        """Tell the filters in the UI, the people, and the guardian when it did not start this run itself."""
        workflow.upsert_search_attributes([OUTCOME.value_set(result.outcome.value)])
        await self.announcements.end(result)
        if self.known.registered is not None:
            await open_review(self.takeover.request, self.known.policy, result)
        if not self.request.automatic and not self.request.dry_run:
            await self.announcements.tell_guardian(guardian_id(self.request.cluster_id), PastRun.of(result))
        await workflow.wait_condition(workflow.all_handlers_finished)

    # What the steps need

    def _show_outcomes(self) -> None:
        """Called with the first outcome of each action registered, and before its effect is asked for."""
        assert self.execution is not None
        self.progress.outcomes = self.execution.outcomes
        self.progress.refresh()
        if self._standing == DECIDING and self.execution.log and not self.request.dry_run:
            self._standing = ACTING
            workflow.upsert_search_attributes([OUTCOME.value_set(ACTING)])
        if self._overrun_due and self.outage.since is not None:
            self._overrun_due = False
            self.announcements.watch_overrun(
                self.known.policy.max_failover_time_s, over=lambda: self.outage.until is not None
            )

    def _begins_before_the_outage(self) -> bool:
        """Whether actions come first that the service does not wait for."""
        begins = acts_ahead(self.known.plan) and self.takeover.remains is None
        return begins and workflow.patched(OVERRUN_OF_THE_OUTAGE)

    def _is_held(self) -> bool:
        if self.progress.paused is None:
            return False
        self.acting_since = self.acting_since or workflow.now()
        self._looked_again = False
        return True

    @property
    def _elapsed_ms(self) -> float:
        """What the policy limits. Where people took their time it counts from when the service was taken from
        the old primary, else from the start of the run."""
        began_at = self.takeover.started_at
        if self.acting_since is not None:
            began_at = self.outage.since or self.acting_since
        return ((self.outage.until or workflow.now()) - began_at).total_seconds() * 1000

    @property
    def _measured(self) -> dict[str, JsonValue]:
        """For the record. A fact and no field of its own, so that an older reader of the record knows it."""
        outage_ms = self.outage.ms if self.takeover.remains is None else None
        return {} if outage_ms is None else {OUTAGE_MS: outage_ms}

    @property
    def past_return(self) -> bool:
        """Whether the promotion may have had an effect, in this execution or in one before it."""
        if self.execution is not None:
            return self.execution.past_return
        plan = self.known.assessment.plan
        return plan is not None and is_committed(plan, self.takeover.outcomes)

    @property
    def notes(self) -> tuple[str, ...]:
        """What people should know besides the outcome."""
        problem = self.known.declared.problem
        return (
            *self.known.assessment.notes,
            *((f"no hook was called: hooks.yaml cannot be used: {problem}",) if problem is not None else ()),
            *(str(result) for result in self.hooks.results if not result.ok),
            *(str(reading) for reading in self.steady.readings if not reading.ok),
            *self.progress.undelivered,
        )

    def _is_outdated(self) -> bool:
        """Whether the plan must not be begun on what was seen when it was made: holds, hooks and manual steps
        take their time, and a primary that was silent may serve again. Planned work looks by itself before it
        touches the primary, and a primary that may be well is left on purpose.

        One new look counts until somebody holds the run: where everything is slow, a failover begins late,
        and not never."""
        if self.request.dry_run or self.request.even_if_healthy or self.maintenance is not None:
            return False
        seen = self.known.looked_at
        if seen is None or workflow.now() - seen <= EVIDENCE_LASTS or not workflow.patched(LOOKS_AGAIN):
            return False
        return not (self._looked_again and workflow.patched(LOOKS_ONCE))

    async def _begin_on_new_evidence(self) -> None:
        change = await self._look_again()
        self._looked_again = True
        if change is not None:
            if not self.progress.is_skipped("simulation"):
                await self.known.rehearse()
            self.progress.say(f"looked again: {change}")
        if self.approval.window is not None:
            self.acting_since = workflow.now()

    async def _look_again(self) -> str | None:
        """What has changed of the plan since it was made, if anything; then people are asked again, if they
        were before. Raises Ended with the rule that refuses it now."""
        before = self.known.assessment
        await self.known.look()
        await self.known.make_plan()
        change = material_change(before, self.known.assessment, self.known.policy)
        if change is not None:
            await self.approve()
        return change

    def _refuse_outside_the_window(self) -> None:
        """Raises Ended when the window has less time left than the plan is estimated to take."""
        if self.maintenance is not None and self.stop is None:
            end_if_refused(
                window_refusal(
                    self.maintenance,
                    self.known.plan,
                    started_at=self.takeover.started_at,
                    now=workflow.now(),
                    extended_s=self.extended_s,
                )
            )

    async def _see_that_it_is_steady(self) -> None:
        """Before anything is changed; a run that had begun already is not asked whether it may begin."""
        if await self.known.taken_over() or self.stop is not None:
            return
        self._breached(await self.steady.check(Moment.BEFORE))

    def _breached(self, breach: SteadyReading | None) -> None:
        """What a breach of the steady state does, by where the run stands."""
        if breach is None:
            return
        match verdict(breach.moment, past_return=self.past_return):
            case Verdict.REFUSE:
                end_if_refused(steady_refusal(breach))
            case Verdict.STOP:
                self.stop = self.stop or str(breach)

    async def _stop_over(self, reason: str | None) -> None:
        """A hook that failed stops the run as an abort does: before the point of no return, or not at all."""
        if reason is None:
            return
        await self.known.taken_over()
        if not self.past_return:
            self.stop = self.stop or reason
            self._stop_here()

    def _cancelled(self) -> None:
        self.stop = self.stop or "cancelled by a person"

    def _stop_here(self) -> None:
        if self.stop is not None and self.takeover.remains is None:
            raise Ended(RunOutcome.UNTOUCHED, self.stop)


_OUTCOMES = {
    RunEnd.UNTOUCHED: RunOutcome.UNTOUCHED,
    RunEnd.ROLLED_BACK: RunOutcome.ROLLED_BACK,
    RunEnd.COMPLETED: RunOutcome.COMPLETED,
    RunEnd.INCOMPLETE: RunOutcome.INCOMPLETE,
}
