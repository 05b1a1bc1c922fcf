"""Runs that have ended, as the audit trail keeps them."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import wait
from datetime import timedelta
from pathlib import Path

from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from qnwis.continuity.audit import draft_of
from qnwis.continuity.confidence import Band, Confidence
from qnwis.continuity.evidence import ClusterEvidence
from qnwis.continuity.metrics import APPROVALS_WAITING, Sample
from qnwis.continuity.model import canonical_json
from qnwis.continuity.readiness_facts import Grade, Readiness
from qnwis.continuity.refusal import Refusal
from qnwis.continuity.run import (
    Detection,
    FailoverRequest,
    Maintenance,
    RunArtefacts,
    RunKind,
    RunOutcome,
    RunResult,
    StepProgress,
    StepStatus,
)
from qnwis.continuity.verifier import VerificationReport
from qnwis.metrics.instruments import gauges
from qnwis.metrics.runs import RunMetrics
from qnwis.providers.audit_store import SqliteAuditStore
from qnwis.providers.key_store import KeyStore
from tests.looking import WITHIN_S
from tests.unit.continuity.scenes import NOON

PASSED = VerificationReport(
    report_id="r",
    passed=True,
    consistency_ok=True,
    policy_ok=True,
    quorum_ok=True,
    freshness_ok=True,
    dns_ok=True,
    checks=(),
    confidence=Confidence(score=100, band=Band.VERY_HIGH),
)


GRADED = Readiness(
    cluster_id="c",
    grade=Grade.WARNING,
    checks=(),
    evaluated_at=NOON,
    topology_digest="t",
    policy_digest="p",
)


class Waits(Collector):
    """The run on cluster `c` waits for votes, where no Temporal can be asked."""

    def collect(self) -> Iterator[Family]:
        yield from gauges((APPROVALS_WAITING,), [Sample(APPROVALS_WAITING, ("c",), 1)])


def store_in(folder: Path, keys: KeyStore | None = None) -> SqliteAuditStore:
    return SqliteAuditStore(folder / "audit.sqlite", folder / "key.pem", keys=keys)


def ended(
    run_id: str,
    outcome: RunOutcome = RunOutcome.COMPLETED,
    *,
    refused_by: str | None = None,
    maintenance: bool = False,
    dry_run: bool = False,
    took_ms: float = 4000,
    missed_ms_before: float = 1000,
    loss_bytes: int | None = 0,
) -> RunArtefacts:
    """A run of cluster `c`, with an execution of 300 ms and a verification of 40 ms if it is completed."""
    done = outcome is RunOutcome.COMPLETED
    steps = (("detection", 90.0), ("execution", 300.0), ("verification", 40.0)) if done else ()
    planned = Maintenance() if maintenance else None
    found = Detection(
        node_id="node-1",
        vantages=("v",),
        misses=3,
        first_miss_at=NOON - timedelta(milliseconds=missed_ms_before),
        detected_at=NOON,
    )
    return RunArtefacts(
        request=FailoverRequest(
            cluster_id="c",
            initiated_by="ann",
            reason="test",
            dry_run=dry_run,
            maintenance=planned,
            detection=None if maintenance else found,
        ),
        evidence_before=ClusterEvidence(cluster_id="c", nodes=()),
        evidence_after=None,
        result=RunResult(
            kind=RunKind.PLANNED_MAINTENANCE if maintenance else RunKind.PRIMARY_FAILURE,
            outcome=outcome,
            reason="test",
            cluster_id="c",
            run_id=run_id,
            dry_run=dry_run,
            refusal=None if refused_by is None else Refusal(rule=refused_by, message="no", remedy="none"),
            verification=PASSED if done else None,
            predicted_loss_bytes=loss_bytes,
            steps=tuple(
                StepProgress(
                    name=name, title=name, expected_ms=1, status=StepStatus.DONE, elapsed_ms=elapsed_ms
                )
                for name, elapsed_ms in steps
            ),
            started_at=NOON,
            ended_at=NOON + timedelta(milliseconds=took_ms),
        ),
    )


def up_to_date(metrics: RunMetrics) -> None:
    """A scrape now, and what it had read has been: the next one serves what the store has."""
    read_to_its_end(metrics)
    list(metrics.collect())
    read_to_its_end(metrics)


def read_to_its_end(metrics: RunMetrics) -> None:
    assert not wait([metrics.reading], WITHIN_S).not_done


async def record(store: SqliteAuditStore, run: RunArtefacts) -> None:
    """As the activity `record` writes it."""
    texts = {name: canonical_json(part) for name, part in run.parts().items()}
    await store.append(draft_of(run), texts)
