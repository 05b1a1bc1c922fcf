"""The guardian of one region: it judges by what the clusters' guardians hold, tells them and people of a
loss, and begins the evacuation of clusters whose policy says so.

Where `region_strategy` is `manual`, as it is unless set, leaving a region is decided by people (`region
evacuate`). It wakes when a cluster's guardian holds something else, when the time of a rule is over, or when
an evacuation has ended; meanwhile its history does not grow. Started anew, it first takes up the evacuation
that goes on, or the last one that a guardian had begun: one loss is answered once.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from datetime import datetime, timedelta

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError, WorkflowAlreadyStartedError

from . import options
from .details import show_details
from .guarded_evacuation import GuardedEvacuation
from .names import CLUSTER, KIND, guardian_id, region_guardian_id
from .versioning import FOLLOWS

with workflow.unsafe.imports_passed_through():
    from pydantic import ValidationError

    from activities.notification import Notifications
    from activities.regions import RegionReport, Regions, WatchRegion
    from qnwis.continuity.model import Identifier, Model
    from qnwis.continuity.notifications import Notification, RunEvent
    from qnwis.continuity.refusal import Refusal
    from qnwis.continuity.region_adoption import follows_upon, is_over
    from qnwis.continuity.region_decision import Begun, Evacuate, decide_region, lock_taken, to_tell
    from qnwis.continuity.region_run import EvacuateRequest
    from qnwis.continuity.region_wait import RegionFinding, RegionWord
    from qnwis.continuity.regions import RegionVerdict, decides_at, judge_region
    from qnwis.continuity.run import RunOutcome

TAKES_UP = "the guardian of a region takes up an evacuation that was begun before"
"""Patch: before, one that was started anew knew of none."""
TRIES_AGAIN = "an evacuation that finds the region's lock with a failback is tried again"
"""Patch: before, it counted as begun, until the region was well."""
AGAIN, AGAIN_LONGEST = timedelta(seconds=5), timedelta(minutes=2)
"""The first pause before it is tried again, and the longest; each is twice the one before."""

GOES_ON_AS_NEW = "the guardian of a region continues as new while an evacuation goes on"
"""Patch: before, it did so only once that had ended. A report of hundreds of clusters is long, and there is
one every few seconds while they are moved."""
TRIES_AGAIN_AS_NEW = "the guardian of a region that continues as new tries again what could not begin"
"""Patch: before, it waited for a report that says something else, and a region that stays lost has none."""


class RegionGuardianState(Model):
    """All that it knows; what it continues as new with. To start one, `region` is enough."""

    region: Identifier
    report: RegionReport | None = None
    verdict: RegionVerdict | None = None
    told: datetime | None = None
    """Since when the loss lasts that people were told of; None when they know of none."""
    begun: Begun | None = None
    """The evacuation for the present loss."""


class RegionView(Model):
    """Answer of the `view` query."""

    region: str
    verdict: RegionVerdict | None
    """None until the clusters' guardians have been asked."""
    primaries_inside: tuple[str, ...] = ()
    """cluster_ids."""
    silent: Mapping[str, str] = {}
    """Clusters of which nothing is known, and why."""
    holding: str | None = None
    """Why no evacuation of a lost region begins by itself, and what a person types."""
    begun: Begun | None = None
    """The evacuation for the present loss."""


@workflow.defn(failure_exception_types=[ValidationError], versioning_behavior=FOLLOWS)
class RegionGuardian:
    """Watches one region for as long as it exists."""

    @workflow.init
    def __init__(self, state: RegionGuardianState | None = None) -> None:
        # Started without input it fails and says what is missing; a missing argument would retry for ever.
        self.state = state or RegionGuardianState.model_validate({})
        self.holding: str | None = None
        self.evacuation = GuardedEvacuation(self.state.region, self._take_in_the_end)
        self.again_at: datetime | None = None
        """When an evacuation that could not begin is tried again."""
        self.again_after = AGAIN
        self.told_before = False
        """Whether the guardian that began what this one took up had told people of the loss."""

    @workflow.run
    async def run(self, state: RegionGuardianState | None = None) -> None:
        region = self.state.region
        if workflow.info().workflow_id != (expected := region_guardian_id(region)):
            raise ApplicationError(
                f"workflow id is {workflow.info().workflow_id!r}; expected {expected!r}",
                type="wrong_workflow_id",
                non_retryable=True,
            )
        workflow.upsert_search_attributes(
            [CLUSTER.value_set(region), KIND.value_set("region_guardian")],
        )
        await self._take_up()
        watch = self._watch()
        while not self._is_to_continue_as_new():
            await self._until_something_happens(watch)
            if watch.done():
                self._know(report=watch.result())
                watch = self._watch()
            self.evacuation.let_go()
            if self.state.report is not None:
                self._judge(self.state.report)
                if self.state.report.hears:
                    await self._tell_clusters(self.state.report)
                begins = await self._decide(self.state.report)
                await self._tell(begins)
            self._show()
        watch.cancel()
        await asyncio.gather(watch, return_exceptions=True)
        workflow.continue_as_new(self.state)

    async def _take_up(self) -> None:
        """What was begun before a guardian that is started anew; one that continues as new knows it, and has
        to follow it only. What it had been about to try again, it tries at once."""
        begun = self.state.begun
        if self.state.report is not None and begun is not None and begun.goes_on:
            assert begun.run_id is not None, "one that goes on has a run"
            self.evacuation.follow(begun.run_id)
        if self._leaves_a_loss_unanswered() and workflow.patched(TRIES_AGAIN_AS_NEW):
            self.again_at = workflow.now()
        if self.state.report is not None or not workflow.patched(TAKES_UP):
            return
        if (found := await self.evacuation.take_up()) is not None:
            self._know(begun=found.begun)
            self.told_before = found.told

    def _leaves_a_loss_unanswered(self) -> bool:
        """Whether the one that continued as this found the region lost, and had begun nothing. It may have
        been because the policy leaves that to people, which is decided again."""
        report, verdict = self.state.report, self.state.verdict
        lost = verdict is not None and verdict.finding is RegionFinding.LOST
        return report is not None and lost and self.state.begun is None

    def _is_to_continue_as_new(self) -> bool:
        if not workflow.info().is_continue_as_new_suggested():
            return False
        return not self.evacuation.goes_on or workflow.patched(GOES_ON_AS_NEW)

    def _watch(self) -> asyncio.Task[RegionReport]:
        asked = WatchRegion(
            region=self.state.region, guardian=guardian_id("{cluster_id}"), seen=self.state.report
        )
        return asyncio.create_task(
            workflow.execute_activity_method(
                Regions.watch_region, asked, **options.watch_runs("what the clusters' guardians hold")
            )
        )

    async def _until_something_happens(self, watch: asyncio.Task[RegionReport]) -> None:
        """A report, or the end of a time that the verdict waits for."""
        report, verdict = self.state.report, self.state.verdict
        at = decides_at(verdict, report.rules) if report is not None and verdict is not None else None
        if self.again_at is not None:
            at = self.again_at if at is None else min(at, self.again_at)
        with contextlib.suppress(TimeoutError):
            await workflow.wait_condition(
                lambda: watch.done() or self.evacuation.has_ended,
                timeout=None if at is None else max(timedelta(0), at - workflow.now()),
                timeout_summary="the time that a loss must last, or must be over, or before another try",
            )

    def _judge(self, report: RegionReport) -> None:
        state, goes_on = self.state, self.evacuation.goes_on
        after = follows_upon(state.region, state.begun, state.verdict, report.clusters, goes_on=goes_on)
        if after.verdict is not state.verdict and self.told_before:
            self._know(told=after.begun.since if after.begun is not None else None)
        verdict = judge_region(state.region, report.clusters, report.rules, after.verdict, workflow.now())
        over = is_over(after, verdict, report.clusters, goes_on=goes_on)
        self._know(verdict=verdict, begun=None if over else after.begun)

    async def _tell_clusters(self, report: RegionReport) -> None:
        """Have the clusters' guardians wait for this one, or wait no longer."""
        verdict = self._verdict
        word = RegionWord(region=verdict.region, finding=verdict.finding, why=verdict.why)
        registered = len(report.clusters) + len(report.silent)
        ids = to_tell(verdict, report.clusters, report.rules, registered)
        await asyncio.gather(*(self._tell_cluster(cluster_id, word) for cluster_id in ids))

    async def _tell_cluster(self, cluster_id: str, word: RegionWord) -> None:
        with contextlib.suppress(ApplicationError):  # its guardian was ended meanwhile
            guardian = workflow.get_external_workflow_handle(guardian_id(cluster_id))
            await guardian.signal("region_word", word)

    async def _decide(self, report: RegionReport) -> Evacuate | None:
        """Begin the evacuation, if it is this guardian's to begin; else keep in mind why not."""
        decision = None
        if report.hears:
            decision = decide_region(self._verdict, report.clusters, report.rules, self.state.begun)
        self.holding = str(decision) if isinstance(decision, Refusal) else None
        if not isinstance(decision, Evacuate):
            self.again_at, self.again_after = None, AGAIN
            return None
        if self.again_at is None or workflow.now() >= self.again_at:
            self.again_at = None
            await self._evacuate(decision)
        if self.again_at is not None:
            self.holding = str(lock_taken(self.state.region, decision.clusters))
            return None
        return decision

    async def _evacuate(self, decision: Evacuate) -> None:
        """One run, under the region's lock; one that somebody has begun already is left to do it, if it does:
        one that brings clusters back into the region does not, and what is past answers no new loss."""
        since = self._verdict.since
        assert since is not None, "a lost region is lost since a moment"
        begun = Begun(since=since, clusters=decision.clusters)
        request = EvacuateRequest(
            region=self.state.region,
            initiated_by=region_guardian_id(self.state.region),
            reason=decision.why,
            clusters=decision.clusters,
            automatic=True,
            verdict=self._verdict,
        )
        try:
            run_id = await self.evacuation.begin(request)
        except WorkflowAlreadyStartedError:
            found = await self.evacuation.take_up() if workflow.patched(TAKES_UP) else None
            if (found is None or not found.goes_on) and workflow.patched(TRIES_AGAIN):
                self.again_at = workflow.now() + self.again_after
                self.again_after = min(2 * self.again_after, AGAIN_LONGEST)
                return
            if found is not None:
                begun = found.begun.model_copy(update={"since": since})
            self._know(begun=begun)
            return
        self._know(begun=begun.model_copy(update={"run_id": run_id}))

    def _take_in_the_end(self, outcome: RunOutcome | None, reason: str) -> None:
        if self.state.begun is not None:
            news = {"outcome": outcome, "reason": reason}
            self._know(begun=self.state.begun.model_copy(update=news))

    async def _tell(self, begins: Evacuate | None) -> None:
        """Tell people of a loss once, and of its end."""
        verdict, told, region = self._verdict, self.state.told, self.state.region
        if verdict.finding is RegionFinding.LOST and told is None:
            inside = ", ".join(self._primaries_inside) or "no cluster"
            await self._notify(
                f"{region} is lost", f"{verdict.why}. Primaries in it: {inside}\n{self._what_follows(begins)}"
            )
            self._know(told=verdict.since)
        elif verdict.finding is RegionFinding.WELL and told is not None:
            await self._notify(f"{region} is well again", verdict.why)
            self._know(told=None)

    def _what_follows(self, begins: Evacuate | None) -> str:
        region = self.state.region
        by_hand = f"to see the plan, type: qnwis-continuity region evacuate {region} --reason … --dry-run"
        if begins is None:
            return by_hand if self.holding is None else f"{self.holding}\n{by_hand}"
        lines = [f"their evacuation begins by itself: {', '.join(begins.clusters)}"]
        lines += [f"{cluster_id} stays: {why}" for cluster_id, why in begins.left.items()]
        return "\n".join([*lines, by_hand] if begins.left else lines)

    async def _notify(self, title: str, text: str) -> None:
        notification = Notification(
            cluster_id=self.state.region,
            run_id=workflow.info().workflow_id,
            event=RunEvent.REGION_LOST,
            about=f"{title} {workflow.now().isoformat()}",
            title=title,
            text=text,
        )
        with contextlib.suppress(ActivityError):  # a channel that fails blocks nothing
            await workflow.execute_activity_method(
                Notifications.notify, notification, **options.notify(title)
            )

    @property
    def _verdict(self) -> RegionVerdict:
        assert self.state.verdict is not None, "it was just made"
        return self.state.verdict

    @property
    def _primaries_inside(self) -> tuple[str, ...]:
        report = self.state.report
        return () if report is None else tuple(c.cluster_id for c in report.clusters if c.primary_inside)

    def _know(self, **news: object) -> None:
        self.state = self.state.model_copy(update=news)

    @workflow.query(description="Whether the region counts as lost, and why")
    def view(self) -> RegionView:
        return RegionView(
            region=self.state.region,
            verdict=self.state.verdict,
            primaries_inside=self._primaries_inside,
            silent=self.state.report.silent if self.state.report is not None else {},
            holding=self.holding,
            begun=self.state.begun,
        )

    def _show(self) -> None:
        verdict, report = self.state.verdict, self.state.report
        if verdict is None or report is None:
            return
        lines = [f"**{verdict.region}: {verdict.finding.value}** ({verdict.why})", ""]
        for cluster in report.clusters:
            here = "primary here; " if cluster.primary_inside else ""
            nodes = ", ".join(f"{n} {f.value}" for n, f in cluster.findings.items()) or "nothing known yet"
            lines.append(f"- {cluster.cluster_id}: {here}{nodes}")
        lines += [f"- {cluster_id}: {why}" for cluster_id, why in report.silent.items()]
        if self.holding is not None:
            lines += ["", f"**Not acting**: {self.holding}"]
        show_details("\n".join(lines))
