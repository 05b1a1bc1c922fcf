"""The hooks of one run: called around its steps, shown below them, and kept for the record."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from temporalio import workflow
from temporalio.exceptions import ActivityError, is_cancelled_exception

from . import options
from .known import Known
from .progress import Progress

with workflow.unsafe.imports_passed_through():
    from activities.hooks import HookRequest, Hooks
    from qnwis.continuity.hooks import DueHook, HookContext, HookResult, When, stop_reason
    from qnwis.continuity.run import DRY_RUN_MARK, FailoverRequest, RunKind, RunOutcome, StepStatus


@dataclass
class HookCalls:
    """Calls hooks one after the other, in the order of the file."""

    kind: RunKind
    request: FailoverRequest
    known: Known
    progress: Progress
    stop: Callable[[], str | None]
    """Why the run is to stop; None while it goes on."""
    past_return: Callable[[], bool]
    results: list[HookResult] = field(default_factory=list)

    async def before(self, step: str, *, outcome: RunOutcome | None = None) -> str | None:
        """Call what is to be called before the step; why the run stops over it. `outcome` is known before the
        last step, when there is nothing left to stop."""
        for hook in self.known.declared.hooks_at(When.BEFORE, step):
            over = outcome is not None or self.past_return()
            if not over:
                await self._while_held()
            if not over and self.stop() is not None:
                return None
            result = await self._call(hook, outcome=outcome, cut_off=not over)
            reason = stop_reason(hook, result, past_return=over) if result is not None else None
            if reason is not None:
                return reason
        return None

    async def after(self, step: str, status: StepStatus, outcome: RunOutcome | None = None) -> str | None:
        """The same after it, however it ended: what a hook before it began has to be taken back. An abort
        does not cut these off."""
        stopped: str | None = None
        for hook in self.known.declared.hooks_at(When.AFTER, step):
            result = await self._call(hook, status=status, outcome=outcome, cut_off=False)
            if result is not None and stopped is None:
                stopped = stop_reason(hook, result, past_return=self.past_return())
        return stopped

    async def _while_held(self) -> None:
        """A hook is an action: a run that is held begins none."""
        if self.progress.paused is not None:
            await workflow.wait_condition(
                lambda: self.progress.paused is None or self.stop() is not None or self.past_return()
            )

    async def _call(
        self,
        hook: DueHook,
        *,
        cut_off: bool,
        status: StepStatus | None = None,
        outcome: RunOutcome | None = None,
    ) -> HookResult | None:
        """What came of it; None in a dry run, which only names it."""
        if self.request.dry_run:
            self._show(hook, f"{DRY_RUN_MARK} would call hook {hook.name} {hook.place}")
            return None
        self._show(hook, f"▶ hook {hook.name} {hook.place}")
        calling = asyncio.create_task(self._answer(hook, self._context(hook, status, outcome)))
        if cut_off:
            await workflow.wait_condition(lambda: calling.done() or self.stop() is not None)
            calling.cancel()
        result = await calling
        self.results.append(result)
        self._show(hook, f"{'☑' if result.ok else '⚠'} {result}")
        return result

    async def _answer(self, hook: DueHook, context: HookContext) -> HookResult:
        try:
            return await workflow.execute_activity_method(
                Hooks.call_hook,
                HookRequest(hook=hook, context=context),
                **options.hook(f"hook {hook.name} {hook.place}", hook.timeout_s),
            )
        except (ActivityError, asyncio.CancelledError) as error:
            ended = "cut off, because the run stops" if is_cancelled_exception(error) else _why(error)
        return HookResult(
            hook=hook.name,
            when=hook.when,
            step=hook.step,
            ok=False,
            detail=f"{ended}; whether it had an effect is not known",
        )

    def _context(self, hook: DueHook, status: StepStatus | None, outcome: RunOutcome | None) -> HookContext:
        plan = self.known.assessment.plan
        return HookContext(
            cluster_id=self.request.cluster_id,
            run_id=self.known.takeover.run_id,
            runbook=self.kind.value,
            hook=hook.name,
            when=hook.when,
            step=hook.step,
            step_status=status.value if status is not None else "",
            outcome=outcome.value if outcome is not None else "",
            initiated_by=self.request.initiated_by,
            reason=self.request.reason,
            plan_digest=plan.digest if plan is not None else "",
            old_primary=plan.primary_node_id if plan is not None else "",
            target=plan.failover_target_id if plan is not None else "",
        )

    def _show(self, hook: DueHook, remark: str) -> None:
        self.progress.remark(hook.step, hook.name, remark)


def _why(error: BaseException) -> str:
    return str(error.cause or error) if isinstance(error, ActivityError) else str(error)
