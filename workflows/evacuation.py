"""What the steps of a region's evacuation do, and what people may say to it meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from temporalio import workflow
from temporalio.exceptions import ActivityError

from . import options
from .announcements import Announcements
from .approval import Approval, Proposed, prove
from .ended import Ended
from .listening import Listening
from .lock import refuse_another_id
from .moving import Moving
from .names import CLUSTER, INITIATOR, KIND, OUTCOME, region_guardian_id, region_id
from .progress import Progress
from .shifting import Shifting
from .stopping import uninterrupted
from .turns import Turns
from .unrecorded import told_if_unrecordable

with workflow.unsafe.imports_passed_through():
    from activities.audit import Audit, RegionArtefacts
    from activities.regions import RegionAssessment, RegionName, Regions, WhereRequest
    from qnwis.continuity.access import Deed, Person
    from qnwis.continuity.audit import SERVICE
    from qnwis.continuity.refusal import Refusal
    from qnwis.continuity.region_plan import ClusterMove, Direction, RegionPlan
    from qnwis.continuity.region_run import EvacuateRequest, RegionResult, not_known, outcome_of, way_back
    from qnwis.continuity.regions import Moved, hold_before_next
    from qnwis.continuity.run import (
        RunKind,
        RunOutcome,
        StepStatus,
    )
    from qnwis.continuity.shifting import WeightMove
    from qnwis.continuity.tokens import Expected
    from qnwis.labels import label_of

ASKS_OF_ALL_THAT_MOVED = "the verification of an evacuation asks of what moved and was not verified, too"
"""Patch: before, it asked only of those whose own run had verified it."""
ASKS_OF_WHAT_IS_NOT_KNOWN = "the verification asks of clusters whose run was ended from outside, too"
"""Patch: before, such a cluster was taken for one that had not moved."""
TOLD_THOUGH_UNREAD = "an evacuation that cannot look at its region ends with a record, and people are told"
"""Patch: before, it failed without either, though people had been told that it begins by itself."""
HEARS_HOW_RUNS_ENDED = "an evacuation hears from its clusters' runs how they ended"
"""Patch: before, it waited for the end of each; a worker of then knows nothing of the signal."""
WHAT = {Direction.OUT: "evacuation", Direction.BACK: "failback"}


class Evacuation(Listening):
    """One evacuation of one region, or the way back to it."""

    HELD = "held before the next wave"
    GOES_ON = "the evacuation goes on"

    assessed: RegionAssessment | None = None
    initiator: Person | None = None
    stop: str | None = None
    """Why no further cluster is begun."""
    ended: Ended | None = None

    def __init__(self, request: EvacuateRequest) -> None:
        self.request = request
        self.progress = Progress(RunKind.REGION_FAILURE, request.region, dry_run=request.dry_run)
        self.announcements = Announcements(request, self.progress, what=WHAT[request.direction])
        self.approval = Approval(request.region, request.initiated_by)
        self.turns = Turns()
        self.moved: dict[str, Moved] = {}
        self.failures: dict[str, str] = {}
        self.way_back: tuple[str, ...] = ()
        self._moving: list[Moving] = []
        self._begun: list[Moving] = []
        """Those of earlier waves, too."""

    async def carry_out(self, runbook: Awaitable[None]) -> RegionResult:
        """The runbook's steps, then the record; whatever is cancelled meanwhile."""
        refuse_another_id(region_id(self.request.region, dry_run=self.request.dry_run))
        workflow.upsert_search_attributes(
            [
                CLUSTER.value_set(self.request.region),
                KIND.value_set(RunKind.REGION_FAILURE.value),
                INITIATOR.value_set(label_of(self.request.initiated_by)),
                OUTCOME.value_set("running"),
            ]
        )
        return await uninterrupted(
            self._to_the_end(runbook), on_cancel=lambda: self._stop("cancelled by a person")
        )

    async def _to_the_end(self, runbook: Awaitable[None]) -> RegionResult:
        try:
            await runbook
        except Ended as ended:
            self.ended = ended
            self.progress.end(ended)
        result = await self._audit()
        await self._until_all_is_on_record()
        workflow.upsert_search_attributes([OUTCOME.value_set(result.outcome.value)])
        await self.announcements.end(result)
        await workflow.wait_condition(workflow.all_handlers_finished)
        return result.model_copy(update={"steps": self.progress.steps})

    async def _until_all_is_on_record(self) -> None:
        """An evacuation is not done before its runs are."""
        late = [moving for moving in self._begun if not moving.is_over]
        for moving in late:
            self.progress.remark(
                "audit", moving.cluster_id, f"{moving.cluster_id}: its run is not on record yet"
            )
        for moving in late:
            await moving.over()
            self.progress.remark("audit", moving.cluster_id, f"{moving.cluster_id}: its run has ended")

    # The steps

    async def detect(self) -> None:
        """Look at every cluster that has nodes in the region."""
        self.announcements.begin()
        try:
            self.assessed = await workflow.execute_activity_method(
                Regions.assess_region,
                RegionName(
                    region=self.request.region,
                    direction=self.request.direction,
                    reason=self.request.reason,
                    clusters=self.request.clusters,
                    automatic=self.request.automatic,
                ),
                **options.look("every cluster with nodes in the region"),
            )
        except ActivityError as error:
            if not workflow.patched(TOLD_THOUGH_UNREAD):
                raise
            why = f"{self.request.region} could not be looked at: {error.cause or error}"
            raise Ended(RunOutcome.UNTOUCHED, why) from error
        await self._prove_initiator()
        inside = ", ".join(self.assessed.inside) or "none"
        self.progress.say(f"clusters that are to be moved: {inside}")
        for number, unread in enumerate(self.assessed.unread):
            self.progress.remark("detection", f"unread {number}", f"⚠ left out: {unread}")
        self._stop_here()

    def assess(self) -> None:
        """The plan, or the rule that says that none can be moved."""
        assert self.assessed is not None
        refusal = self.assessed.refusal
        if refusal is not None:
            raise Ended(RunOutcome.REFUSED, str(refusal), refusal=refusal)
        self.progress.plan_digest = self.plan.digest
        self.progress.say(f"{len(self.plan.moves)} clusters in {len(self.plan.waves)} waves")
        for shift in self.plan.weights:
            self.progress.remark(
                "assessment", shift.cluster_id, f"{shift.cluster_id} weights: {shift.told()}"
            )
        for one in self.plan.unmovable:
            self.progress.remark("assessment", one.cluster_id, f"{one.cluster_id} stays: {one.refusal}")
        if self.request.dry_run:
            raise Ended(RunOutcome.PREVIEWED, "planned, and nothing changed", step=StepStatus.DONE)

    async def approve(self) -> None:
        """Have the right people agree to the plan of all clusters at once."""
        assert self.assessed is not None
        if self.request.automatic:
            self.progress.say(
                "not asked for: the policies of these clusters leave it to the region's guardian"
            )
            return
        if not self.assessed.approvals:
            self.progress.say("not asked for: the policies of these clusters have approvals: false")
            return
        notes = tuple(f"{one.cluster_id} stays: {one.refusal}" for one in self.plan.unmovable)
        await self.approval.ask(
            self.progress.approval_workflow,
            Proposed(self.plan, self.plan.predicted_loss_bytes, notes=notes),
            stop=lambda: self.stop,
            announce=self.announcements.approval_pending,
            show=self.progress.show_approval,
            say=self.progress.say,
        )
        # Each cluster's run plans anew, and refuses a plan that no longer fits: no second look here.

    async def move_all(self) -> None:
        """Wave by wave, until all have moved, a person stops it, or too many did not move. Before the waves,
        the weights of active/active clusters: DNS alone."""
        for shift in self.plan.weights:
            await self._shift(shift)
        for number, wave in enumerate(self.plan.waves):
            await workflow.wait_condition(lambda: self.progress.paused is None or self.stop is not None)
            if self.stop is not None:
                return
            self._moving = [Moving(self.request, move, self._initiator_roles) for move in wave]
            self._begun += self._moving
            await asyncio.gather(*(self._move(m, one) for m, one in zip(wave, self._moving, strict=True)))
            hold = hold_before_next(self.plan, number, tuple(self.moved.values()))
            if hold is not None and self.stop is None:
                self.progress.hold(str(hold))
                self.announcements.held(str(hold))

    async def _move(self, move: ClusterMove, moving: Moving) -> None:
        where = f"{move.plan.primary_node_id} → {move.plan.failover_target_id}"
        self._tell(move.cluster_id, f"▶ {move.cluster_id} {where}: moving")
        moved = self.moved[move.cluster_id] = await moving.moved()
        mark = "☑" if moved.good else "☒"
        told = f"{mark} {move.cluster_id} {where}: {moved.became}: {moved.reason}"
        self._tell(move.cluster_id, told)

    async def _shift(self, shift: WeightMove) -> None:
        await workflow.wait_condition(lambda: self.progress.paused is None or self.stop is not None)
        if self.stop is not None:
            return
        self._tell(shift.cluster_id, f"▶ {shift.cluster_id} weights: {shift.told()}")
        shifting = Shifting(
            self.request, shift, stopped=lambda: self.stop, hold=self._hold_until_told, tell=self._tell
        )
        moved = self.moved[shift.cluster_id] = await shifting.moved()
        mark = "☑" if moved.good else "☒"
        told = f"{mark} {shift.cluster_id} weights: {moved.outcome or 'not known'}: {moved.reason}"
        self._tell(shift.cluster_id, told)

    async def _hold_until_told(self, why: str) -> None:
        if self.stop is not None:
            return
        self.progress.hold(why)
        self.announcements.held(why)
        await workflow.wait_condition(lambda: self.progress.paused is None or self.stop is not None)

    def _tell(self, cluster_id: str, text: str) -> None:
        self.progress.remark("failover", cluster_id, text)

    async def verify(self) -> None:
        """Ask the agents again: every cluster that was moved serves elsewhere. Where nobody could look, that
        is what is on record of it: what was moved has a record and a way back either way."""
        moved = tuple(one.cluster_id for one in self.moved.values() if one.moved)
        good = tuple(one.cluster_id for one in self.moved.values() if one.good)
        asked = moved if moved == good or workflow.patched(ASKS_OF_ALL_THAT_MOVED) else good
        unknown = not_known(self.plan, self.moved)
        if unknown and not workflow.patched(ASKS_OF_WHAT_IS_NOT_KNOWN):
            unknown = ()
        if asked or unknown:
            self.failures = await self._not_found((*asked, *unknown), self.request.direction)
        if unknown:
            await self._take_in(unknown)
        told = "; ".join(f"{cluster_id}: {why}" for cluster_id, why in self.failures.items())
        self.progress.say(told or "all serve where they were to go")

    async def _take_in(self, unknown: tuple[str, ...]) -> None:
        """What the agents say of clusters whose run was ended from outside. One that is not found where it
        was to go may have stayed, or be on its way: others finish its run."""
        doubtful = tuple(name for name in unknown if name in self.failures)
        gone = await self._not_found(doubtful, self.request.direction.other) if doubtful else {}
        for name in unknown:
            self.moved[name] = self.moved[name].found(
                moved=name not in self.failures, stayed=name in doubtful and name not in gone
            )

    async def _not_found(self, asked: tuple[str, ...], direction: Direction) -> dict[str, str]:
        try:
            where = await workflow.execute_activity_method(
                Regions.unmoved,
                WhereRequest(region=self.request.region, direction=direction, clusters=asked),
                **options.look_last("where the clusters serve now"),
            )
        except ActivityError as error:
            return dict.fromkeys(asked, f"not known where it serves now: {error.cause or error}")
        return dict(where.unmoved)

    def plan_the_way_back(self) -> None:
        """Write down how each cluster comes back, and say how all of it ended."""
        self.way_back = way_back(self.plan, self.moved)
        for number, line in enumerate(self.way_back):
            self.progress.remark("recovery", str(number), f"`{line}`")
        outcome, reason = outcome_of(self.plan, self.moved, self.failures, self.stop)
        raise Ended(outcome, reason, step=StepStatus.DONE)

    async def _audit(self) -> RegionResult:
        """Write the record before the evacuation is reported done."""
        with told_if_unrecordable(self.progress.miss):
            async with self.progress.step("audit"):
                result = self._result()
                recorded = await workflow.execute_activity_method(
                    Audit.record_region,
                    RegionArtefacts(request=self.request, result=result),
                    **options.record(f"record: {result.outcome.value}"),
                )
                self.progress.note("audit", recorded.audit_id)
                return result.model_copy(update={"audit_id": recorded.audit_id})
        return result.model_copy(update={"notes": self._notes})

    def _result(self) -> RegionResult:
        assert self.ended is not None
        plan = self.assessed.plan if self.assessed is not None else None
        return RegionResult(
            region=self.request.region,
            outcome=self.ended.outcome,
            reason=self.ended.reason,
            run_id=workflow.info().run_id,
            plan=plan,
            plan_digest=plan.digest if plan is not None else None,
            refusal=self.ended.refusal,
            moved=tuple(self.moved.values()),
            not_begun=tuple(c for c in plan.cluster_ids if c not in self.moved) if plan else (),
            failures=self.failures,
            way_back=self.way_back,
            approval=self.approval.window,
            initiator_roles=self._initiator_roles,
            notes=self._notes,
            steps=self.progress.steps,
            started_at=workflow.info().start_time,
            ended_at=workflow.now(),
        )

    @property
    def _notes(self) -> tuple[str, ...]:
        return (*(self.assessed.unread if self.assessed is not None else ()), *self.progress.undelivered)

    @property
    def plan(self) -> RegionPlan:
        assert self.assessed is not None and self.assessed.plan is not None
        return self.assessed.plan

    # What clusters' runs say

    @workflow.signal(description="A cluster's run says how it ended, before that is on record")
    def cluster_ended(self, told: Moved) -> None:
        """The next wave need not wait for records: a store may be away for as long as the lost region is."""
        if workflow.patched(HEARS_HOW_RUNS_ENDED):
            for moving in self._moving:
                moving.hear(told)

    # What people say

    @property
    def named(self) -> str:
        return self.request.region

    async def asks_for_proof(self) -> bool:
        await workflow.wait_condition(lambda: self.assessed is not None or self.ended is not None)
        return self.assessed is not None and self.assessed.approvals

    def abort_refusal(self) -> None:
        """It can always be stopped: each cluster's run knows its own point of no return."""

    def stop_by(self, why: str) -> str:
        self._stop(why)
        return "no further cluster is begun; those that move stop at their next safe place"

    def _stop(self, why: str) -> None:
        self.stop = self.stop or why
        for moving in self._moving:
            moving.stop()

    def _stop_here(self) -> None:
        if self.stop is not None:
            raise Ended(RunOutcome.UNTOUCHED, self.stop)

    async def _prove_initiator(self) -> None:
        assert self.assessed is not None
        if self.request.automatic and not self._is_the_guardians:
            raise Ended(RunOutcome.REFUSED, "only the region's guardian may start an evacuation as automatic")
        if self.request.automatic or self.request.dry_run or not self.assessed.approvals:
            return
        found = await prove(
            self.request.token,
            Expected(deed=Deed.START, cluster_id=self.request.region, digest=self.request.digest),
            claimed=self.request.initiated_by,
            used_by=workflow.info().original_execution_run_id,
            stop=lambda: self.stop,
        )
        if isinstance(found, Refusal):
            raise Ended(RunOutcome.REFUSED, str(found), refusal=found)
        self.initiator = found

    @property
    def _initiator_roles(self) -> tuple[str, ...]:
        """Of its record, and of those of the clusters' runs."""
        if self.request.automatic:
            return (SERVICE,)
        return self.initiator.roles if self.initiator is not None else ()

    @property
    def _is_the_guardians(self) -> bool:
        parent = workflow.info().parent
        return parent is not None and parent.workflow_id == region_guardian_id(self.request.region)
