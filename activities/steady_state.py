"""Probing the steady state: until it is clear how things stand, or for as long as they stand well."""

from __future__ import annotations

import asyncio
from pathlib import Path

from temporalio import activity

from qnwis.config.hooks import FILE, load_hooks
from qnwis.config.problem import ConfigError
from qnwis.continuity.model import Model
from qnwis.continuity.steady_state import Answer, DueProbe, Streaks
from qnwis.providers.calls import Caller

from .effect import heartbeating


class SteadyRequest(Model):
    cluster_id: str
    run_id: str
    probes: tuple[DueProbe, ...]


class SteadyReport(Model):
    answers: tuple[Answer, ...] = ()
    """The last one of each probe."""
    breach: Answer | None = None


class SteadyState:
    def __init__(self, config_dir: Path, caller: Caller) -> None:
        self._file = config_dir / FILE
        self._caller = caller

    @activity.defn
    async def check_steady_state(self, asked: SteadyRequest) -> SteadyReport:
        """Ask until every probe has given a good answer or one is in breach."""
        async with heartbeating():
            return await self._until(asked, calm=True)

    @activity.defn
    async def watch_steady_state(self, asked: SteadyRequest) -> SteadyReport:
        """Ask until there is a breach, or until nobody wants to know any more (a cancel)."""
        async with heartbeating():
            return await self._until(asked, calm=False)

    async def _until(self, asked: SteadyRequest, *, calm: bool) -> SteadyReport:
        """Each probe at its own pace; `calm`: good answers of all of them are an end, too."""
        streaks, answers = Streaks(), asyncio.Queue[Answer]()
        asking = [asyncio.create_task(self._ask_on(probe, asked, answers)) for probe in asked.probes]
        try:
            while True:
                streaks = streaks.observe(await answers.get())
                breach = streaks.breach(asked.probes)
                if breach is not None or (calm and streaks.settled(asked.probes)):
                    return SteadyReport(answers=tuple(streaks.last.values()), breach=breach)
        finally:
            for task in asking:
                task.cancel()
            # Each ends its own call, a command's process group with it.
            await asyncio.gather(*asking, return_exceptions=True)

    async def _ask_on(self, due: DueProbe, asked: SteadyRequest, answers: asyncio.Queue[Answer]) -> None:
        while True:
            await answers.put(await self._ask(due, asked))
            await asyncio.sleep(due.every_s)

    async def _ask(self, due: DueProbe, asked: SteadyRequest) -> Answer:
        try:
            file = await asyncio.to_thread(load_hooks, self._file)
        except ConfigError as error:
            return Answer(probe=due.name, ok=False, detail=f"{FILE} cannot be used: {error}")
        probe = file.probe(due.name)
        if probe is None:
            return Answer(probe=due.name, ok=False, detail=f"{FILE} of this worker has no probe {due.name}")
        told = {"cluster_id": asked.cluster_id, "run_id": asked.run_id, "probe": due.name}
        came = await self._caller.make(
            probe,
            told,
            {f"QNWIS_{name.upper()}": value for name, value in told.items()},
            default_method="GET",
            idempotency_key=None,
            timeout_s=due.timeout_s,
        )
        late = probe.within_ms is not None and came.duration_ms > probe.within_ms
        detail = f"{came.detail} after {came.duration_ms:.0f} ms" + (
            f", not within {probe.within_ms:g} ms" if late else ""
        )
        return Answer(probe=due.name, ok=came.ok and not late, detail=detail)
