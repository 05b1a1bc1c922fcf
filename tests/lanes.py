"""Which process of `make test` runs which files, in which order, and with which priority.

    pytest -p tests.lanes --numprocesses 3 --dist loadfile --no-loadscope-reorder

Tests of real clusters wait for a good part of their time: for a lease to run out, for beats that are missed,
for a process to start. So more of them run at once than there are processors, and what only computes fills
the time between: one process, the patient one, gives way to the others while it does that, so that it
keeps no agent from renewing its lease and no page from being drawn. When nothing is left that only computes,
it runs real clusters as the others do, with their priority, where it may take that again (mostly as root);
when no real cluster is left, the others take what only computes. A file's tests stay together: they share
what they started.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import pytest
from xdist.scheduler import LoadFileScheduling
from xdist.workermanage import WorkerController

PUNCTUAL = ("tests/integration/", "tests/unit/agent/", "tests/unit/test_telling.py")
"""Where something has to come to pass in time: leases, guards, a channel that hangs. Everything else only
computes, and passes on a machine that gives it next to nothing."""
LONGEST = (
    "test_failover_on_real_parts.py",
    "test_agent.py",
    "test_scenarios.py",
    "test_matrix_of_maintenance.py",
    "test_agent_database.py",
    "test_region_guardian.py",
    "test_agent_enforcement.py",
    "test_console.py",
    "test_agent_switchover.py",
    "test_tutorial.py",
)
"""Begun first, so that at the end no process waits for another's last file. What is not named follows."""
NICENESS = 5
"""Of the patient process: a third of another's share. With the least of all, a busy machine lets it get
nowhere for minutes, and each test has a time limit."""
CAP_SYS_NICE = 23
BEFORE = pytest.StashKey[int]()
"""Niceness of the patient process before it was one."""


def is_patient(file: str) -> bool:
    """Whether the tests in this file (its path, as in a test's id) may give way to the others."""
    return not file.startswith(PUNCTUAL)


def next_file(waiting: Iterable[str], *, patient: bool, may_turn: bool) -> str | None:
    """Of these files, in their order, the one for the patient process, or for another; None if none is.
    `may_turn`: whether the patient one may be like the others once nothing else is left for it."""
    files = sorted(waiting, key=is_patient, reverse=patient)
    file = next(iter(files), None)
    return None if file is not None and patient and not (is_patient(file) or may_turn) else file


def rank(name: str) -> int:
    """By which files of these names are begun in turn."""
    return LONGEST.index(name) if name in LONGEST else len(LONGEST)


def may_hurry() -> bool:
    """Whether a process of ours may take back what it gave way: CAP_SYS_NICE, of effective capabilities."""
    status = Path("/proc/self/status").read_text()
    (held,) = (line.split()[1] for line in status.splitlines() if line.startswith("CapEff:"))
    return bool(int(held, 16) >> CAP_SYS_NICE & 1)


def pytest_configure(config: pytest.Config) -> None:
    if getattr(config, "workerinput", {}).get("patient"):
        config.stash[BEFORE] = os.nice(0)
        os.nice(NICENESS)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> None:
    before = item.config.stash.get(BEFORE, None)  # None in every other process
    if before is not None and not is_patient(item.nodeid):
        for thread in Path("/proc/self/task").iterdir():  # each has a priority of its own
            with suppress(ProcessLookupError, PermissionError):
                os.setpriority(os.PRIO_PROCESS, int(thread.name), before)
        del item.config.stash[BEFORE]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: rank(item.path.name))


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: WorkerController) -> None:
    node.workerinput["patient"] = _is_last(node)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> Lanes | None:
    return Lanes(config, log) if config.getvalue("dist") == "loadfile" else None


def _is_last(node: WorkerController) -> bool:
    """Of those that the run began with; one that takes a crashed one's place is like any other."""
    count = node.workerinput["workercount"]
    return bool(count > 1 and node.workerinput["workerid"] == f"gw{count - 1}")


class Lanes(LoadFileScheduling):  # type: ignore[misc]
    """Gives each process whole files, of the kind that it is for."""

    def _assign_work_unit(self, node: WorkerController) -> None:
        file = self._next_for(node)
        if file is None:
            node.shutdown()  # when it has done what it was given
        else:
            self.workqueue.move_to_end(file, last=False)
            super()._assign_work_unit(node)

    def _next_for(self, node: WorkerController) -> str | None:
        # Of a single file one process is left, whichever was ready first.
        alone = all(map(_is_last, self.nodes))
        return next_file(self.workqueue, patient=_is_last(node), may_turn=alone or may_hurry())
