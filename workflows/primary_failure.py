"""The runbook for a primary that is gone: detect, assess, simulate, execute, verify, audit.

Text for people: `runbooks/primary_failure.md`. One run per cluster: the workflow id is the lock.
"""

from __future__ import annotations

import asyncio

from temporalio import workflow
from temporalio.exceptions import ApplicationError

from . import options
from .announcements import Announcements
from .execution import Execution
from .lock import refuse_another_id
from .names import CLUSTER, INITIATOR, KIND, OUTCOME, failover_id, guardian_id
from .progress import Ended, Progress
from .results import result_of
from .stopping import uninterrupted
from .takeover import Takeover

with workflow.unsafe.imports_passed_through():
    from pydantic import ValidationError

    from activities.audit import Audit
    from activities.evidence import ClusterName, Evidence
    from activities.planning import AssessRequest, Planning, RehearseRequest
    from activities.verification import Verification, VerifyRequest
    from qnwis.config.registry import Registered
    from qnwis.continuity.evidence import ClusterEvidence
    from qnwis.continuity.executor import Finish, Outcome, OutcomeStatus, RunEnd
    from qnwis.continuity.guardian_rules import PastRun
    from qnwis.continuity.plan import VerifyService
    from qnwis.continuity.refusal import Refusal
    from qnwis.continuity.run import (
        AbortRequest,
        Assessment,
        FailoverRequest,
        RunArtefacts,
        RunKind,
        RunOutcome,
        RunProgress,
        RunResult,
        StepStatus,
    )
    from qnwis.continuity.takeover import joined
    from qnwis.continuity.verifier import VerificationReport


@workflow.defn(failure_exception_types=[ValidationError])
class PrimaryFailure:
    """Fail over from a primary that is gone to the best standby, once, and prove it."""

    registered: Registered
    before: ClusterEvidence | None = None
    after: ClusterEvidence | None = None
    assessment: Assessment = Assessment()
    execution: Execution | None = None
    verification_due: VerifyService | None = None
    verification: VerificationReport | None = None
    ended: Ended | None = None

    @workflow.init
    def __init__(self, request: FailoverRequest | None = None) -> None:
        # Started without input it fails and says what is missing; a missing argument would retry for ever.
        self.request = request or FailoverRequest.model_validate({})
        self.stop: str | None = None
        self.takeover = Takeover(self.request)
        self.progress = Progress(
            RunKind.PRIMARY_FAILURE, self.request.cluster_id, dry_run=self.request.dry_run
        )
        self.announcements = Announcements(self.request, self.progress)

    @workflow.run
    async def run(self, request: FailoverRequest | None = None) -> RunResult:
        refuse_another_id(failover_id(self.request.cluster_id, dry_run=self.request.dry_run))
        workflow.upsert_search_attributes(
            [
                CLUSTER.value_set(self.request.cluster_id),
                KIND.value_set(RunKind.PRIMARY_FAILURE.value),
                INITIATOR.value_set(self.request.initiated_by),
                OUTCOME.value_set("running"),
            ]
        )
        return await uninterrupted(self._runbook(), on_cancel=self._cancelled)

    async def _runbook(self) -> RunResult:
        step = self.progress.step
        try:
            async with step("detection"):
                await self._detect()
            async with step("assessment"):
                await self._assess()
            async with step("simulation"):
                await self._simulate()
            async with step("execution"):
                await self._execute()
            async with step("verification"):
                await self._verify()
        except Ended as ended:
            self.ended = ended
            self.progress.skip_rest()
        async with step("audit"):
            result = await self._audit()
        await self._tell(result)
        notes = (*self.assessment.notes, *self.progress.undelivered)
        return result.model_copy(update={"steps": self.progress.steps, "notes": notes})

    async def _detect(self) -> None:
        """Load what is registered, read the world, and look for a run that was left unfinished."""
        looking_back = None if self.request.dry_run else asyncio.create_task(self.takeover.look_back())
        name = ClusterName(cluster_id=self.request.cluster_id)
        self.registered = await workflow.execute_activity_method(
            Evidence.load_cluster, name, **options.read("registered topology and policy")
        )
        self.announcements.begin(self.registered.policy.max_failover_time_s)
        self.before = await workflow.execute_activity_method(
            Evidence.collect, self.registered.cluster, **options.read("ask every agent")
        )
        if looking_back is not None:
            _end_if_refused(await looking_back)
        await self._taken_over()
        self._stop_here()

    async def _assess(self) -> None:
        """Decide: the plan and its epoch, or the rule that refuses."""
        if await self._taken_over():
            assert self.takeover.remains is not None
            self.progress.note("assessment", f"taken over: the run was {self.takeover.remains.ended}")
            return
        assert self.before is not None
        self.assessment = await workflow.execute_activity_method(
            Planning.assess,
            AssessRequest(
                request=self.request,
                cluster=self.registered.cluster,
                policy=self.registered.policy,
                evidence=self.before,
            ),
            **options.read("quorum, policy, target, plan"),
        )
        refusal, plan = self.assessment.refusal, self.assessment.plan
        if refusal is not None or plan is None:
            reason = str(refusal) if refusal is not None else "no plan was made"
            self.progress.note("assessment", reason)
            raise Ended(RunOutcome.REFUSED, reason, refusal=refusal)
        self.progress.plan_digest = plan.digest
        self.progress.note(
            "assessment", f"{plan.primary_node_id} → {plan.failover_target_id}, `{plan.digest[:19]}…`"
        )
        self._stop_here()

    async def _simulate(self) -> None:
        """Play the plan on paper first."""
        if await self._taken_over():
            return
        assert self.assessment.plan is not None and self.before is not None
        rehearsal = await workflow.execute_activity_method(
            Planning.rehearse,
            RehearseRequest(
                plan=self.assessment.plan,
                cluster=self.registered.cluster,
                policy=self.registered.policy,
                evidence=self.before,
            ),
            **options.read("play the plan against the model"),
        )
        self.progress.note("simulation", rehearsal.summary)
        _end_if_refused(rehearsal.refusal)
        self._stop_here()

    async def _execute(self) -> None:
        """Drive the plan through the stepper: fence, promote, repoint, flip."""
        end = None
        while end is None:
            await self._taken_over()
            assert self.assessment.plan is not None
            self.execution = Execution(
                self.assessment.plan,
                self.registered,
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
                shown=self._show_outcomes,
                forgot=lambda: self.takeover.forgot,
            )
        if isinstance(end, Finish):
            raise Ended(_OUTCOMES[end.end], end.reason)
        self.verification_due = end

    async def _verify(self) -> None:
        """Read the world again; what the verifier says is what the run has achieved."""
        assert self.execution is not None and self.verification_due is not None
        assert self.assessment.plan is not None and self.before is not None
        fence = self.execution.outcome_of("fence_primary")
        verified = await workflow.execute_activity_method(
            Verification.verify,
            VerifyRequest(
                plan=self.assessment.plan,
                cluster=self.registered.cluster,
                policy=self.registered.policy,
                before=self.before,
                fencing=fence.fencing if fence is not None else None,
                epoch=self.assessment.epoch,
                elapsed_ms=(workflow.now() - self.takeover.started_at).total_seconds() * 1000,
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
        result = result_of(
            self.request,
            self.takeover,
            self.assessment,
            self.ended,
            self.execution,
            self.verification,
            self.progress.steps,
            self.progress.undelivered,
        )
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
        if not self.request.automatic and not self.request.dry_run:
            past = PastRun(run_id=result.run_id, outcome=result.outcome, ended_at=result.ended_at)
            await self.announcements.tell_guardian(guardian_id(self.request.cluster_id), past)

    @workflow.query(name="progress", description="The runbook's steps and where this run stands")
    def progress_view(self) -> RunProgress:
        return self.progress.view()

    @workflow.update(description="Stop at the next safe place and undo what was begun: {by, reason}")
    def abort(self, request: AbortRequest) -> str:
        self._abort(request)
        return "the run stops at the next safe place, and undoes what it has begun"

    @abort.validator
    def refuse_abort(self, request: AbortRequest) -> None:
        refusal = self.execution.abort_refusal() if self.execution is not None else None
        if refusal is not None:
            raise ApplicationError(str(refusal), refusal, type=refusal.rule, non_retryable=True)

    @workflow.signal(name="abort", description="The same as the update, without an answer: {by, reason}")
    def abort_unanswered(self, request: AbortRequest) -> None:
        refusal = self.execution.abort_refusal() if self.execution is not None else None
        if refusal is None:
            self._abort(request)
        else:
            self.progress.note("execution", f"abort by {request.by} refused: {refusal}")

    def _abort(self, request: AbortRequest) -> None:
        self.stop = self.stop or f"aborted by {request.by}: {request.reason}"

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
