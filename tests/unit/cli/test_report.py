"""`report`: found by run, by audit id, as what it is asked for; the trend; and a simulation's."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest
import typer

from qnwis.cli import execute
from qnwis.cli.watching import RunFailed
from qnwis.continuity.audit import draft_of
from qnwis.continuity.report import Report
from qnwis.continuity.run import FailoverRequest, Maintenance
from qnwis.providers.audit_store import SqliteAuditStore
from tests.unit.continuity.reports import failover, texts_of
from tests.unit.continuity.scenes import NOON

from .test_commands import FILES, call


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three runs, one a minute."""
    folder = tmp_path_factory.mktemp("state")
    store = SqliteAuditStore(folder / "audit.sqlite", folder / "audit-signing-key.pem")
    for number in range(1, 4):
        ended = NOON + timedelta(minutes=number)
        run = failover(run_id=f"run-{number}", started_at=ended - timedelta(seconds=2), ended_at=ended)
        asyncio.run(store.append(draft_of(run), texts_of(run)))
    return folder


def report(state: Path, *arguments: str) -> str:
    done = call("report", *arguments, "--state-dir", str(state))
    assert done.exit_code == 0, done.output
    return done.stdout


def test_a_run_is_found_by_its_id_its_records_id_and_as_the_latest(state: Path) -> None:
    found = [
        Report.model_validate_json(report(state, name, "--format", "json"))
        for name in ("run-3", "audit-cont-20250111-120300", "latest")
    ]
    assert found[0] == found[1] == found[2] and found[0].run_id == "run-3"
    assert (found[0].initiated_by, found[0].approved_by) == ("bob", "ann"), "with their names"


def test_it_is_written_as_the_file_ends_or_as_it_is_asked_for(state: Path, tmp_path: Path) -> None:
    page, text = tmp_path / "a.html", tmp_path / "a.txt"
    assert report(state, "--output", str(page), "run-1").strip() == str(page)
    assert page.read_text().startswith("<!doctype html>")
    report(state, "run-1", "--output", str(text), "--format", "md")
    assert text.read_text() == report(state, "of", "run-1")
    assert text.read_text().startswith("# failover_execute of prod-cluster\n")


def test_what_is_not_there_or_cannot_be_written_is_named_with_what_was_expected(state: Path) -> None:
    unknown = call("report", "run-9", "--state-dir", str(state))
    assert unknown.exit_code == 2 and "no run and no record run-9" in unknown.stderr
    assert "expected a run id, an audit id" in unknown.stderr
    nowhere = call("report", "run-1", "--state-dir", str(state), "--output", str(state / "no" / "a.html"))
    assert nowhere.exit_code == 2 and "a file that can be written" in nowhere.stderr
    bad = call("report", "run-1", "--state-dir", str(state), "--format", "pdf")
    assert bad.exit_code == 2 and "'html', 'md', 'json'" in bad.stderr
    assert call("report", "run-1", "--state-dir", str(state / "none")).exit_code == 2


def test_the_trend_is_against_the_objective_and_forecasts_the_next_run(state: Path) -> None:
    told = json.loads(report(state, "trend", "prod-cluster", "--objective", "70", "--json"))
    (trend,) = told["trends"]
    assert [run["within"] for run in trend["runs"]] == [True, False, False]
    assert trend["change_ms_per_run"] == 60_000.0 and trend["forecast"]["runs"] == 3
    shown = report(state, "trend", "prod-cluster", "--objective", "70")
    assert "MISSED" in shown and "next run: 118.8 s (P50), 178.8 s (P90), of 3 runs" in shown
    unknown = call("report", "trend", "other", "--state-dir", str(state))
    assert unknown.exit_code == 1 and "no verified run of other" in unknown.stderr


def test_a_plan_says_how_long_earlier_failovers_took_and_no_damaged_trail_holds_it_up(
    state: Path, tmp_path: Path
) -> None:
    plan = ("plan", *FILES, "--state-dir")
    assert "recovered in 118.8 s (P50), 178.8 s (P90), of 3 runs" in call(*plan, str(state)).output
    (tmp_path / "audit.sqlite").write_text("no database")
    damaged = call(*plan, str(tmp_path))
    assert damaged.exit_code == 0 and "earlier failovers: not known" in damaged.output, damaged.output
    assert "earlier failovers" not in call(*plan, str(tmp_path / "none")).output


@pytest.mark.parametrize(
    ("maintenance", "told"),
    [
        (None, "earlier failovers: recovered in 118.8 s"),
        (Maintenance(), "earlier planned maintenance: too few"),
    ],
)
def test_whoever_follows_a_run_sees_how_long_earlier_ones_took(
    state: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    maintenance: Maintenance | None,
    told: str,
) -> None:
    async def begun(*_: object) -> Any:
        return SimpleNamespace(id="failover-prod-cluster", result_run_id="run-4")

    async def goes_on(_: object) -> NoReturn:
        raise RunFailed("what was shown before is looked at")

    monkeypatch.setattr(execute, "connect", begun)
    monkeypatch.setattr(execute, "follow_on_terminal", goes_on)
    monkeypatch.setenv("QNWIS_STATE_DIR", str(state))
    request = FailoverRequest(
        cluster_id="prod-cluster", initiated_by="ann", reason="test", maintenance=maintenance
    )
    with pytest.raises(typer.Exit):
        execute.see_through(begun, request, None, as_json=False)
    assert told in capsys.readouterr().out


def test_a_simulation_has_a_report(tmp_path: Path) -> None:
    page, text = tmp_path / "s.html", tmp_path / "s.md"
    for path in (page, text):
        done = call("simulate", *FILES, "--report", str(path))
        assert done.exit_code == 0, done.output
    assert page.read_text().startswith("<!doctype html>")
    assert '<rect class="bar"' in page.read_text() and "longer than expected" not in page.read_text()
    assert "\n## Timeline\n" in text.read_text() and "- passed: yes" in text.read_text()
    wrong = call("simulate", *FILES, "--report", str(tmp_path / "s.json"))
    assert wrong.exit_code == 2 and ".html or .md" in wrong.stderr
