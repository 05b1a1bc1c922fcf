"""Figures about runs, from the audit trail: read when scraped, so they are what the records say.

A count that a process kept for itself would be lost with it, and doubled by whoever does its work again. A
run has one record. Every worker with this store serves the same figures: take the `max` over instances, not
the sum.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Iterator
from threading import Lock

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector
from pydantic import ValidationError

from qnwis.config.registry import Registry
from qnwis.continuity.audit import AuditRecord
from qnwis.continuity.metrics import (
    COUNTED,
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
from .instruments import counter, gauges, histogram

log = logging.getLogger(__name__)

NEWEST = (LAST_RECOVERY_MS, LAST_RECOVERY_ENDED, LAST_LOSS, LAST_MOVE_ENDED)
PAGE = 64
"""Records that are asked for at first; four times as many while the oldest is not old enough."""


class RunMetrics(Collector):
    """Of every run that has a record. A store that cannot be read now answers with what was read before.

    Before the first complete read there are none: a count that began at 0 for want of an answer would be
    counted anew by Prometheus, all of it, when the answer comes.
    """

    def __init__(self, store: AuditStore, clusters: Registry, registry: CollectorRegistry) -> None:
        self._store = store
        self._clusters = clusters
        self._lock = Lock()
        """Scrapes come in threads of their own."""
        self._read_up_to = 0
        self._is_complete = False
        """Everything was read once, to the newest record of that time."""
        self._last_recovery: dict[str, RunFigures] = {}
        self._last_move: dict[str, RunFigures] = {}
        """By cluster."""
        self._executions, self._successes = counter(EXECUTIONS), counter(SUCCESSES)
        self._failures, self._runs, self._moves = counter(FAILURES), counter(RUNS), counter(MOVES)
        self._execution_ms, self._validation_ms = histogram(EXECUTION_MS), histogram(VALIDATION_MS)
        self._step_ms, self._recovery_ms = histogram(STEP_MS), histogram(RECOVERY_MS)
        registry.register(self)

    def collect(self) -> Iterator[Family]:
        with self._lock:
            try:
                asyncio.run(self._read_on())
            except (Refused, Unreachable) as error:
                log.warning("metrics about runs are those of record %s: %s", self._read_up_to, error)
            groups = lease_groups(self._clusters)
            objectives = [sample for group in groups.values() for sample in objective_samples(*group)]
            families = [*gauges((RTO_OBJECTIVE_MS, RPO_OBJECTIVE), objectives)]
            if self._is_complete:
                families += self._of_runs(groups)
        yield from families

    def _of_runs(self, cluster_ids: Iterable[str]) -> Iterator[Family]:
        for cluster_id in cluster_ids:
            self._begin_at_zero(cluster_id)
        instruments = (
            *(self._executions, self._successes, self._failures, self._runs, self._moves),
            *(self._execution_ms, self._validation_ms, self._step_ms, self._recovery_ms),
        )
        for one in instruments:
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
            if outcome is not RunOutcome.COMPLETED:
                self._failures.labels(cluster_id, outcome.value)
        self._successes.labels(cluster_id)
        for outcome in (RunOutcome.COMPLETED, RunOutcome.INCOMPLETE, RunOutcome.ROLLED_BACK):
            self._execution_ms.labels(cluster_id, outcome.value)
        self._validation_ms.labels(cluster_id)
        self._recovery_ms.labels(cluster_id)
        for loss in Loss:
            self._moves.labels(cluster_id, loss.value)

    async def _read_on(self) -> None:
        for sequence, record in await self._unread():
            if isinstance(record, Refusal):
                _leave_out(sequence, record)
            else:
                await self._take(record)
            self._read_up_to = sequence
        self._is_complete = True

    async def _unread(self) -> list[tuple[int, AuditRecord | Refusal]]:
        """Oldest first, by their places in the log."""
        limit = PAGE
        while True:
            records = await self._store.latest_each(limit)
            if len(records) < limit or records[-1][0] <= self._read_up_to + 1:
                return [one for one in reversed(records) if one[0] > self._read_up_to]
            limit *= 4

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
            self._step_ms.labels(run.cluster_id, run.operation, step).observe(took_ms)
        if run.moved:
            self._moves.labels(run.cluster_id, run.loss.value).inc()
            self._last_move[run.cluster_id] = run
        if not run.is_failover:
            return
        self._executions.labels(run.cluster_id, run.status).inc()
        if run.failure is None:
            self._successes.labels(run.cluster_id).inc()
        else:
            self._failures.labels(run.cluster_id, run.failure).inc()
        if (took := run.steps_ms.get(EXECUTION)) is not None:
            self._execution_ms.labels(run.cluster_id, run.status).observe(took)
        if (took := run.steps_ms.get(VERIFICATION)) is not None:
            self._validation_ms.labels(run.cluster_id).observe(took)
        if run.recovery_ms is not None:
            self._recovery_ms.labels(run.cluster_id).observe(run.recovery_ms)
            self._last_recovery[run.cluster_id] = run


def _leave_out(which: object, why: object) -> None:
    """`audit verify` is there to say what is wrong with it; one such record must not hide the others."""
    log.warning("metrics leave record %s out, which cannot be read as a run's: %s", which, why)
