"""The guardian of one cluster: an entity workflow that watches, decides by pure rules and starts the runbook.

It wakes when a vantage's watch returns (a node's status changed), a run ends, a person or a region's guardian
speaks, or a rule's time is over. While nothing of that happens its history does not grow. While a run goes on
it watches and judges as ever, and starts nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from temporalio import workflow
from temporalio.exceptions import ApplicationError, ChildWorkflowError, WorkflowAlreadyStartedError

from . import options
from .details import show_details
from .guarded_runs import Child, GuardedRuns
from .guardian_listening import GuardianListening
from .guardian_state import AlertAnswer, GuardianState, GuardianView
from .guardian_words import details
from .names import CLUSTER, KIND, guardian_id
from .recording import RECORDED, Recorder
from .registered import as_registered
from .reprotecting import Reprotecting
from .turns import Turns
from .versioning import FOLLOWS
from .watching import Watches

with workflow.unsafe.imports_passed_through():
    from pydantic import ValidationError

    from activities.evidence import Evidence
    from activities.past_runs import RunsReport
    from qnwis.config.registry import Registered
    from qnwis.continuity.detection import Finding, Verdict, judge, needs_evidence
    from qnwis.continuity.evidence import ClusterEvidence, current_primary
    from qnwis.continuity.guardian_record import refused_failover
    from qnwis.continuity.guardian_rules import (
        RETRY_FIRST,
        RETRY_LONGEST,
        Decision,
        Hold,
        PastRun,
        Propose,
        Start,
        decide,
        remembered,
    )
    from qnwis.continuity.managers import automatic_refusal
    from qnwis.continuity.refusal import Refusal
    from qnwis.continuity.region_groups import decide_regions, primaries_now
    from qnwis.continuity.region_wait import answering, failed_after, region_hold
    from qnwis.continuity.run import FailoverRequest


REGIONS_DECIDE = "of an active/active cluster as a whole nothing is failed over"
"""Patch: before, a run was started for one of its primaries, and refused."""
WATCHES_ON = "the guardian watches on while a run of its own goes on"
"""Patch: before, it stood still until that had ended."""
READS_ANEW = "what is registered is read again when a vantage speaks that had no say"
"""Patch: before, what was registered anew while nobody watched was not taken in."""
WATCHES_WHILE_ASKED = "a guardian that goes on as new watches until nobody waits for its answer"
"""Patch: before, it stood still meanwhile; where who asks cannot be proved, that was without end."""
LOCK_IS_FREE = "a guardian that waits to try again does so once the cluster's lock is free"
"""Patch: before, it waited for up to `RETRY_LONGEST` after a run without a result had held it."""


@workflow.defn(failure_exception_types=[ValidationError], versioning_behavior=FOLLOWS)
class Guardian(GuardianListening):
    """Watches one cluster for as long as it exists."""

    primary_node_id: str | None = None
    """None also of an active/active cluster, which has several: see `primaries`."""
    primaries: Mapping[str, str | None] = {}
    """By region, of an active/active cluster."""
    evidence: ClusterEvidence | None = None
    holding: str | None = None

    @workflow.init
    def __init__(self, state: GuardianState | None = None) -> None:
        # Started without input it fails and says what is missing; a missing argument would retry for ever.
        state = state or GuardianState.model_validate({})
        self.cluster_id = state.cluster_id
        self.watches = Watches(state.cluster_id, state.statements, state.abstaining)
        self.verdicts: dict[str, Verdict] = {}
        self.history = state.history
        self.last_result = state.last_result
        self.pause = state.pause
        self.watching_since = state.watching_since or workflow.now()
        self.changed_at = state.changed_at or self.watching_since
        self.events_before_new = state.events_before_new
        self.failed = state.failed
        self.regions = dict(state.regions)
        self.runs = GuardedRuns(self.cluster_id, state.own_run)
        self.reprotecting = Reprotecting(self._wake)
        self.recorder = Recorder(state.unrecorded)
        self.turns = Turns()
        self.refused_for = state.refused_for
        self.woken = False
        self.decisions = 0
        """Made so far; who asks for one waits for the next."""
        self.ending = False
        self.timer_changed = False
        self.wants_the_lock = False
        """A run is to be started, and the lock may be held, or is."""
        self.retry_at: datetime | None = None
        self.retry_after = RETRY_FIRST

    @workflow.run
    async def run(self, state: GuardianState | None = None) -> None:
        expected = guardian_id(self.cluster_id)
        if workflow.info().workflow_id != expected:
            raise ApplicationError(
                f"workflow id is {workflow.info().workflow_id!r}; expected {expected!r}",
                type="wrong_workflow_id",
                non_retryable=True,
            )
        workflow.upsert_search_attributes([CLUSTER.value_set(self.cluster_id), KIND.value_set("guardian")])
        self.recorder.take_up()
        await self._look_around()
        await self.runs.watch(self._learn_of_runs)
        while not self._continues_as_new():
            self.watches.keep_going(self._known.cluster)
            await self.reprotecting.keep_going(self._known)
            goes_on = self.runs.own is not None
            await self._judge()
            if goes_on or self.runs.own is not None:
                pass  # one at a time; of one that ended just now, all that it came to is taken in first
            elif (unfinished := self.runs.to_finish()) is not None:
                await self._see_through(unfinished)
            else:
                await self._act(self._decide())
            self.decisions += 1
            await self._next_event()
            self.runs.raise_what_broke_off()
        self.ending = True
        await self.watches.stop()
        await self.runs.stop_watching()
        await workflow.wait_condition(workflow.all_handlers_finished)
        workflow.continue_as_new(self._state())

    @property
    def _known(self) -> Registered:
        assert self.registered is not None, "it is loaded first"
        return self.registered

    # Seeing

    async def _look_around(self) -> None:
        """Load what is registered, and learn from the agents who the primary is."""
        self.registered = await as_registered(self.cluster_id, self.registered)
        self.runs.silent_s = self._known.cluster.heartbeat.watch_timeout_sec
        evidence = await workflow.execute_activity_method(
            Evidence.collect, self._known.cluster, **options.read("who is the primary")
        )
        self._know_primaries(evidence)

    def _know_primaries(self, evidence: ClusterEvidence) -> None:
        cluster = self._known.cluster
        if self._regions_decide:
            self.primary_node_id, self.primaries = None, primaries_now(cluster, evidence)
        else:
            self.primary_node_id, self.primaries = current_primary(cluster, evidence), {}

    @property
    def _regions_decide(self) -> bool:
        return self._known.cluster.is_active_active and workflow.patched(REGIONS_DECIDE)

    async def _next_event(self) -> None:
        """Wait until something happened, and take it in."""
        await self._until_something_happens()
        self.woken = False
        before = self.watches.votes()
        reports = self.watches.take_in()
        if self.watches.votes() != before:
            self.changed_at = workflow.now()
            self.retry_after = RETRY_FIRST
        if any(report.cluster_changed for report in reports) or (reports and self.primary_node_id is None):
            await self._look_around()
        elif self.watches.spoke_anew and workflow.patched(READS_ANEW):
            await self._take_in_a_change()

    async def _take_in_a_change(self) -> None:
        """A watch tells only of what changes after it began; nobody told what changed before."""
        if await as_registered(self.cluster_id, self.registered) != self.registered:
            await self._look_around()

    async def _until_something_happens(self) -> None:
        while True:
            self.timer_changed, timeout = False, None
            if self.retry_at is not None:
                timeout = max(timedelta(0), self.retry_at - workflow.now())
            self._show()
            try:
                await workflow.wait_condition(
                    lambda: self._something_happened() or self.timer_changed,
                    timeout=timeout,
                    timeout_summary="a rule's time is over",
                )
            except TimeoutError:
                self.retry_at = None
                return
            if self._something_happened():
                return

    async def _learn_of_runs(self, report: RunsReport) -> None:
        """Runs count whoever started them, and whoever was the guardian then."""
        known = {run.run_id for run in self.history}
        unknown = [run for run in report.recent if run.run_id not in known]
        for run in unknown:
            self._remember(run)
        if any(run.moved for run in unknown):
            await self._look_around()
        ended = self.runs.let_go(report)
        freed = self.wants_the_lock and report.going_on is None and workflow.patched(LOCK_IS_FREE)
        self.woken = self.woken or bool(unknown) or ended or freed or report.unfinished is not None

    def _wake(self) -> None:
        self.woken = True

    def _something_happened(self) -> bool:
        leaves = self.ending and workflow.all_handlers_finished()
        return self.woken or self.watches.something_happened or self.runs.broke_off or leaves

    # Judging

    async def _judge(self) -> None:
        """The verdict on every node. Where the vantages call one failed, every agent is asked as well."""
        cluster, votes = self._known.cluster, self.watches.votes()
        self.evidence = None
        if needs_evidence(cluster, votes):
            self.evidence = await workflow.execute_activity_method(
                Evidence.collect, cluster, **options.read("what contradicts the vantages")
            )
            if any(node.state is not None and node.state.writable for node in self.evidence.nodes):
                self._know_primaries(self.evidence)
        self.verdicts = judge(cluster, votes, self.evidence)
        self.failed = failed_after(self.failed, self._verdict_on_the_primary, workflow.now())

    @property
    def _verdict_on_the_primary(self) -> Verdict | None:
        return self.verdicts.get(self.primary_node_id or "")

    def _decide(self) -> Decision:
        if self._regions_decide:
            return decide_regions(self._known.cluster, self.primaries, self.verdicts)
        primary = self._verdict_on_the_primary
        by_itself = automatic_refusal(self._known.cluster)
        if by_itself is not None and primary is not None and primary.finding is Finding.FAILED:
            return Hold(by_itself, look_again=True)  # whom Patroni has made the leader meanwhile
        return decide(
            policy=self._known.policy,
            primary=primary,
            history=self.history,
            pause=self.pause,
            watching_since=self.watching_since,
            changed_at=self.changed_at,
            now=workflow.now(),
            region=self._left_to_the_region(),
        )

    def _left_to_the_region(self) -> Hold | None:
        """Why the primary is left to the guardian of its region for now."""
        if self.failed is None or self._verdict_on_the_primary is None:
            return None
        cluster = self._known.cluster
        region = cluster.node(self.failed.node_id).region
        return region_hold(
            self._known.policy,
            region,
            self.regions.get(region),
            self.failed.at,
            answering(cluster, self.watches.sights(), self.failed.node_id),
            workflow.now(),
        )

    # Acting

    async def _act(self, decision: Decision) -> None:
        self.holding, self.retry_at, self.wants_the_lock = None, None, False
        if isinstance(decision, Hold):
            self._record_refused(decision.refusal)
        match decision:
            case Start():
                await self._see_through(self._request())
            case Propose():
                # The run asks people before it changes anything; until it has ended it holds the lock.
                self.holding = (
                    f"strategy manual: {self.primary_node_id} failed; a run has a plan and waits for people"
                    f" (qnwis-continuity approve {self.cluster_id})"
                )
                self._show()
                await self._see_through(self._request())
            case Hold(refusal=refusal, look_again=True):
                self._try_again_later(str(refusal))
            case Hold(refusal=refusal, until=until):
                self.holding = str(refusal)
                self.retry_at = until

    def _record_refused(self, refusal: Refusal) -> None:
        """Once for as long as the same rule refuses in the same situation."""
        since = self.failed.at if self.failed is not None else self.changed_at
        refused_for = f"{refusal.rule} since {since.isoformat()}"
        if refused_for == self.refused_for or not workflow.patched(RECORDED):
            return
        self.refused_for = refused_for
        verdict = self._verdict_on_the_primary
        self.recorder.record(
            refused_failover(
                self.cluster_id,
                guardian_id(self.cluster_id),
                self.primary_node_id,
                "the primary is not known" if verdict is None else f"{verdict.finding.value}: {verdict.why}",
                refusal,
                decision_id=f"guardian-{workflow.info().first_execution_run_id} {refused_for}",
                at=workflow.now(),
            )
        )

    async def _see_through(self, request: FailoverRequest) -> None:
        """Have a run under the cluster's lock. Its end is taken in when it comes."""
        self.wants_the_lock = True
        try:
            run = await self.runs.start(request)
        except WorkflowAlreadyStartedError:
            await self.runs.ask_to_give_way(request.reason)
            self._try_again_later("a run holds the cluster's lock")
            return
        self.wants_the_lock = False
        ended = self.runs.follow(run, self._take_in_the_end)
        if not workflow.patched(WATCHES_ON):
            await ended

    async def _take_in_the_end(self, run: Child) -> None:
        """What this guardian's own run came to."""
        try:
            result = await run
        except ChildWorkflowError as error:
            self._try_again_later(f"the run ended without a result: {error.cause or error}")
            self.timer_changed = True
            return
        # First the new primary, so that a view never shows the run's result beside the old one.
        await self._look_around()
        self.last_result = result
        self._remember(PastRun.of(result))
        self.woken = True  # what it came to decides on the next attempt

    def _request(self) -> FailoverRequest:
        assert self.primary_node_id is not None
        detection, why = self.watches.called_failed(self.primary_node_id)
        return FailoverRequest(
            cluster_id=self.cluster_id,
            initiated_by=guardian_id(self.cluster_id),
            reason=f"{self.primary_node_id} failed: {why}",
            automatic=True,
            detection=detection,
        )

    def _try_again_later(self, why: str) -> None:
        """The same failed primary may be acted on later, ever less often, so that history stays small."""
        self.holding = why
        self.retry_at = workflow.now() + self.retry_after
        self.retry_after = min(self.retry_after * 2, RETRY_LONGEST)

    def _remember(self, run: PastRun) -> None:
        self.history = remembered(self.history, run, self._known.policy, workflow.now())

    def _as_decided(self) -> AlertAnswer:
        verdict = self._verdict_on_the_primary
        return AlertAnswer(
            run_id=self.runs.own,
            primary_node_id=self.primary_node_id,
            finding=None if verdict is None else verdict.finding.value,
            why="the primary is not known" if verdict is None else f"{verdict.finding.value}: {verdict.why}",
            holding=self.holding,
        )

    # Being seen

    @workflow.query(description="What this guardian knows and why it does or does not act")
    def view(self) -> GuardianView:
        return GuardianView(
            cluster_id=self.cluster_id,
            primary_node_id=self.primary_node_id,
            primaries=self.primaries,
            verdicts=self.verdicts,
            statuses={node_id: verdict.status for node_id, verdict in self.verdicts.items()},
            statements=self.watches.statements,
            abstaining=self.watches.abstaining,
            changed_at=self.changed_at,
            watching_since=self.watching_since,
            pause=self.pause,
            failed=self.failed,
            regions=self.regions,
            own_run=self.runs.own,
            holding=self.holding,
            last_refused=self.last_refused,
            last_result=self.last_result,
            history=self.history,
        )

    def _show(self) -> None:
        show_details(details(self.view()))

    # Living long

    def _continues_as_new(self) -> bool:
        """It is time to, and nobody waits for an answer: it watches for as long as that takes."""
        if not self._should_continue_as_new():
            return False
        if workflow.patched(WATCHES_WHILE_ASKED):
            self.ending = True
            return workflow.all_handlers_finished()
        return True

    def _should_continue_as_new(self) -> bool:
        info = workflow.info()
        if self.events_before_new is not None:
            return info.get_current_history_length() >= self.events_before_new
        return info.is_continue_as_new_suggested()

    def _state(self) -> GuardianState:
        return GuardianState(
            cluster_id=self.cluster_id,
            statements=self.watches.statements,
            abstaining=self.watches.abstaining,
            changed_at=self.changed_at,
            history=self.history,
            last_result=self.last_result,
            pause=self.pause,
            watching_since=self.watching_since,
            failed=self.failed,
            regions=self.regions,
            own_run=self.runs.own,
            refused_for=self.refused_for,
            unrecorded=self.recorder.to_carry(),
            events_before_new=self.events_before_new,
        )
