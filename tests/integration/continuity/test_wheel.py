"""A wheel installed somewhere else is the same program: its runbooks and default configuration come along."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel's content, as pip unpacks it."""
    home = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check"]
    build = ["wheel", "--no-deps", "--no-build-isolation", "-w", str(home), str(PROJECT)]
    subprocess.run([*pip, *build], check=True)
    (wheel,) = home.glob("*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", str(home / "site"), str(wheel)], check=True)
    return home / "site"


def run(installed: Path, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env={"PYTHONPATH": str(installed), "NO_COLOR": "1", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command_plans_from_any_folder(installed: Path, tmp_path: Path) -> None:
    config = installed / "qnwis/_shipped/config/continuity"
    command = ("-m", "qnwis.cli.qnwis_continuity", "plan")
    files = ("--cluster", str(config / "cluster.yaml"), "--policy", str(config / "policy.yaml"))
    done = run(installed, *command, *files, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "node-1 → node-2" in done.stdout


def test_the_runbooks_are_those_of_the_wheel(installed: Path, tmp_path: Path) -> None:
    ask = (
        "from qnwis.runbook import load_runbook; from qnwis.config.shipped import shipped;"
        "print(load_runbook('primary_failure').title); print(shipped('runbooks'))"
    )
    done = run(installed, "-c", ask, cwd=tmp_path)
    assert done.stdout.splitlines() == ["Primary node failure", str(installed / "qnwis/_shipped/runbooks")]


def test_worker_and_workflows_come_along(installed: Path, tmp_path: Path) -> None:
    done = run(installed, "-c", "import workers.wiring; print(workers.__file__)", cwd=tmp_path)
    assert done.stdout.strip() == str(installed / "workers/__init__.py")


def test_the_statements_for_a_region_come_along(installed: Path, tmp_path: Path) -> None:
    done = run(installed, "-c", "from qnwis.sql import active_active; print(active_active())", cwd=tmp_path)
    assert "CREATE SCHEMA qnwis;" in done.stdout, done.stderr


def test_the_console_comes_along(installed: Path, tmp_path: Path) -> None:
    ask = "from qnwis.api.console import pages; print({'/console/', '/console/views/run.js'} <= {*pages()})"
    done = run(installed, "-c", ask, cwd=tmp_path)
    assert done.stdout == "True\n", done.stderr
