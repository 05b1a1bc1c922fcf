"""The guardian of one region: it judges by what the clusters' guardians hold, and tells people of a loss.

It moves nothing by itself: leaving a region is decided by people (`region evacuate`). It wakes when a
cluster's guardian holds something else, or when the time of a rule is over; meanwhile its history does not
grow.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from datetime import datetime, timedelta

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError

from . import options
from .details import show_details
from .names import CLUSTER, KIND, guardian_id, region_guardian_id

with workflow.unsafe.imports_passed_through():
    from pydantic import ValidationError

    from activities.notification import Notifications
    from activities.regions import RegionReport, Regions, WatchRegion
    from qnwis.continuity.model import Identifier, Model
    from qnwis.continuity.notifications import Notification, RunEvent
    from qnwis.continuity.regions import RegionFinding, RegionVerdict, decides_at, judge_region


class RegionGuardianState(Model):
    """All that it knows; what it continues as new with. To start one, `region` is enough."""

    region: Identifier
    report: RegionReport | None = None
    verdict: RegionVerdict | None = None
    told: datetime | None = None
    """Since when the loss lasts that people were told of; None when they know of none."""


class RegionView(Model):
    """Answer of the `view` query."""

    region: str
    verdict: RegionVerdict | None
    """None until the clusters' guardians have been asked."""
    primaries_inside: tuple[str, ...] = ()
    """cluster_ids."""
    silent: Mapping[str, str] = {}
    """Clusters of which nothing is known, and why."""


@workflow.defn(failure_exception_types=[ValidationError])
class RegionGuardian:
    """Watches one region for as long as it exists."""

    @workflow.init
    def __init__(self, state: RegionGuardianState | None = None) -> None:
        # Started without input it fails and says what is missing; a missing argument would retry for ever.
        self.state = state or RegionGuardianState.model_validate({})

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
        watch = self._watch()
        while not workflow.info().is_continue_as_new_suggested():
            await self._until_something_happens(watch)
            if watch.done():
                self._know(report=watch.result())
                watch = self._watch()
            if self.state.report is not None:
                self._judge(self.state.report)
                await self._tell()
            self._show()
        watch.cancel()
        await asyncio.gather(watch, return_exceptions=True)
        workflow.continue_as_new(self.state)

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
        with contextlib.suppress(TimeoutError):
            await workflow.wait_condition(
                watch.done,
                timeout=None if at is None else max(timedelta(0), at - workflow.now()),
                timeout_summary="the time that a loss must last, or must be over",
            )

    def _judge(self, report: RegionReport) -> None:
        verdict = judge_region(
            self.state.region, report.clusters, report.rules, self.state.verdict, workflow.now()
        )
        self._know(verdict=verdict)

    async def _tell(self) -> None:
        """Tell people of a loss once, and of its end."""
        verdict, told, region = self.state.verdict, self.state.told, self.state.region
        assert verdict is not None, "it was just made"
        if verdict.finding is RegionFinding.LOST and told is None:
            inside = ", ".join(self._primaries_inside) or "no cluster"
            await self._notify(
                f"{region} is lost",
                f"{verdict.why}. Primaries in it: {inside}\n"
                f"to see the plan, type: qnwis-continuity region evacuate {region} --reason … --dry-run",
            )
            self._know(told=verdict.since)
        elif verdict.finding is RegionFinding.WELL and told is not None:
            await self._notify(f"{region} is well again", verdict.why)
            self._know(told=None)

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
        show_details("\n".join(lines))
