"""The gate as a whole: what it says, writes and ends with."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from qnwis.scripts.qa import rg8_continuity_gate as gate
from qnwis.scripts.qa.rg8 import found as finding
from qnwis.scripts.qa.rg8 import summary
from qnwis.scripts.qa.rg8.found import Found, Measured, NotHere, Verdict, found

PROJECT = Path(__file__).parents[3]
FIGURE = Measured(what="figure", value=1.5, limit=2, unit="ms")


def passes() -> Found:
    return found("rbac", "it holds", [], [FIGURE])


def misses() -> Found:
    return found("audit", "it holds", ["a byte was flipped, expected that it shows"])


def is_not_here() -> Found:
    raise NotHere("no repository")


def breaks() -> Found:
    raise OSError("disk on fire")


def test_all_passed_is_0_and_both_files_say_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gate.main(["--output", str(tmp_path)], {"rbac": passes}) == 0
    text = (tmp_path / "CONTINUITY_SUMMARY.md").read_text()
    assert "Gate: **passed**" in text and "| rbac | passed | it holds |" in text
    data = json.loads((tmp_path / "continuity_summary.json").read_text())
    assert data["verdict"] == "passed" and data["measured"]["rbac"]["figures"][0]["value"] == 1.5
    assert "RG-8: passed" in capsys.readouterr().out


def test_a_miss_is_1_whatever_else_and_is_named_with_what_was_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    every = {"audit": misses, "rbac": passes, "histories": is_not_here}
    assert gate.main(["--output", str(tmp_path)], every) == 1
    out = capsys.readouterr().out
    assert "audit (missed): a byte was flipped, expected that it shows" in out
    assert "histories (not run): no repository" in out
    text = (tmp_path / "CONTINUITY_SUMMARY.md").read_text()
    assert "Gate: **missed**" in text and "- audit: a byte was flipped" in text


def test_what_was_not_run_is_not_passed(tmp_path: Path) -> None:
    output = ["--output", str(tmp_path)]
    assert gate.main(output, {"rbac": passes, "histories": is_not_here}) == 3
    assert gate.main([*output, "--without", "rbac"], {"rbac": passes}) == 3
    assert "| rbac | not run |" in (tmp_path / "CONTINUITY_SUMMARY.md").read_text()


def test_a_check_that_breaks_is_missed_and_the_others_are_run(capsys: pytest.CaptureFixture[str]) -> None:
    results = gate.gate({"audit": breaks, "rbac": passes})
    assert [one.verdict for one in results] == [Verdict.MISSED, Verdict.PASSED]
    assert results[0].reasons == ("the check itself ended with OSError: disk on fire",)


def test_figures_differ_below_the_mark_alone() -> None:
    one, other = (
        [found("rbac", "it holds", [], [FIGURE.model_copy(update={"value": value})], [f"note {value}"])]
        for value in (0.5, 1.9)
    )
    assert summary.markdown(one) != summary.markdown(other)
    above, below = summary.markdown(one).split(summary.MARK)
    assert above == summary.markdown(other).split(summary.MARK)[0]
    assert "0.5 ms" in below and "note 0.5" in below and "0.5" not in above


def test_the_committed_summary_is_of_the_checks_of_today_and_all_of_them_passed() -> None:
    """Its figures are of the run that was committed."""
    committed = (PROJECT / summary.FOLDER / summary.MARKDOWN).read_text()
    passed = [found(name, holds, []) for name, holds in gate.HOLDS.items()]
    assert committed.split(summary.MARK)[0] == summary.stable(passed), "make gate"
    assert "## Figures of one run" in committed.split(summary.MARK)[1]
    told = json.loads((PROJECT / summary.FOLDER / summary.JSON).read_text())
    expected = json.loads(summary.as_json(passed))
    of_one_run = {"measured", "machine"}
    assert told.keys() == expected.keys()
    assert all(told[name] == expected[name] for name in expected.keys() - of_one_run), "make gate"


@pytest.mark.parametrize("how", [["src/qnwis/scripts/qa/rg8_continuity_gate.py"], ["-m", gate.__name__]])
def test_it_runs_by_its_path_and_as_a_module(how: list[str], tmp_path: Path) -> None:
    command = [sys.executable, *how, "--only", "rbac"]
    ran = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)
    assert "✓ rbac" in ran.stdout, ran.stderr
    assert ran.returncode == 3 and "audit (not run): it was left out" in ran.stdout


def test_an_installed_package_says_what_it_lacks(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "site-packages" / "qnwis" / "scripts" / "qa" / "rg8"
    monkeypatch.setattr(finding, "__file__", str(place / "found.py"))
    names = ("scenarios", "histories", "dashboards", "documents")
    assert gate.main([], {name: gate.checks()[name] for name in names}) == 3
    out = capsys.readouterr().out
    for name in names:
        assert f"{name} (not run): it needs the files of the repository" in out
    assert "no summary is written: this is an installed package" in out
