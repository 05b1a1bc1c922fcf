"""The weights of one active/active cluster, shifted step by step; nothing is promoted."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from temporalio import workflow
from temporalio.exceptions import ActivityError

from . import options

with workflow.unsafe.imports_passed_through():
    from activities.weights import ReturnCheck, ShiftRequest, WeightShifts
    from qnwis.continuity.refusal import Refusal
    from qnwis.continuity.region_plan import Direction
    from qnwis.continuity.region_run import EvacuateRequest
    from qnwis.continuity.regions import Moved
    from qnwis.continuity.run import RunOutcome
    from qnwis.continuity.shifting import WeightMove


STEP_MARK = "⇄"
"""Begins what is told of each step."""


class Shifting:
    """Of one cluster. Each step is a compare-and-swap, so that it may be asked for again; and between two
    steps the weights in force are of all traffic, too."""

    def __init__(
        self,
        evacuation: EvacuateRequest,
        move: WeightMove,
        *,
        stopped: Callable[[], str | None],
        hold: Callable[[str], Awaitable[None]],
        tell: Callable[[str, str], None],
    ) -> None:
        self._evacuation = evacuation
        self._move = move
        self._stopped = stopped
        self._hold = hold
        """Returns when a person lets it go on, or stops it."""
        self._tell = tell
        """What about, and the line that is shown from now on."""
        self._found = ""
        """What the check before the present step found."""

    async def moved(self) -> Moved:
        """How it ended. Raises nothing."""
        now = self._move.before
        for number, step in enumerate(self._move.steps, start=1):
            checked = await self._may_go_on()
            if checked is not None:
                outcome = RunOutcome.UNTOUCHED if now == self._move.before else RunOutcome.INCOMPLETE
                return self._ended(outcome, f"{checked}; the weights are {dict(now)}")
            try:
                shifted = await workflow.execute_activity_method(
                    WeightShifts.shift_weights,
                    ShiftRequest(cluster_id=self._move.cluster_id, before=now, after=step),
                    **options.effect(f"{self._move.cluster_id}: weights {dict(step)}"),
                )
            except ActivityError as error:
                return self._ended(None, f"not known whether the weights are {dict(step)}: {error.cause}")
            if shifted.refusal is not None:
                outcome = RunOutcome.REFUSED if now == self._move.before else RunOutcome.INCOMPLETE
                return self._ended(outcome, str(shifted.refusal))
            now = step
            told = ", ".join(f"{region} {weight}" for region, weight in sorted(step.items()))
            self._tell(
                f"{self._move.cluster_id} {number}",
                f"{STEP_MARK} {self._move.cluster_id} step {number} of {len(self._move.steps)}:"
                f" weights {told}{self._found}",
            )
        return self._ended(RunOutcome.COMPLETED, self._move.told())

    async def _may_go_on(self) -> str | None:
        """Why not. A region that comes back is checked before each step, its first one too; where it does not
        pass, people are asked, and it is checked again when they let it go on."""
        while True:
            if (stopped := self._stopped()) is not None:
                return stopped
            refusal = await self._checked() if self._evacuation.direction is Direction.BACK else None
            if refusal is None:
                return self._stopped()
            await self._hold(f"{self._move.cluster_id}: {refusal}")

    async def _checked(self) -> Refusal | str | None:
        region = self._evacuation.region
        others = tuple(r for r, weight in sorted(self._move.after.items()) if weight and r != region)
        try:
            found = await workflow.execute_activity_method(
                WeightShifts.check_return,
                ReturnCheck(cluster_id=self._move.cluster_id, region=region, others=others),
                **options.look(f"{self._move.cluster_id}: may {region} take more traffic?"),
            )
        except ActivityError as error:
            return f"the check failed: {error.cause}"
        self._found = "" if not found.told else f", after the check: {found.told}"
        return found.refusal

    def _ended(self, outcome: RunOutcome | None, reason: str) -> Moved:
        return Moved(cluster_id=self._move.cluster_id, outcome=outcome, reason=reason, run_id=None)
