"""Figures about runs, from the audit trail, which is read beside the scrapes: they are what the records say.

A count that a process kept for itself would be lost with it, and doubled by whoever does its work again. A
run has one record. Every worker with this store serves the same figures: take the `max` over instances, not
the sum.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from functools import partial
from threading import Lock, Thread

from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector
from pydantic import ValidationError

from qnwis.config.registry import Registry
from qnwis.continuity.audit import AuditRecord
from qnwis.continuity.metrics import (
    COUNTED,
    EXECUTED,
    EXECUTION,
    EXECUTION_MS,
    EXECUTIONS,
    FAILURES,
    LAST_LOSS,
    LAST_MOVE_ENDED,
    LAST_RECOVERY_ENDED,
    LAST_RECOVERY_MS,
    MOVES,
    RECOVERY_MS,
    RPO_OBJECTIVE,
    RTO_OBJECTIVE_MS,
    RUNS,
    STEP_MS,
    SUCCESSES,
    VALIDATION_MS,
    VERIFICATION,
    Loss,
    RunFigures,
    Sample,
    figures_of,
    newest_samples,
    objective_samples,
)
from qnwis.continuity.refusal import Refusal
from qnwis.continuity.run import FailoverRequest, RunOutcome, RunResult
from qnwis.providers.audit_store import AuditStore
from qnwis.providers.errors import Refused, Unreachable

from .clusters import lease_groups
from .exposition import Exposition, Histogram
from .instruments import counter, gauges

log = logging.getLogger(__name__)

NEWEST = (LAST_RECOVERY_MS, LAST_RECOVERY_ENDED, LAST_LOSS, LAST_MOVE_ENDED)
PAGE = 64
"""Records that are asked for at a time; what was counted of them is not read again."""


class RunMetrics(Collector):
    """Of every run that has a record. A scrape waits for no store: it serves what was read before it, and
    has what came since read for the next one. A store that cannot be read now leaves what was read before.

    Before the first complete read there are no counts: one that began at 0 for want of an answer would be
    counted anew by Prometheus, all of it, when the answer comes. The objectives are served from the start.
    """

    def __init__(self, store: AuditStore, clusters: Registry, exposition: Exposition) -> None:
        self._store = store
        self._clusters = clusters
        self._lock = Lock()
        """Scrapes come in threads of their own; one of them begins a read."""
        self.reading = _done()
        """The newest read: whoever must know that it has ended waits for it."""
        self._served: list[Family] = []
        self._text = ""
        """About runs, as of the end of a read."""
        self._told_of: tuple[int, tuple[str, ...]] | None = None
        """The newest record, and the clusters, that are in it."""
        self._read_up_to = 0
        self._is_complete = False
        """Everything was read once, to the newest record of that time."""
        self._last_recovery: dict[str, RunFigures] = {}
        self._last_move: dict[str, RunFigures] = {}
        """By cluster."""
        self._executions, self._successes = counter(EXECUTIONS), counter(SUCCESSES)
        self._failures, self._runs, self._moves = counter(FAILURES), counter(RUNS), counter(MOVES)
        self._execution_ms, self._validation_ms = Histogram(EXECUTION_MS), Histogram(VALIDATION_MS)
        self._step_ms, self._recovery_ms = Histogram(STEP_MS), Histogram(RECOVERY_MS)
        exposition.register(self)
        exposition.add(self)

    def text(self) -> str:
        """Of how long runs took."""
        return self._text

    def collect(self) -> Iterator[Family]:
        groups = lease_groups(self._clusters)
        objectives = [sample for group in groups.values() for sample in objective_samples(*group)]
        served = self._served
        self._begin_reading(groups.keys())
        yield from gauges((RTO_OBJECTIVE_MS, RPO_OBJECTIVE), objectives)
        yield from served

    def _begin_reading(self, cluster_ids: Iterable[str]) -> None:
        """Unless a read goes on."""
        with self._lock:
            if not self.reading.done():
                return
            if (error := self.reading.exception()) is not None:
                log.error("metrics about runs are those of record %s", self._read_up_to, exc_info=error)
            self.reading = _beside(partial(self._read, tuple(cluster_ids)))

    def _read(self, cluster_ids: tuple[str, ...]) -> None:
        try:
            asyncio.run(self._read_on())
        except (Refused, Unreachable) as error:
            log.warning("metrics about runs are those of record %s: %s", self._read_up_to, error)
        if self._is_complete and self._told_of != (told_of := (self._read_up_to, cluster_ids)):
            self._served = [*self._of_runs(cluster_ids)]
            took = (self._execution_ms, self._validation_ms, self._step_ms, self._recovery_ms)
            self._text = "".join(one.text() for one in took)
            self._told_of = told_of

    def _of_runs(self, cluster_ids: Iterable[str]) -> Iterator[Family]:
        for cluster_id in cluster_ids:
            self._begin_at_zero(cluster_id)
        for one in (self._executions, self._successes, self._failures, self._runs, self._moves):
            yield from one.collect()
        yield from gauges(NEWEST, self._newest())

    def _newest(self) -> Iterator[Sample]:
        """Of each cluster's newest runs."""
        for cluster_id in self._last_recovery.keys() | self._last_move.keys():
            yield from newest_samples(self._last_recovery.get(cluster_id), self._last_move.get(cluster_id))

    def _begin_at_zero(self, cluster_id: str) -> None:
        """A counter that appears with 1 has not increased for Prometheus; it must have been seen at 0."""
        for outcome in RunOutcome:
            self._executions.labels(cluster_id, outcome.value)
        self._successes.labels(cluster_id)
        for outcome in EXECUTED:
            self._execution_ms.begin(cluster_id, outcome.value)
            if outcome is not RunOutcome.COMPLETED:
                self._failures.labels(cluster_id, outcome.value)
        self._validation_ms.begin(cluster_id)
        self._recovery_ms.begin(cluster_id)
        for loss in Loss:
            self._moves.labels(cluster_id, loss.value)

    async def _read_on(self) -> None:
        """A page after the other, from where the read before came to or broke off."""
        is_last = False
        while not is_last:
            records = await self._store.each_after(self._read_up_to, PAGE)
            is_last = len(records) < PAGE
            for sequence, record in records:
                if isinstance(record, Refusal):
                    _leave_out(sequence, record)
                else:
                    await self._take(record)
                self._read_up_to = sequence
        self._is_complete = True

    async def _take(self, record: AuditRecord) -> None:
        if record.operation not in COUNTED:
            return
        try:
            texts = await self._store.artefacts(record.audit_id)
            request = FailoverRequest.model_validate_json(texts["request"])
            result = RunResult.model_validate_json(texts["result"])
        except (KeyError, ValidationError, Refused) as error:
            _leave_out(record.audit_id, error)
            return
        self._count(figures_of(record, request, result))

    def _count(self, run: RunFigures) -> None:
        self._runs.labels(run.cluster_id, run.operation, run.status).inc()
        for step, took_ms in run.steps_ms.items():
            self._step_ms.observe((run.cluster_id, run.operation, step), took_ms)
        if run.moved:
            self._moves.labels(run.cluster_id, run.loss.value).inc()
            self._last_move[run.cluster_id] = run
        if not run.is_failover:
            return
        self._executions.labels(run.cluster_id, run.status).inc()
        if run.verified:
            self._successes.labels(run.cluster_id).inc()
        if run.failure is not None:
            self._failures.labels(run.cluster_id, run.failure).inc()
        if (took := run.steps_ms.get(EXECUTION)) is not None:
            self._execution_ms.observe((run.cluster_id, run.status), took)
        if (took := run.steps_ms.get(VERIFICATION)) is not None:
            self._validation_ms.observe((run.cluster_id,), took)
        if run.recovery_ms is not None:
            self._recovery_ms.observe((run.cluster_id,), run.recovery_ms)
            self._last_recovery[run.cluster_id] = run


def _done() -> Future[None]:
    done: Future[None] = Future()
    done.set_result(None)
    return done


def _beside(work: Callable[[], None]) -> Future[None]:
    """In a thread of its own, for which no process waits that ends."""
    done: Future[None] = Future()

    def run() -> None:
        try:
            work()
        except BaseException as error:
            done.set_exception(error)
        else:
            done.set_result(None)

    Thread(target=run, name="qnwis-run-metrics", daemon=True).start()
    return done


def _leave_out(which: object, why: object) -> None:
    """`audit verify` is there to say what is wrong with it; one such record must not hide the others."""
    log.warning("metrics leave record %s out, which cannot be read as a run's: %s", which, why)
