"""One number of clusters: brought up, held, struck, evacuated."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import httpx
from temporalio.client import WorkflowFailureError
from temporalio.service import RPCError, RPCStatusCode

from qnwis.continuity.metrics import HEALTH_CHECK_ERRORS
from qnwis.continuity.region_run import EvacuateRequest
from qnwis.lab.errors import LabError
from qnwis.starting import say_to_guardian, start_evacuation, start_guardian
from workflows.guardian import Guardian
from workflows.guardian_state import GuardianView, PauseRequest
from workflows.names import failover_id, guardian_id
from workflows.primary_failure import PrimaryFailure

from .bed import Bed, Idle, Say, Stopwatch
from .control import How
from .cost import memory
from .figures import Evacuation, Figures, Party, Started, Steady
from .world import MANY, NODES, ONE, WAVE, at_home_in, cluster_id, node_id

AT_ONCE = 8
"""Questions to Temporal that wait at the same time."""
SETTLE_S = 10.0
"""Between what the bench asks of Temporal and what it measures."""
SCRAPE_EVERY_S = 15.0
PROMETHEUS = {"accept": "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.4"}
"""What it asks for, and packed with gzip, as httpx does."""
STRIKES = 50
STRIKE_EVERY_S = 1.2
"""On average; the moments are random."""
FOUND_AFTER_S = 9.0
"""No run starts earlier: two intervals of 5 s less their jitter have to pass."""
START_WITHIN_S, END_WITHIN_S = 90.0, 120.0
FOUND_WITHIN_S = 180.0
"""By then every guardian must have found that the nodes of a lost region are failed."""
LOST = (0, 1)
"""Indices of a cluster's nodes in its home region, the primary's first."""
LEFT_WITHIN_S = 300.0
BY = "bench-scale"
T = TypeVar("T")
U = TypeVar("U")


@dataclass(frozen=True)
class Plan:
    """What is done with each number of clusters."""

    seconds: float
    """How long nothing happens while it is measured."""
    region_up_to: int
    """Regions are lost where no more clusters are held; 0 for nowhere."""
    wave_size: int
    how: How
    """In what way primaries fail."""
    ready_within_s: float
    seed: int


async def measured(bed: Bed, clusters: int, plan: Plan, say: Say) -> Figures:
    """All of it, as far as it goes; what goes wrong is said in the figures."""
    figures = Figures(clusters=clusters, load=os.getloadavg()[0])
    try:
        figures = await _ready(bed, figures, plan, say)
        steady = await _steady(bed, clusters, plan.seconds)
        say(_in_words(steady))
        figures = figures.model_copy(update={"steady": steady})
        if figures.ready < clusters:
            return figures
        say(f"{clusters} clusters are held; primaries fail")
        starts = await _strikes(bed, clusters, plan)
        say(f"{sum(one.outcome == 'completed' for one in starts)} of {len(starts)} failovers completed")
        figures = figures.model_copy(update={"starts": starts})
        for region in (ONE, WAVE, MANY) if clusters <= plan.region_up_to else ():
            if at_home_in(region, clusters, plan.wave_size):
                left = await _evacuation(bed, region, clusters, plan)
                say(f"region {region}: {left.moved} of {left.clusters} clusters in {left.took_s:.1f} s")
                figures = figures.model_copy(update={"evacuations": (*figures.evacuations, left)})
        figures = await _taken_over(bed, figures, plan, say)
    except (LabError, RPCError, httpx.HTTPError, TimeoutError) as error:
        figures = figures.model_copy(update={"problem": f"{type(error).__name__}: {error}"})
    return figures


STARTED_EVERY_S = 0.15
"""Between two guardians. A thousand that begin at once keep both cores busy for longer than their first calls
have time, and those are made again and again."""


# Until all is well


async def _ready(bed: Bed, figures: Figures, plan: Plan, say: Say) -> Figures:
    """Start a guardian for each cluster, and wait until each has seen all its nodes healthy."""
    clusters, began = figures.clusters, time.monotonic()
    for number in range(clusters):
        await start_guardian(bed.client, cluster_id(number))
        await asyncio.sleep(max(0.0, began + (number + 1) * STARTED_EVERY_S - time.monotonic()))
    say(f"{clusters} guardians are started, in {time.monotonic() - began:.1f} s")
    waiting, heard = await _until_all_is_well(bed, clusters, began + plan.ready_within_s)
    found: dict[str, object] = {"ready": clusters - waiting}
    if waiting:
        found["problem"] = (
            f"{waiting} of {clusters} guardians do not see every node within {plan.ready_within_s:g} s"
            f" ({heard} of {clusters * NODES} nodes were asked)"
        )
    else:
        found["ready_s"] = time.monotonic() - began
    return figures.model_copy(update=found)


async def _until_all_is_well(bed: Bed, clusters: int, deadline: float) -> tuple[int, int]:
    """Guardians that do not see all their nodes healthy by then, by the monotonic clock, and nodes that were
    asked."""
    counts = await bed.control.counts()
    while not counts.heard_twice == counts.streams == counts.nodes and time.monotonic() < deadline:
        bed.check()
        await asyncio.sleep(1.0)
        counts = await bed.control.counts()
    waiting = set(range(clusters))
    # Each is asked only once all nodes were; the question costs a worker that is behind even more.
    while waiting and counts.heard_twice == counts.nodes and time.monotonic() < deadline:
        seen = await _for_each(sorted(waiting), lambda n: _sees_all(bed, n))
        waiting -= {number for number, all_healthy in seen if all_healthy}
        await asyncio.sleep(2.0 if waiting else 0)
    return len(waiting), counts.heard


async def _sees_all(bed: Bed, number: int) -> tuple[int, bool]:
    """Whether the cluster's guardian calls every node healthy."""
    view = await _view(bed, number)
    healthy = [status for status in view.statuses.values() if status == "healthy"] if view else []
    return number, view is not None and len(healthy) == NODES and not view.abstaining


async def _view(bed: Bed, number: int) -> GuardianView | None:
    """None where the guardian does not answer now."""
    guardian = bed.client.get_workflow_handle_for(Guardian.run, guardian_id(cluster_id(number)))
    try:
        return await guardian.query(Guardian.view, rpc_timeout=timedelta(seconds=5))
    except RPCError:
        return None


# While nothing happens


async def _steady(bed: Bed, clusters: int, seconds: float) -> Steady:
    errors_before = await _errors(bed)
    looked_before, before = time.monotonic(), await _lengths(bed, clusters)
    await asyncio.sleep(SETTLE_S)
    await bed.control.mark()
    worker, temporal, agents = (Stopwatch(started.pid) for started in (bed.worker, bed.temporal, bed.agents))
    began = time.monotonic()
    async with _scraped(bed) as scrapes_s:
        await asyncio.sleep(seconds)
    took_s = time.monotonic() - began
    spent = [watch.cpu_s() for watch in (worker, temporal, agents)]
    counts = await bed.control.counts()
    bed.check()
    hours = (time.monotonic() - looked_before) / 3600
    after = await _lengths(bed, clusters)
    errors = await _errors(bed)
    grown = [after[number] - before[number] for number in before]
    return Steady(
        seconds=took_s,
        counts=counts,
        errors={kind: n for kind in errors if (n := errors[kind] - errors_before[kind]) > 0},
        worker=_party(bed.worker.pid, spent[0], bed.idle_worker, took_s),
        temporal=_party(bed.temporal.pid, spent[1], bed.idle_temporal, took_s),
        agents_cpu_s=spent[2],
        scrape_s=max(scrapes_s, default=None),
        events=sum(grown),
        grown=sum(n > 0 for n in grown),
        hours=hours,
    )


def _in_words(steady: Steady) -> str:
    counts, us = steady.counts, steady.us_per_probe
    return (
        f"{counts.probes / steady.seconds:.0f} questions a second, {us or 0:.0f} µs each, {counts.late} late,"
        f" worker {steady.worker.cpu_s / steady.seconds:.2f} cores,"
        f" Temporal {steady.temporal.cpu_s / steady.seconds:.2f} cores"
    )


def _party(pid: int, spent_s: float, idle: Idle, seconds: float) -> Party:
    return Party(
        cpu_s=spent_s,
        idle_cpu_s=idle.cores * seconds,
        memory=memory(pid),
        idle_memory=idle.memory,
    )


async def _lengths(bed: Bed, clusters: int) -> dict[int, int]:
    """Events in each guardian's history."""

    async def length(number: int) -> int:
        described = await bed.client.get_workflow_handle(guardian_id(cluster_id(number))).describe()
        return described.history_length

    return dict(enumerate(await _for_each(range(clusters), length)))


@contextlib.asynccontextmanager
async def _scraped(bed: Bed) -> AsyncIterator[list[float]]:
    """Meanwhile the worker's metrics are read as Prometheus reads them; how long each time took, seconds."""
    took_s: list[float] = []
    enough = asyncio.Event()

    async def scrape() -> None:
        async with httpx.AsyncClient(timeout=60, trust_env=False) as client:
            while not enough.is_set():
                began = time.monotonic()
                await _metrics(bed, client)
                took_s.append(time.monotonic() - began)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(SCRAPE_EVERY_S):
                        await enough.wait()

    scraping = asyncio.create_task(scrape())
    try:
        yield took_s
    finally:
        enough.set()
        await scraping


async def _metrics(bed: Bed, client: httpx.AsyncClient) -> str:
    return (await client.get(bed.metrics_url, headers=PROMETHEUS)).raise_for_status().text


async def _errors(bed: Bed) -> Counter[str]:
    """Health questions that failed so far, by the worker's own metrics, by type."""
    async with httpx.AsyncClient(timeout=60, trust_env=False) as client:
        text = await _metrics(bed, client)
    found: Counter[str] = Counter()
    for line in text.splitlines():
        if line.startswith(HEALTH_CHECK_ERRORS.name + "{"):
            labels, _, value = line.rpartition(" ")
            kind = re.search(r'type="([^"]*)"', labels)
            found[kind[1] if kind is not None else "other"] += int(float(value))
    return found


# When a primary fails


async def _strikes(bed: Bed, clusters: int, plan: Plan) -> tuple[Started, ...]:
    """Have primaries fail one after the other, each of another cluster, at random moments."""
    chosen = random.Random(plan.seed)
    numbers = chosen.sample(range(clusters), min(STRIKES, clusters))
    moments = sorted(chosen.uniform(0, STRIKE_EVERY_S * len(numbers)) for _ in numbers)
    began = time.monotonic()

    async def strike(number: int, moment: float) -> Started:
        await asyncio.sleep(began + moment - time.monotonic())
        at = await bed.control.fail((number, 0), how=plan.how)
        return await _run_after(bed, number, at)

    starts = await asyncio.gather(*map(strike, numbers, moments))
    await bed.control.heal(*((number, 0) for number in numbers))
    await asyncio.sleep(SETTLE_S)
    return tuple(starts)


async def _run_after(bed: Bed, number: int, at: float) -> Started:
    """The run that follows on a failure `at`, seconds since the epoch."""
    await asyncio.sleep(FOUND_AFTER_S)
    handle = bed.client.get_workflow_handle_for(PrimaryFailure.run, failover_id(cluster_id(number)))
    after_s: float | None = None
    while after_s is None:
        try:
            after_s = (await handle.describe()).start_time.timestamp() - at
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise
            if time.time() - at > START_WITHIN_S:
                return Started(cluster=number, after_s=None, outcome=None)
            await asyncio.sleep(1.0)
    outcome: str | None = None
    try:
        async with asyncio.timeout(END_WITHIN_S):
            outcome = (await handle.result()).outcome.value
    except (TimeoutError, WorkflowFailureError):
        pass
    return Started(cluster=number, after_s=after_s, outcome=outcome)


# When a region is lost


async def _evacuation(bed: Bed, region: str, clusters: int, plan: Plan) -> Evacuation:
    """Lose a region, and have it left by a person's word once every guardian knows of its loss. They are
    paused, so that nobody else moves their clusters."""
    numbers = at_home_in(region, clusters, plan.wave_size)
    pause = PauseRequest(by=BY, reason=f"{region} is left by a person's word")
    await _for_each(numbers, lambda n: say_to_guardian(bed.client, cluster_id(n), "pause", pause))
    lost = [(number, index) for number in numbers for index in LOST]
    await bed.control.fail(*lost, how=How.SILENT)
    await _until_found(bed, numbers)
    request = EvacuateRequest(region=region, initiated_by=BY, reason=f"{region} is lost")
    handle = await start_evacuation(bed.client, request)
    async with asyncio.timeout(LEFT_WITHIN_S):
        result = await handle.result()
    await bed.control.heal(*lost)
    await asyncio.sleep(SETTLE_S)
    good = sum(one.good for one in result.moved) - len(result.failures)
    return Evacuation(
        region=region,
        clusters=len(numbers),
        moved=good,
        waves=len(result.plan.waves) if result.plan is not None else 0,
        took_s=(result.ended_at - result.started_at).total_seconds(),
        outcome=result.outcome.value,
        reason=result.reason,
    )


# When the worker dies


async def _taken_over(bed: Bed, figures: Figures, plan: Plan, say: Say) -> Figures:
    """Kill the worker, start another, and wait until every guardian sees all its nodes by it."""
    bed.kill_worker()
    await bed.control.mark()
    began = time.monotonic()
    bed = await bed.with_another_worker()
    waiting, heard = await _until_all_is_well(bed, figures.clusters, began + plan.ready_within_s)
    if waiting:
        problem = (
            f"after the worker was killed, {waiting} guardians do not see every node by another within"
            f" {plan.ready_within_s:g} s ({heard} of {figures.clusters * NODES} nodes were asked)"
        )
        return figures.model_copy(update={"problem": problem})
    took_s = time.monotonic() - began
    say(f"another worker holds all {figures.clusters} clusters after {took_s:.1f} s")
    return figures.model_copy(update={"taken_over_s": took_s})


async def _until_found(bed: Bed, numbers: Iterable[int]) -> None:
    """Until each cluster's guardian calls its lost nodes failed. Raises LabError where one never does."""
    waiting, deadline = set(numbers), time.monotonic() + FOUND_WITHIN_S
    await asyncio.sleep(FOUND_AFTER_S)
    while waiting:
        if time.monotonic() > deadline:
            raise LabError(
                f"{len(waiting)} guardians have not found within {FOUND_WITHIN_S:g} s that nodes are lost"
            )
        found = await _for_each(sorted(waiting), lambda number: _calls_failed(bed, number))
        waiting -= {number for number, failed in found if failed}
        await asyncio.sleep(2.0)


async def _calls_failed(bed: Bed, number: int) -> tuple[int, bool]:
    view = await _view(bed, number)
    return number, view is not None and all(view.statuses[node_id(index)] == "failed" for index in LOST)


async def _for_each(items: Iterable[T], ask: Callable[[T], Awaitable[U]]) -> list[U]:
    """The answers in the order of the items, of which only a few are asked at once."""
    slots = asyncio.Semaphore(AT_ONCE)

    async def one(item: T) -> U:
        async with slots:
            return await ask(item)

    return list(await asyncio.gather(*map(one, items)))
