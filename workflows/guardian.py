"""The guardian of one cluster: an entity workflow that watches, decides by pure rules and starts the runbook.

It wakes when a vantage's watch returns (a node's status changed), a run ends, a person speaks, or a rule's
time is over. While nothing of that happens its history does not grow.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime, timedelta

from temporalio import workflow
from temporalio.exceptions import ApplicationError, ChildWorkflowError, WorkflowAlreadyStartedError

from . import options
from .guarded_runs import GuardedRuns
from .names import CLUSTER, KIND, guardian_id, vantage_queue

with workflow.unsafe.imports_passed_through():
    from pydantic import Field, ValidationError

    from activities.evidence import ClusterName, Evidence
    from activities.health import Health, NodeVote, WatchReport, WatchRequest
    from activities.past_runs import RunsReport
    from activities.planning import AssessRequest, Planning
    from qnwis.config.registry import Registered
    from qnwis.continuity.evidence import current_primary
    from qnwis.continuity.guardian_rules import (
        Decision,
        Hold,
        PastRun,
        Pause,
        Propose,
        Start,
        agreed_status,
        decide,
    )
    from qnwis.continuity.model import Identifier, Model
    from qnwis.continuity.run import Assessment, Detection, FailoverRequest, RunOutcome, RunResult
    from qnwis.continuity.topology import NodeStatus

HISTORY_KEPT = timedelta(hours=1)
RETRY_FIRST = timedelta(seconds=2)
RETRY_LONGEST = timedelta(minutes=5)


class PauseRequest(Model):
    """Switch automatic failover off."""

    by: str = Field(min_length=1)
    reason: str = Field(min_length=1)


class ResumeRequest(Model):
    """Switch automatic failover on again."""

    by: str = Field(min_length=1)
    reason: str = Field(min_length=1)


class GuardianState(Model):
    """All that a guardian knows; what it continues as new with. To start one, `cluster_id` is enough."""

    cluster_id: Identifier
    votes: Mapping[str, Mapping[str, NodeVote]] = {}
    """By vantage, then by node."""
    history: tuple[PastRun, ...] = ()
    pause: Pause | None = None
    watching_since: datetime | None = None
    events_before_new: int | None = None
    """Continue as new after this many events instead of at the server's suggestion (for tests)."""


class GuardianView(Model):
    """Answer of the `view` query."""

    cluster_id: str
    primary_node_id: str | None
    statuses: dict[str, NodeStatus]
    votes: Mapping[str, Mapping[str, NodeVote]]
    """By vantage, then by node, as of the last change of a status."""
    pause: Pause | None
    holding: str | None
    """Why a failed primary is not acted on now."""
    proposal: Assessment | None
    """Strategy manual: the plan for people."""
    last_result: RunResult | None
    history: tuple[PastRun, ...]


@workflow.defn(failure_exception_types=[ValidationError])
class Guardian:
    """Watches one cluster for as long as it exists."""

    registered: Registered
    primary_node_id: str | None = None
    holding: str | None = None
    proposal: Assessment | None = None
    last_result: RunResult | None = None

    @workflow.init
    def __init__(self, state: GuardianState | None = None) -> None:
        # Started without input it fails and says what is missing; a missing argument would retry for ever.
        state = state or GuardianState.model_validate({})
        self.cluster_id = state.cluster_id
        self.votes = dict(state.votes)
        self.statuses: dict[str, NodeStatus] = {}
        self.history = list(state.history)
        self.pause = state.pause
        self.watching_since = state.watching_since or workflow.now()
        self.events_before_new = state.events_before_new
        self.watches: dict[str, asyncio.Task[WatchReport]] = {}
        self.runs = GuardedRuns(self.cluster_id)
        self.woken = False
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
        await self._look_around()
        await self.runs.watch(self._learn_of_runs)
        while not self._should_continue_as_new():
            self._watch()
            unfinished = self.runs.to_finish()
            if unfinished is not None:
                await self._see_through(unfinished)
            else:
                await self._act(self._decide())
            await self._next_event()
        await self._stop_watching()
        await workflow.wait_condition(workflow.all_handlers_finished)
        workflow.continue_as_new(self._state())

    # Seeing

    async def _look_around(self) -> None:
        """Load what is registered, and learn from the agents who the primary is."""
        name = ClusterName(cluster_id=self.cluster_id)
        self.registered = await workflow.execute_activity_method(
            Evidence.load_cluster, name, **options.read("registered topology and policy")
        )
        evidence = await workflow.execute_activity_method(
            Evidence.collect, self.registered.cluster, **options.read("who is the primary")
        )
        self.primary_node_id = current_primary(self.registered.cluster, evidence)

    def _watch(self) -> None:
        """Keep one watch going per vantage."""
        for vantage in self.registered.cluster.vantages:
            if vantage in self.watches:
                continue
            known = {node_id: vote.detector for node_id, vote in self.votes.get(vantage, {}).items()}
            self.watches[vantage] = asyncio.create_task(
                workflow.execute_activity_method(
                    Health.watch,
                    WatchRequest(cluster_id=self.cluster_id, vantage=vantage, detectors=known),
                    **options.watch(f"watch from {vantage}", vantage_queue(vantage)),
                )
            )

    async def _next_event(self) -> None:
        """Wait until something happened, and take it in."""
        timeout = None
        if self.retry_at is not None:
            timeout = max(timedelta(0), self.retry_at - workflow.now())
        self._show()
        try:
            await workflow.wait_condition(
                self._something_happened, timeout=timeout, timeout_summary="a rule's time is over"
            )
        except TimeoutError:
            self.retry_at = None
        self.woken = False
        for vantage, watch in list(self.watches.items()):
            if watch.done():
                del self.watches[vantage]
                await self._take_in(watch.result())

    def _something_happened(self) -> bool:
        return self.woken or any(watch.done() for watch in self.watches.values())

    async def _take_in(self, report: WatchReport) -> None:
        self.votes[report.vantage] = report.votes
        self.retry_at, self.retry_after = None, RETRY_FIRST
        if report.cluster_changed or self.primary_node_id is None:
            await self._look_around()

    async def _learn_of_runs(self, report: RunsReport) -> None:
        """Runs count whoever started them, and whoever was the guardian then."""
        known = {run.run_id for run in self.history}
        for run in reversed(report.recent):
            self._remember(run)
        if report.unfinished is not None or any(r.moved and r.run_id not in known for r in self.history):
            await self._look_around()
            self.woken = True

    # Deciding

    def _agreed(self) -> dict[str, NodeStatus]:
        said = {
            vantage: {node_id: vote.detector.status for node_id, vote in votes.items()}
            for vantage, votes in self.votes.items()
        }
        return agreed_status(said, len(self.registered.cluster.vantages))

    def _decide(self) -> Decision:
        self.statuses = self._agreed()
        return decide(
            policy=self.registered.policy,
            primary_node_id=self.primary_node_id,
            statuses=self.statuses,
            history=self.history,
            pause=self.pause,
            watching_since=self.watching_since,
            now=workflow.now(),
        )

    # Acting

    async def _act(self, decision: Decision) -> None:
        self.holding = None
        match decision:
            case Start():
                await self._see_through(self._request())
            case Propose():
                await self._propose()
            case Hold(refusal=refusal, until=until):
                self.holding = str(refusal)
                self.retry_at = until
            case _:
                self.proposal = None

    async def _see_through(self, request: FailoverRequest) -> None:
        """Have a run under the cluster's lock and wait for its end, watching meanwhile."""
        try:
            run = await self.runs.start(request)
        except WorkflowAlreadyStartedError:
            self._try_again_later("a run holds the cluster's lock")
            return
        try:
            result = await run
        except ChildWorkflowError as error:
            self._try_again_later(f"the run ended without a result: {error.cause or error}")
            return
        # First the new primary, so that a view never shows the run's result beside the old one.
        await self._look_around()
        self.last_result = result
        self._remember(PastRun(run_id=result.run_id, outcome=result.outcome, ended_at=result.ended_at))
        if result.outcome is not RunOutcome.COMPLETED:
            self._try_again_later(result.reason)

    def _request(self) -> FailoverRequest:
        assert self.primary_node_id is not None
        votes = {
            v: nodes[self.primary_node_id] for v, nodes in self.votes.items() if self.primary_node_id in nodes
        }
        failed = {v: vote for v, vote in votes.items() if vote.detector.status is NodeStatus.FAILED}
        seen_from = ", ".join(sorted(failed))
        misses = max(vote.detector.consecutive_misses for vote in failed.values())
        return FailoverRequest(
            cluster_id=self.cluster_id,
            initiated_by=guardian_id(self.cluster_id),
            reason=f"{self.primary_node_id} failed: {misses} misses in a row from {seen_from}",
            automatic=True,
            detection=Detection(
                node_id=self.primary_node_id,
                vantages=tuple(sorted(failed)),
                misses=misses,
                first_miss_at=min(
                    (v.first_miss_at for v in failed.values() if v.first_miss_at), default=None
                ),
                detected_at=workflow.now(),
            ),
        )

    async def _propose(self) -> None:
        """Strategy manual: make the plan and show it; a person executes it."""
        evidence = await workflow.execute_activity_method(
            Evidence.collect, self.registered.cluster, **options.read("evidence for a proposal")
        )
        request = self._request().model_copy(update={"automatic": False})
        self.proposal = await workflow.execute_activity_method(
            Planning.assess,
            AssessRequest(
                request=request,
                cluster=self.registered.cluster,
                policy=self.registered.policy,
                evidence=evidence,
            ),
            **options.read("propose a plan"),
        )
        self.holding = (
            f"strategy manual: {self.primary_node_id} failed; a plan is proposed and waits for a person"
            " (qnwis-continuity execute)"
        )

    def _try_again_later(self, why: str) -> None:
        """The same failed primary may be acted on later, ever less often, so that history stays small."""
        self.holding = why
        self.retry_at = workflow.now() + self.retry_after
        self.retry_after = min(self.retry_after * 2, RETRY_LONGEST)

    def _remember(self, run: PastRun) -> None:
        oldest = workflow.now() - max(HISTORY_KEPT, timedelta(seconds=self.registered.policy.cooldown_s))
        self.history = [r for r in self.history if r.ended_at >= oldest and r.run_id != run.run_id] + [run]

    # Being spoken to

    @workflow.signal(description="A run that this guardian did not start has ended")
    async def run_ended(self, run: PastRun) -> None:
        self._remember(run)
        await self._look_around()
        self.woken = True

    @workflow.signal(description="Switch automatic failover off: {by, reason}")
    def pause_failover(self, request: PauseRequest) -> None:
        self.pause = Pause(by=request.by, reason=request.reason, since=workflow.now())
        self.woken = True

    @workflow.signal(description="Switch automatic failover on again: {by, reason}")
    def resume_failover(self, request: ResumeRequest) -> None:
        self.pause = None
        self.woken = True

    @workflow.query(description="What this guardian knows and why it does or does not act")
    def view(self) -> GuardianView:
        return GuardianView(
            cluster_id=self.cluster_id,
            primary_node_id=self.primary_node_id,
            statuses=self.statuses,
            votes=self.votes,
            pause=self.pause,
            holding=self.holding,
            proposal=self.proposal,
            last_result=self.last_result,
            history=tuple(self.history),
        )

    def _show(self) -> None:
        lines = [f"Primary: **{self.primary_node_id or 'unknown'}**", ""]
        lines += [f"- {node_id}: {status.value}" for node_id, status in sorted(self.statuses.items())]
        if self.pause is not None:
            lines += [
                "",
                f"**Paused** by {self.pause.by} since {self.pause.since:%F %T} UTC: {self.pause.reason}",
            ]
        if self.holding is not None:
            lines += ["", f"**Not acting**: {self.holding}"]
        workflow.set_current_details("\n".join(lines))

    # Living long

    def _should_continue_as_new(self) -> bool:
        info = workflow.info()
        if self.events_before_new is not None:
            return info.get_current_history_length() >= self.events_before_new
        return info.is_continue_as_new_suggested()

    async def _stop_watching(self) -> None:
        for watch in self.watches.values():
            watch.cancel()
        await asyncio.gather(*self.watches.values(), return_exceptions=True)
        await self.runs.stop_watching()

    def _state(self) -> GuardianState:
        return GuardianState(
            cluster_id=self.cluster_id,
            votes=self.votes,
            history=tuple(self.history),
            pause=self.pause,
            watching_since=self.watching_since,
            events_before_new=self.events_before_new,
        )
