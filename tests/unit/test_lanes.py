"""Which process runs which files (tests/lanes.py), on a small suite in processes of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests import lanes
from tests.lanes import LONGEST, NICENESS, Lanes, may_hurry

PROJECT = Path(__file__).parents[2]
TESTS = """
import os
import pytest

@pytest.mark.parametrize("number", range(3))
def test_it(number, pytestconfig):
    with (pytestconfig.rootpath / "ran.txt").open("a") as file:
        file.write(f"{os.environ['PYTEST_XDIST_WORKER']} {os.nice(0)} {__file__}\\n")
"""


@dataclass(frozen=True)
class Ran:
    """A file, as one of the processes ran it."""

    process: str
    niceness: int
    file: str
    """Below the folder of the tests."""


def run(root: Path, *files: str, only: str = "tests", processes: int = 3) -> tuple[list[Ran], str]:
    """Each file once, in the order in which they were begun; and what was said."""
    for file in files:
        path = root / "tests" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(TESTS)
    (root / "pytest.ini").touch()
    plugins = ("-p", "no:cacheprovider", "-p", "xdist", "-p", "tests.lanes")
    spread = ("--numprocesses", str(processes), "--dist", "loadfile", "--no-loadscope-reorder")
    path = f"{PROJECT / 'src'}:{PROJECT}"
    said = subprocess.run(
        [sys.executable, "-m", "pytest", *plugins, *spread, only],
        cwd=root,
        # Without the project's plugins a process starts in a third of the time.
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": path},
        capture_output=True,
        text=True,
    ).stdout
    lines = [line.split() for line in (root / "ran.txt").read_text().splitlines()]
    ran = [Ran(p, int(n), str(Path(f).relative_to(root / "tests"))) for p, n, f in lines]
    return list(dict.fromkeys(ran)), said


def test_real_clusters_and_what_only_computes_have_processes_of_their_own(tmp_path: Path) -> None:
    real = ["unit/agent/test_0.py", *(f"integration/test_{n}.py" for n in range(1, 4))]
    pure = [f"unit/test_{n}.py" for n in "abcdef"]
    ran, said = run(tmp_path, *real, *pure)
    assert "30 passed" in said, said
    assert sorted(each.file for each in ran) == sorted((*real, *pure)), "a file's tests stay together"
    patient, nice = [each for each in ran if each.process == "gw2"], min(19, os.nice(0) + NICENESS)
    assert may_hurry() or all(each.file in pure for each in patient)
    assert patient and all(each.niceness == (nice if each.file in pure else os.nice(0)) for each in patient)
    kinds = [each.file in pure for each in patient]
    assert kinds[0] and kinds == sorted(kinds, reverse=True), "what only computes first"
    others = [each for each in ran if each.process != "gw2"]
    assert all(each.niceness == os.nice(0) for each in others)
    for process in ("gw0", "gw1"):
        kinds = [each.file in real for each in others if each.process == process]
        assert kinds == sorted(kinds, reverse=True), "real clusters first"


def test_the_longest_files_are_begun_first(tmp_path: Path) -> None:
    longest = [f"integration/{name}" for name in reversed(LONGEST[:2])]
    ran, said = run(tmp_path, "integration/test_a.py", *longest, "integration/test_z.py", processes=1)
    assert "12 passed" in said, said
    names = [each.file for each in ran]
    assert names == [*reversed(longest), "integration/test_a.py", "integration/test_z.py"]


def test_a_single_file_is_run_by_whoever_is_left(tmp_path: Path) -> None:
    for file in ("integration/test_a.py", "unit/test_a.py"):
        root = tmp_path / file.partition("/")[0]
        root.mkdir()
        ran, said = run(root, file, only=f"tests/{file}")
        assert ("3 passed" in said, [each.file for each in ran]) == (True, [file]), said


@dataclass(eq=False)
class Process:
    """Stands for one of two that xdist has started."""

    name: str
    asked: list[int] = field(default_factory=list)
    ended: bool = False

    @property
    def workerinput(self) -> dict[str, object]:
        return {"workerid": self.name, "workercount": 2}

    def send_runtest_some(self, numbers: list[int]) -> None:
        self.asked += numbers

    def shutdown(self) -> None:
        self.ended = True


@pytest.mark.parametrize(
    ("others", "hurries", "waiting", "takes"),
    [
        (("gw0",), True, ("integration", "unit"), "unit"),
        (("gw0",), True, ("integration",), "integration"),
        (("gw0",), False, ("integration",), None),
        ((), False, ("integration",), "integration"),
    ],
)
def test_the_patient_process_runs_real_clusters_once_nothing_else_is_left_and_it_may_hurry_again(
    monkeypatch: pytest.MonkeyPatch,
    others: tuple[str, ...],
    hurries: bool,
    waiting: tuple[str, ...],
    takes: str | None,
) -> None:
    monkeypatch.setattr(lanes, "may_hurry", lambda: hurries)
    patient, tests = Process("gw1"), [f"tests/{kind}/test_a.py::test" for kind in waiting]
    scheduler = Lanes.__new__(Lanes)
    scheduler.workqueue = OrderedDict((test.partition("::")[0], {test: False}) for test in tests)
    scheduler.registered_collections = {patient: tests}
    scheduler.assigned_work = {each: {} for each in (patient, *map(Process, others))}
    scheduler._assign_work_unit(patient)
    assert [tests[number] for number in patient.asked] == (
        [f"tests/{takes}/test_a.py::test"] if takes else []
    )
    assert patient.ended is (takes is None)
