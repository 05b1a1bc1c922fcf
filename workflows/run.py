"""What the runs of every runbook share: evidence, decision, approval, effects, verification, record.

A runbook's own workflow names its steps and their order; what a step does is here or a named call away.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable
from datetime import datetime, timedelta

from temporalio import workflow

from . import options
from .announcements import Announcements
from .approval import Approval, prove
from .execution import Execution
from .lock import refuse_another_id
from .names import CLUSTER, INITIATOR, KIND, OUTCOME, failover_id, guardian_id
from .opening_review import open_review
from .progress import Ended, Progress
from .results import result_of
from .steered import Steered
from .stopping import uninterrupted
from .takeover import Takeover

with workflow.unsafe.imports_passed_through():
    from activities.audit import Audit
    from activities.evidence import ClusterName, Evidence
    from activities.planning import AssessRequest, Planning, RehearseRequest
    from activities.verification import Verification, VerifyRequest
    from qnwis.config.registry import Registered
    from qnwis.continuity.access import Deed, Person
    from qnwis.continuity.assessment import approval_needed, approval_workflow, material_change
    from qnwis.continuity.evidence import ClusterEvidence
    from qnwis.continuity.executor import REVERSIBLE, Finish, Outcome, OutcomeStatus, RunEnd
    from qnwis.continuity.guardian_rules import PastRun
    from qnwis.continuity.plan import VerifyService
    from qnwis.continuity.policy import Policy
    from qnwis.continuity.refusal import Refusal
    from qnwis.continuity.run import (
        Assessment,
        FailoverRequest,
        Maintenance,
        RunArtefacts,
        RunKind,
        RunOutcome,
        RunResult,
        StepStatus,
    )
    from qnwis.continuity.switchover import window_begins_at, window_refusal
    from qnwis.continuity.takeover import joined
    from qnwis.continuity.tokens import Expected
    from qnwis.continuity.verifier import VerificationReport


class Run(Steered):
    """One run of a runbook, under its cluster's lock."""

    registered: Registered | None = None
    initiator: Person | None = None
    """Who proved to have started it; None for the guardian and where no proof is asked for."""
    before: ClusterEvidence | None = None
    after: ClusterEvidence | None = None
    assessment: Assessment = Assessment()
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
        """When what changes the world began; until then people and windows take the time they take."""
        self.takeover = Takeover(request)
        self.progress = Progress(kind, request.cluster_id, dry_run=request.dry_run)
        self.announcements = Announcements(request, self.progress)
        self.approval = Approval(request.cluster_id, request.initiated_by)

    async def carry_out(self, runbook: Awaitable[None]) -> RunResult:
        """The runbook's steps, then the record; whatever is cancelled meanwhile."""
        refuse_another_id(failover_id(self.request.cluster_id, dry_run=self.request.dry_run))
        workflow.upsert_search_attributes(
            [
                CLUSTER.value_set(self.request.cluster_id),
                KIND.value_set(self.kind.value),
                INITIATOR.value_set(self.request.initiated_by),
                OUTCOME.value_set("running"),
            ]
        )
        return await uninterrupted(self._to_the_end(runbook), on_cancel=self._cancelled)

    async def _to_the_end(self, runbook: Awaitable[None]) -> RunResult:
        try:
            await runbook
        except Ended as ended:
            self.ended = ended
            self.progress.end(ended)
        async with self.progress.step("audit"):
            result = await self._audit()
        await self._tell(result)
        notes = (*self.assessment.notes, *self.progress.undelivered)
        return result.model_copy(update={"steps": self.progress.steps, "notes": notes})

    # The steps

    async def detect(self) -> None:
        """Load what is registered, read the world, and look for a run that was left unfinished."""
        looking_back = None if self.request.dry_run else asyncio.create_task(self.takeover.look_back())
        name = ClusterName(cluster_id=self.request.cluster_id)
        self.registered = await workflow.execute_activity_method(
            Evidence.load_cluster, name, **options.read("registered topology and policy")
        )
        self.announcements.begin()
        await self._prove_initiator()
        await self._look()
        if looking_back is not None:
            _end_if_refused(await looking_back)
        await self._taken_over()
        self._stop_here()

    async def assess(self) -> None:
        """Decide: the plan and its epoch, or the rule that refuses."""
        if await self._taken_over():
            assert self.takeover.remains is not None
            self.progress.say(f"taken over: the run was {self.takeover.remains.ended}")
            return
        await self._plan()
        plan = self.assessment.plan
        assert plan is not None
        self.progress.say(f"{plan.primary_node_id} → {plan.failover_target_id}, `{plan.digest[:19]}…`")
        self._stop_here()

    def notify_operators(self) -> None:
        """Say what is going to be moved; nobody's answer is waited for."""
        plan = self.assessment.plan
        assert plan is not None
        when = self.maintenance.not_before if self.maintenance is not None else None
        at = f"not before {when:%F %T} UTC" if when is not None else "as soon as it is approved"
        self.announcements.planned(f"{plan.primary_node_id} → {plan.failover_target_id}, {at}")
        self.progress.say(f"operators are told: {at}")

    async def wait_for_window(self) -> None:
        """Wait until the window begins; then see that the plan still is the one, and that it fits."""
        if self.maintenance is None or self.request.dry_run or await self._taken_over():
            return
        begins_at = window_begins_at(self.maintenance, self.takeover.started_at)
        if (left := begins_at - workflow.now()) > timedelta(0):
            self.progress.say(f"waits until {begins_at:%F %T} UTC")
            with contextlib.suppress(TimeoutError):
                await workflow.wait_condition(
                    lambda: self.stop is not None, timeout=left, timeout_summary="until the window begins"
                )
            self._stop_here()
            approved = self.assessment
            await self._look()
            await self._plan()
            if material_change(approved, self.assessment, self._known.policy) is not None:
                await self.approve()
        assert self.assessment.plan is not None
        _end_if_refused(
            window_refusal(
                self.maintenance,
                self.assessment.plan,
                started_at=self.takeover.started_at,
                now=workflow.now(),
                extended_s=self.extended_s,
            )
        )

    def show_the_way_back(self) -> None:
        """What takes the service back, before anything is changed."""
        plan = self.assessment.plan
        assert plan is not None
        undoes = [action.action_id for action in plan.actions if action.kind in REVERSIBLE]
        self.progress.say(
            f"until the promotion a failure undoes {', '.join(undoes)}; after it:"
            f" `qnwis-continuity maintenance run {plan.cluster_id} --target {plan.primary_node_id}`"
        )

    async def simulate(self) -> None:
        """Play the plan on paper first."""
        if await self._taken_over():
            return
        await self._rehearse()
        self._stop_here()

    async def approve(self) -> None:
        """Have the right people agree to exactly this plan, and see that it still is the one."""
        registered = self._known
        needed, why = approval_needed(self.request, registered.policy)
        if not needed or await self._taken_over():
            self.progress.say(why)
            return
        while True:
            approved = self.assessment
            await self.approval.ask(
                approval_workflow(self.request, self.progress.approval_workflow),
                approved,
                stop=lambda: self.stop,
                announce=self.announcements.approval_pending,
                show=self.progress.show_approval,
                say=self.progress.say,
            )
            await self._look()
            await self._plan()
            await self._rehearse()
            change = material_change(approved, self.assessment, registered.policy)
            if change is None:
                return
            self.progress.say(f"{change}; the votes are void, and people are asked again")

    async def execute(self) -> None:
        """Drive the plan through the stepper."""
        await self.manual_steps("execution")
        if self.approval.window is not None or self.maintenance is not None:
            self.acting_since = workflow.now()
        if self.assessment.plan is not None:
            self.announcements.watch_overrun(self._known.policy.max_failover_time_s)
        end = None
        while end is None:
            await self._taken_over()
            assert self.assessment.plan is not None
            self.execution = Execution(
                self.assessment.plan,
                self._known.model_copy(update={"policy": self._limits}),
                self.assessment.epoch,
                self.takeover.run_id,
                joined(self.execution.log if self.execution is not None else (), self.takeover.outcomes),
            )
            self._show_outcomes()
            if self.request.dry_run:
                await self.execution.preview()
                self._show_outcomes()
                raise Ended(
                    RunOutcome.PREVIEWED, "every effect was previewed, none was made", step=StepStatus.DONE
                )
            end = await self.execution.drive(
                stop=lambda: self.stop or self.takeover.stop,
                held=lambda: self.progress.paused is not None,
                shown=self._show_outcomes,
                forgot=lambda: self.takeover.forgot,
            )
        if isinstance(end, Finish):
            raise Ended(_OUTCOMES[end.end], end.reason)
        self.verification_due = end

    async def verify(self) -> None:
        """Read the world again; what the verifier says is what the run has achieved."""
        assert self.execution is not None and self.verification_due is not None
        assert self.assessment.plan is not None and self.before is not None
        fence, began_at = self.execution.fence, self.acting_since or self.takeover.started_at
        verified = await workflow.execute_activity_method(
            Verification.verify,
            VerifyRequest(
                plan=self.assessment.plan,
                cluster=self._known.cluster,
                policy=self._limits,
                before=self.before,
                fencing=fence.fencing if fence is not None else None,
                epoch=self.assessment.epoch,
                elapsed_ms=(workflow.now() - began_at).total_seconds() * 1000,
            ),
            **options.effect("read the world again"),
        )
        self.after, self.verification = verified.after, verified.report
        failures = "; ".join(f"{c.name}: {c.detail}" for c in verified.report.checks if not c.ok)
        finish = self.execution.settle(
            Outcome(
                action_id=self.verification_due.action_id,
                status=OutcomeStatus.SUCCEEDED if verified.report.passed else OutcomeStatus.FAILED,
                detail=failures or "the verifier passed every check",
                changed=False,
            )
        )
        self._show_outcomes()
        confidence = verified.report.confidence
        self.progress.note("verification", failures or f"confidence {confidence.score} ({confidence.band})")
        step = StepStatus.DONE if verified.report.passed else StepStatus.FAILED
        raise Ended(_OUTCOMES[finish.end], finish.reason, step=step)

    async def _audit(self) -> RunResult:
        """Write the record before the run is reported done."""
        assert self.ended is not None
        result = result_of(self, self.ended)
        recorded = await workflow.execute_activity_method(
            Audit.record,
            RunArtefacts(
                request=self.takeover.request,
                evidence_before=self.before,
                evidence_after=self.after,
                result=result,
            ),
            **options.record(f"record: {result.outcome.value}"),
        )
        self.progress.note("audit", recorded.audit_id)
        return result.model_copy(update={"audit_id": recorded.audit_id})

    async def _tell(self, result: RunResult) -> None:
        """Tell the filters in the UI, the people, and the guardian when it did not start this run itself."""
        workflow.upsert_search_attributes([OUTCOME.value_set(result.outcome.value)])
        await self.announcements.end(result)
        if self.registered is not None:
            await open_review(self.takeover.request, self.registered.policy, result)
        if not self.request.automatic and not self.request.dry_run:
            await self.announcements.tell_guardian(guardian_id(self.request.cluster_id), PastRun.of(result))
        await workflow.wait_condition(workflow.all_handlers_finished)

    # What the steps need

    @property
    def _known(self) -> Registered:
        assert self.registered is not None, "the first step loads it"
        return self.registered

    @property
    def _limits(self) -> Policy:
        """The policy, or what is left of it under an override."""
        policy = self._known.policy
        return policy.without_limits() if self.takeover.request.override else policy

    async def _look(self) -> None:
        self.before = await workflow.execute_activity_method(
            Evidence.collect, self._known.cluster, **options.read("ask every agent")
        )

    async def _plan(self) -> None:
        assert self.before is not None
        self.assessment = await workflow.execute_activity_method(
            Planning.assess,
            AssessRequest(
                request=self.request.model_copy(update={"maintenance": self.maintenance}),
                cluster=self._known.cluster,
                policy=self._known.policy,
                evidence=self.before,
            ),
            **options.read("quorum, policy, target, plan"),
        )
        refusal, plan = self.assessment.refusal, self.assessment.plan
        if refusal is not None or plan is None:
            reason = str(refusal) if refusal is not None else "no plan was made"
            self.progress.say(reason)
            raise Ended(RunOutcome.REFUSED, reason, refusal=refusal)
        self.progress.plan_digest = plan.digest

    async def _rehearse(self) -> None:
        assert self.assessment.plan is not None and self.before is not None
        rehearsal = await workflow.execute_activity_method(
            Planning.rehearse,
            RehearseRequest(
                plan=self.assessment.plan,
                cluster=self._known.cluster,
                policy=self._limits,
                evidence=self.before,
            ),
            **options.read("play the plan against the model"),
        )
        self.progress.note("simulation", rehearsal.summary)
        _end_if_refused(rehearsal.refusal)

    async def _prove_initiator(self) -> None:
        """A person who starts a run proves it, where the policy asks for that; a dry run changes nothing."""
        parent, asked = workflow.info().parent, self.request.maintenance
        returns = asked is not None and asked.returns is not None
        if parent is None and returns:
            raise Ended(RunOutcome.REFUSED, "only a round trip may say that a run is its way back")
        trusted = returns or (not self._known.policy.approvals and not self.request.override)
        if self.request.automatic or self.request.dry_run or trusted:
            return
        deed = Deed.OVERRIDE if self.request.override else Deed.START
        if parent is not None and self.request.token is not None:
            # What a schedule starts was signed when that was made, and for that alone.
            deed = Deed.SCHEDULE if self.request.token.claim.deed is Deed.SCHEDULE else deed
        found = await prove(
            self.request.token,
            Expected(deed=deed, cluster_id=self.request.cluster_id, digest=self.request.digest),
            claimed=self.request.initiated_by,
            used_by=self.takeover.run_id,
        )
        if isinstance(found, Refusal):
            raise Ended(RunOutcome.REFUSED, str(found), refusal=found)
        self.initiator = found

    async def _taken_over(self) -> bool:
        """Whether the run had begun before this execution. After a reset that is asked again."""
        if self.takeover.forgot and not self.request.dry_run:
            _end_if_refused(await self.takeover.look_back())
        remains = self.takeover.remains
        if remains is None:
            return False
        self.before, self.assessment = remains.before, remains.assessment
        assert remains.assessment.plan is not None
        self.progress.plan_digest = remains.assessment.plan.digest
        return True

    def _show_outcomes(self) -> None:
        assert self.execution is not None
        self.progress.outcomes = self.execution.outcomes
        self.progress.refresh()

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


def _end_if_refused(refusal: Refusal | None) -> None:
    if refusal is not None:
        raise Ended(RunOutcome.REFUSED, str(refusal), refusal=refusal)
