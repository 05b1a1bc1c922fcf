"""Only what the lab started is ever stopped, and nothing of it is left."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from qnwis.lab.errors import LabError
from qnwis.lab.processes import Processes, last_lines
from qnwis.lab.procfs import identity, kill_inside, living_inside, wait_gone

SLEEP = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(60)"]
# A grandchild in a session of its own, as PostgreSQL's backends are.
FAMILY = [
    sys.executable,
    "-c",
    "import subprocess, sys, time\n"
    "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
    "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'], start_new_session=True)\n"
    "print('up', flush=True); time.sleep(60)",
]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "print('up', flush=True); time.sleep(60)",
]


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    kill_inside(tmp_path)


@pytest.fixture
def processes(home: Path) -> Processes:
    return Processes(home / "processes", home / "logs")


def until_up(log: Path) -> None:
    """Wait until the process has written its line."""
    with subprocess.Popen(
        ["tail", "-n", "+1", "-F", log], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as tail:
        assert tail.stdout is not None
        assert tail.stdout.readline()
        tail.kill()


def test_a_process_outlives_its_starter_in_name_and_is_stopped_by_another(
    home: Path, processes: Processes
) -> None:
    started = processes.start("one", SLEEP, cwd=home)
    assert os.getsid(started.pid) == started.pid
    other = Processes(home / "processes", home / "logs")
    assert [p.pid for p in other.all()] == [started.pid]
    other.stop(["one"])
    assert not started.alive
    assert other.all() == []


def test_a_name_is_used_once_at_a_time(home: Path, processes: Processes) -> None:
    processes.start("one", SLEEP, cwd=home)
    with pytest.raises(LabError, match="one is already running as process"):
        processes.start("one", SLEEP, cwd=home)
    processes.kill("one")
    assert processes.start("one", SLEEP, cwd=home).alive


def test_what_a_process_started_ends_with_it(home: Path, processes: Processes) -> None:
    started = processes.start("one", FAMILY, cwd=home)
    until_up(started.log)
    family = started.members()
    assert len(family) == 2
    processes.stop(["one"])
    assert [pid for pid in family if identity(pid)] == []


def test_a_process_that_ignores_sigterm_is_killed(home: Path, processes: Processes) -> None:
    started = processes.start("one", STUBBORN, cwd=home)
    until_up(started.log)
    processes.stop(["one"], grace_s=0.05)
    assert not started.alive


def test_a_pid_that_went_to_somebody_else_is_left_alone(home: Path, processes: Processes) -> None:
    started = processes.start("one", SLEEP, cwd=home)
    record = home / "processes" / "one.json"
    record.write_text(started.model_copy(update={"identity": "an earlier boot:1"}).model_dump_json())
    processes.stop_all()
    assert started.alive
    assert processes.find("one") is None


def test_a_program_that_is_not_there_is_named(home: Path, processes: Processes) -> None:
    with pytest.raises(LabError, match=r"one: /nonexistent cannot be started: No such file"):
        processes.start("one", ["/nonexistent"], cwd=home)


def test_a_child_imports_what_its_starter_imports(
    home: Path, processes: Processes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A relative PYTHONPATH means something else in another working directory."""
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "only_here.py").write_text("print('up', flush=True)")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("here")
    started = processes.start("one", [sys.executable, "-m", "only_here"], cwd=Path("/"))
    wait_gone([started.pid], timeout_s=20)
    assert last_lines(started.log) == "up"


def test_everything_that_lives_in_a_folder_is_killed_whatever_its_session(
    home: Path, processes: Processes
) -> None:
    (home / "node").mkdir()
    (home / "node-2").mkdir()
    inside = processes.start("inside", FAMILY, cwd=home / "node")
    beside = processes.start("beside", SLEEP, cwd=home / "node-2")
    until_up(inside.log)
    os.kill(inside.pid, signal.SIGKILL)
    wait_gone([inside.pid], timeout_s=5)
    assert kill_inside(home / "node") == 2
    assert living_inside(home / "node") == []
    assert beside.alive


def test_this_process_and_a_person_at_a_terminal_are_spared(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home)
    person, terminal = pty.fork()
    if person == 0:
        os.execvp(SLEEP[0], SLEEP)
    try:
        assert os.read(terminal, 100)
        assert kill_inside(home) == 0
        assert identity(person) is not None
    finally:
        os.kill(person, signal.SIGKILL)
        os.waitpid(person, 0)
        os.close(terminal)
