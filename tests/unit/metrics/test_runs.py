"""Figures about runs: what the audit trail says, whoever serves it and however often it restarts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from threading import Event

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from qnwis.config.registry import Registry
from qnwis.continuity.audit import AuditRecord
from qnwis.continuity.refusal import Refusal
from qnwis.continuity.run import RunOutcome
from qnwis.metrics.exposition import Exposition
from qnwis.metrics.runs import PAGE, RunMetrics
from qnwis.providers.audit_store import SqliteAuditStore
from qnwis.providers.errors import Unreachable
from qnwis.providers.key_store import FileKeyStore
from tests.integration.continuity.world import three_nodes, write_registry
from tests.looking import WITHIN_S
from tests.unit.continuity.scenes import NOON
from tests.unit.continuity.test_audit import tampered
from tests.unit.metrics.records import ended, read_to_its_end, record, store_in, up_to_date
from tests.unit.metrics.series import value


class Worker:
    """The part of a worker that serves figures about runs."""

    def __init__(self, folder: Path, keys: FileKeyStore | None = None) -> None:
        self._registry = Exposition()
        self.runs = RunMetrics(store_in(folder, keys), Registry(folder), self._registry)

    async def value(self, name: str, **labels: str) -> float | None:
        """By the second of two scrapes, which serves what the first had read."""

        def scraped() -> float | None:
            up_to_date(self.runs)
            found = self.now(name, **labels)
            read_to_its_end(self.runs)
            return found

        # As by Prometheus: in a thread that has no loop.
        return await asyncio.to_thread(scraped)

    def now(self, name: str, **labels: str) -> float | None:
        """By a scrape, whatever goes on."""
        return value(self._registry, name, {"cluster": "c", **labels})


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return write_registry(tmp_path, three_nodes("c"), max_failover_time_s=30)


async def test_counters_equal_the_audit_after_a_restart_a_replay_and_for_each_of_two_workers(
    home: Path,
) -> None:
    store, before = store_in(home), Worker(home)
    await record(store, ended("run-1"))
    assert await before.value("qnwis_failover_executions_total", status="completed") == 1
    await record(store, ended("run-1"))  # a worker died after it had written, and its successor writes again
    await record(store, ended("run-2", RunOutcome.REFUSED, refused_by="no_quorum"))
    await record(store, ended("run-3", RunOutcome.ROLLED_BACK))
    for worker in (before, Worker(home), Worker(home)):
        for _ in range(2):  # a scrape counts nothing
            assert await worker.value("qnwis_failover_executions_total", status="completed") == 1
        assert await worker.value("qnwis_failover_executions_total", status="refused") == 1
        assert await worker.value("qnwis_failover_success_total") == 1
        assert await worker.value("qnwis_failover_failures_total", reason="rolled_back") == 1


async def test_a_start_that_nothing_came_of_is_no_failure(home: Path) -> None:
    store, worker = store_in(home), Worker(home)
    await record(store, ended("run-0", RunOutcome.REFUSED, refused_by="primary_is_healthy"))
    nothing = (RunOutcome.REFUSED, RunOutcome.REJECTED, RunOutcome.EXPIRED, RunOutcome.UNTOUCHED)
    for number, outcome in enumerate(nothing, start=1):
        await record(store, ended(f"run-{number}", outcome))
    assert await worker.value("qnwis_failover_executions_total", status="refused") == 2
    for reason in ("primary_is_healthy", *(outcome.value for outcome in nothing)):
        assert await worker.value("qnwis_failover_failures_total", reason=reason) is None, reason
    assert await worker.value("qnwis_failover_success_total") == 0
    await record(store, ended("run-9", RunOutcome.INCOMPLETE))
    assert await worker.value("qnwis_failover_failures_total", reason="incomplete") == 1


async def test_maintenance_is_no_failover_and_a_dry_run_is_no_run(home: Path) -> None:
    store, worker = store_in(home), Worker(home)
    await record(store, ended("run-1", maintenance=True))
    await record(store, ended("run-2", dry_run=True))
    runs = "qnwis_continuity_runs_total"
    assert await worker.value(runs, operation="maintenance_execute", status="completed") == 1
    assert await worker.value(runs, operation="failover_execute", status="completed") is None
    assert await worker.value("qnwis_failover_executions_total", status="completed") == 0


async def test_a_counter_is_seen_at_zero_before_the_first_run(home: Path) -> None:
    worker = Worker(home)
    for outcome in RunOutcome:
        assert await worker.value("qnwis_failover_executions_total", status=outcome.value) == 0
    assert await worker.value("qnwis_failover_success_total") == 0


async def test_times_are_of_the_steps_and_recovery_counts_from_the_first_missed_heartbeat(home: Path) -> None:
    store, worker = store_in(home), Worker(home)
    await record(store, ended("run-1", took_ms=4000, missed_ms_before=1000))
    await record(store, ended("run-2", RunOutcome.REFUSED, refused_by="no_quorum", took_ms=99000))
    assert await worker.value("qnwis_failover_execution_ms_sum", status="completed") == 300
    assert await worker.value("qnwis_failover_validation_ms_sum") == 40
    assert await worker.value("qnwis_failover_validation_ms_count") == 1
    assert await worker.value("qnwis_continuity_recovery_ms_sum") == 5000
    assert await worker.value("qnwis_continuity_last_recovery_ms") == 5000
    assert await worker.value("qnwis_continuity_rto_objective_ms") == 30000
    step = {"operation": "failover_execute", "step": "detection"}
    assert await worker.value("qnwis_continuity_step_ms_sum", **step) == 90


async def test_what_a_move_lost_is_counted_and_what_is_not_known_is_no_zero(home: Path) -> None:
    store, worker, moves = store_in(home), Worker(home), "qnwis_continuity_moves_total"
    lost = "qnwis_continuity_last_loss_bytes"
    assert [await worker.value(moves, loss=loss) for loss in ("none", "some", "unknown")] == [0, 0, 0]
    assert await worker.value(lost) is None
    await record(store, ended("run-1", loss_bytes=4096))
    assert await worker.value(lost) == 4096
    await record(store, ended("run-2", maintenance=True))
    await record(store, ended("run-3", RunOutcome.ROLLED_BACK, loss_bytes=99))
    assert await worker.value(lost) == 0, "one that moved nothing lost nothing"
    await record(store, ended("run-4", loss_bytes=None))
    assert await worker.value(lost) is None
    assert [await worker.value(moves, loss=loss) for loss in ("none", "some", "unknown")] == [1, 1, 1]


async def test_the_newest_runs_have_the_time_of_their_end_with_them(home: Path) -> None:
    store, worker = store_in(home), Worker(home)
    recovered = "qnwis_continuity_last_recovery_timestamp_seconds"
    moved = "qnwis_continuity_last_move_timestamp_seconds"
    assert await worker.value(recovered) is await worker.value(moved) is None
    await record(store, ended("run-1", took_ms=4000))
    assert await worker.value(recovered) == await worker.value(moved) == NOON.timestamp() + 4
    await record(store, ended("run-2", maintenance=True, took_ms=9000, loss_bytes=None))
    await record(store, ended("run-3", RunOutcome.ROLLED_BACK, took_ms=60000))
    for one in (worker, Worker(home)):
        assert await one.value(recovered) == NOON.timestamp() + 4, "maintenance recovers nothing"
        assert await one.value(moved) == NOON.timestamp() + 9


@pytest.mark.parametrize(("mode", "objective"), [("synchronous", 0), ("asynchronous", 1000)])
async def test_where_commits_wait_for_a_standby_nothing_may_be_lost(
    tmp_path: Path, mode: str, objective: int
) -> None:
    topology = three_nodes("c", replication={"mode": mode})
    worker = Worker(write_registry(tmp_path, topology, max_lag_bytes=1000))
    assert await worker.value("qnwis_continuity_rpo_objective_bytes") == objective


async def test_more_records_than_are_asked_for_at_first_are_all_counted(home: Path) -> None:
    store, worker = store_in(home), Worker(home)
    for number in range(PAGE + 6):
        await record(store, ended(f"run-{number}"))
    assert await worker.value("qnwis_failover_success_total") == PAGE + 6


async def test_a_store_that_cannot_be_read_leaves_what_was_read(home: Path) -> None:
    store, worker = store_in(home), Worker(home)
    await record(store, ended("run-1"))
    assert await worker.value("qnwis_failover_success_total") == 1
    (home / "audit.sqlite").write_bytes(b"no database any more, and long enough to be looked at")
    assert await worker.value("qnwis_failover_success_total") == 1


async def test_a_worker_that_has_read_no_run_yet_serves_no_count_that_would_rise_by_all_of_them(
    home: Path,
) -> None:
    store = store_in(home)
    for number in range(3):
        await record(store, ended(f"run-{number}"))
    worker, success = Worker(home), "qnwis_failover_success_total"
    (home / "audit.sqlite").rename(home / "away.sqlite")
    (home / "audit.sqlite").write_bytes(b"no database, and long enough to be looked at")
    assert await worker.value(success) is None
    assert await worker.value("qnwis_continuity_moves_total", loss="none") is None
    assert await worker.value("qnwis_failover_execution_ms_count", status="completed") is None
    assert await worker.value("qnwis_continuity_rto_objective_ms") == 30000, "of the policy, not of runs"
    (home / "away.sqlite").rename(home / "audit.sqlite")
    assert await worker.value(success) == 3


async def test_a_first_read_that_breaks_off_half_way_serves_nothing_either(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = store_in(home)
    faults: list[Unreachable | None] = [None, Unreachable("the store is gone")]
    for number in range(2):
        await record(store, ended(f"run-{number}"))
    artefacts = SqliteAuditStore.artefacts

    async def once(self: SqliteAuditStore, audit_id: str) -> dict[str, str]:
        if faults and (fault := faults.pop(0)) is not None:
            raise fault
        return await artefacts(self, audit_id)

    monkeypatch.setattr(SqliteAuditStore, "artefacts", once)
    worker = Worker(home)
    assert await worker.value("qnwis_failover_success_total") is None
    assert await worker.value("qnwis_failover_success_total") == 2


def read_through(monkeypatch: pytest.MonkeyPatch, way: Callable[[int], Awaitable[None]]) -> None:
    """Each page, of those behind a record, by that way."""
    pages = SqliteAuditStore.each_after

    async def each_after(
        self: SqliteAuditStore, sequence: int, limit: int
    ) -> tuple[tuple[int, AuditRecord | Refusal], ...]:
        await way(sequence)
        return await pages(self, sequence, limit)

    monkeypatch.setattr(SqliteAuditStore, "each_after", each_after)


async def test_no_scrape_waits_for_the_store_and_one_read_goes_on_at_a_time(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await record(store_in(home), ended("run-1"))
    asked, answers = [0], Event()

    async def slow(_: int) -> None:
        asked[0] += 1
        assert answers.wait(WITHIN_S)

    read_through(monkeypatch, slow)
    worker, success = Worker(home), "qnwis_failover_success_total"
    try:
        for _ in range(3):
            assert worker.now("qnwis_continuity_rto_objective_ms") == 30000
            assert worker.now(success) is None
        assert not worker.runs.reading.done()
    finally:
        answers.set()
    await asyncio.to_thread(read_to_its_end, worker.runs)
    assert asked == [1]
    assert worker.now(success) == 1


async def test_a_read_that_broke_off_goes_on_where_it_was(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = store_in(home)
    for number in range(PAGE + 6):
        await record(store, ended(f"run-{number}"))
    asked: list[int] = []

    async def the_second_is_lost(sequence: int) -> None:
        asked.append(sequence)
        if len(asked) == 2:
            raise Unreachable("an answer is lost")

    read_through(monkeypatch, the_second_is_lost)
    worker = Worker(home)
    assert await worker.value("qnwis_failover_success_total") is None
    assert await worker.value("qnwis_failover_success_total") == PAGE + 6
    assert asked[:3] == [0, PAGE, PAGE], "what was counted is not read again"


async def test_what_nobody_expected_is_logged_and_the_next_scrape_reads_on(
    home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await record(store_in(home), ended("run-1"))
    faults = [RuntimeError("of nobody's making")]

    async def fails_once(_: int) -> None:
        if faults:
            raise faults.pop()

    read_through(monkeypatch, fails_once)
    worker = Worker(home)
    assert worker.now("qnwis_continuity_rto_objective_ms") == 30000
    assert await worker.value("qnwis_failover_success_total") == 1
    assert "of nobody's making" in caplog.text


async def test_a_record_that_cannot_be_read_hides_no_other_and_is_passed_once(
    home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = store_in(home)
    for number in range(3):
        await record(store, ended(f"run-{number}"))
    tampered(home / "audit.sqlite", "UPDATE records SET record = '{}' WHERE sequence = 2")
    worker = Worker(home)
    assert await worker.value("qnwis_failover_success_total") == 2
    await record(store, ended("run-3", RunOutcome.ROLLED_BACK))
    assert await worker.value("qnwis_failover_executions_total", status="rolled_back") == 1
    assert await worker.value("qnwis_failover_success_total") == 2
    assert caplog.text.count("metrics leave record 2 out") == 1


async def test_a_record_that_says_it_stands_further_on_is_counted_once_and_hides_none_that_comes(
    home: Path,
) -> None:
    store = store_in(home)
    await record(store, ended("run-0"))
    await record(store, ended("run-1"))
    further = "UPDATE records SET record = replace(record, ?, ?) WHERE sequence = 1"
    tampered(home / "audit.sqlite", further, '"sequence":1,', '"sequence":99,')
    worker = Worker(home)
    assert await worker.value("qnwis_failover_success_total") == 2
    await record(store, ended("run-2"))
    assert await worker.value("qnwis_failover_success_total") == 3


async def test_artefacts_that_cannot_be_opened_leave_their_run_out_and_no_other(
    home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = store_in(home, FileKeyStore(home / "elsewhere" / "keys.json"))
    for number in range(3):
        await record(store, ended(f"run-{number}"))
    tampered(home / "audit.sqlite", "DELETE FROM artefacts WHERE sequence = 2 AND name = 'result'")
    worker = Worker(home, FileKeyStore(home / "elsewhere" / "keys.json"))
    for _ in range(2):
        assert await worker.value("qnwis_failover_success_total") == 2
    assert caplog.text.count("metrics leave record") == 1


async def test_a_configuration_that_cannot_be_read_hides_no_run(home: Path) -> None:
    await record(store_in(home), ended("run-1"))
    (home / "clusters" / "c" / "policy.yaml").write_text("policy_id: [")
    assert await Worker(home).value("qnwis_failover_success_total") == 1


async def test_what_is_served_is_of_prometheus_form_and_names_no_person(home: Path) -> None:
    await record(store_in(home), ended("run-1"))
    registry = Exposition()
    await asyncio.to_thread(up_to_date, RunMetrics(store_in(home), Registry(home), registry))
    text = registry.completed(await asyncio.to_thread(generate_latest, registry)).decode()
    families = [*text_string_to_metric_families(text)]
    assert "qnwis_failover_execution_ms" in {family.name for family in families}
    assert "ann" not in {v for family in families for one in family.samples for v in one.labels.values()}


async def test_what_is_served_is_made_anew_only_when_there_is_news_of_it(home: Path) -> None:
    """Of a thousand clusters it is much, and Prometheus asks every few seconds."""
    store = store_in(home)
    await record(store, ended("run-1"))
    runs = RunMetrics(store, Registry(home), Exposition())

    def executions() -> object:
        up_to_date(runs)
        return next(one for one in runs.collect() if one.name == "qnwis_failover_executions")

    first = await asyncio.to_thread(executions)
    assert await asyncio.to_thread(executions) is first
    await record(store, ended("run-2"))
    assert await asyncio.to_thread(executions) is not first
