"""The steady state of one run: asked before it acts, watched while it does, and asked again afterwards."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from temporalio import workflow
from temporalio.exceptions import ActivityError

from . import options
from .known import Known
from .progress import Progress

with workflow.unsafe.imports_passed_through():
    from activities.steady_state import SteadyReport, SteadyRequest, SteadyState
    from qnwis.continuity.run import DRY_RUN_MARK, FailoverRequest
    from qnwis.continuity.steady_state import Answer, DueProbe, Moment, SteadyReading

SHOWN_AT = {Moment.BEFORE: "execution", Moment.DURING: "execution", Moment.AFTER: "verification"}
"""The step below which each moment's readings stand."""


@dataclass
class SteadyWatch:
    """Reads the probes that the operator declared. What a breach does is not decided here."""

    request: FailoverRequest
    known: Known
    progress: Progress
    readings: list[SteadyReading] = field(default_factory=list)

    async def check(self, moment: Moment) -> SteadyReading | None:
        """How things stand at this moment: the reading that is a breach, if there is one."""
        if not (probes := self._probes) or self._only_named(moment):
            return None
        longest_s = max(probe.failures * (probe.every_s + probe.timeout_s) for probe in probes)
        try:
            report = await workflow.execute_activity_method(
                SteadyState.check_steady_state,
                self._asked(probes),
                **options.probe(f"steady state {moment}", longest_s),
            )
        except ActivityError as error:
            # What is not known to be steady is not: the caller decides, as over any breach.
            unknown = Answer(probe=probes[0].name, ok=False, detail=f"not known: {error.cause or error}")
            report = SteadyReport(answers=(unknown,), breach=unknown)
        for answer in report.answers:
            self._keep(moment, answer)
        return self._reading(moment, report.breach) if report.breach is not None else None

    @contextlib.asynccontextmanager
    async def watched(self, breached: Callable[[SteadyReading], None]) -> AsyncIterator[None]:
        """Watch while the body runs; a breach is told at most once. One long activity, which answers at the
        first breach, so that a history does not grow with the probes."""
        if not (probes := self._probes) or self._only_named(Moment.DURING):
            yield
            return
        watching = asyncio.create_task(self._watch(probes, breached))
        try:
            yield
        finally:
            watching.cancel()

    async def _watch(self, probes: tuple[DueProbe, ...], breached: Callable[[SteadyReading], None]) -> None:
        try:
            report = await workflow.execute_activity_method(
                SteadyState.watch_steady_state,
                self._asked(probes),
                **options.watch_steadily("steady state during the execution"),
            )
        except ActivityError:
            return  # of a watch that is over
        if report.breach is not None:
            self._keep(Moment.DURING, report.breach)
            breached(self._reading(Moment.DURING, report.breach))

    @property
    def _probes(self) -> tuple[DueProbe, ...]:
        return self.known.declared.steady_state

    def _only_named(self, moment: Moment) -> bool:
        """A dry run names the probes and asks none."""
        if self.request.dry_run:
            for probe in self._probes:
                would = f"{DRY_RUN_MARK} would probe {probe.name} {moment}"
                self.progress.remark(SHOWN_AT[moment], f"{moment} {probe.name}", would)
        return self.request.dry_run

    def _asked(self, probes: tuple[DueProbe, ...]) -> SteadyRequest:
        run_id = self.known.takeover.run_id
        return SteadyRequest(cluster_id=self.request.cluster_id, run_id=run_id, probes=probes)

    def _keep(self, moment: Moment, answer: Answer) -> None:
        reading = self._reading(moment, answer)
        self.readings.append(reading)
        mark = "☑" if reading.ok else "⚠"
        self.progress.remark(SHOWN_AT[moment], f"{moment} {answer.probe}", f"{mark} {reading}")

    @staticmethod
    def _reading(moment: Moment, answer: Answer) -> SteadyReading:
        return SteadyReading(moment=moment, probe=answer.probe, ok=answer.ok, detail=answer.detail)
