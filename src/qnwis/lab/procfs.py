"""What /proc says of processes: who is still the one we started, and who lives in a folder."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Iterable
from pathlib import Path

from .errors import LabError

_PROC = Path("/proc")
_STATE, _PARENT, _SESSION, _TERMINAL, _START = 0, 1, 3, 4, 19
"""Fields of /proc/<pid>/stat, counted from the one after the command's closing parenthesis."""


def _stat(pid: int) -> list[str] | None:
    """The fields after the command; None if the process is gone or only waits to be reaped."""
    try:
        text = (_PROC / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return None if not fields or fields[_STATE] in "ZX" else fields


def identity(pid: int) -> str | None:
    """What tells a process from any later one of the same pid; None if there is no such process now."""
    fields = _stat(pid)
    return None if fields is None else f"{_boot_id()}:{fields[_START]}"


def _boot_id() -> str:
    return (_PROC / "sys/kernel/random/boot_id").read_text().strip()


def _pids() -> list[int]:
    return [int(entry) for entry in os.listdir(_PROC) if entry.isdigit()]  # noqa: PTH208 - names suffice


def session_members(session: int) -> list[int]:
    """The processes of a session, oldest first."""
    found = []
    for pid in _pids():
        fields = _stat(pid)
        if fields is not None and int(fields[_SESSION]) == session:
            found.append((int(fields[_START]), pid))
    return [pid for _, pid in sorted(found)]


def living_inside(folder: Path) -> list[int]:
    """Processes whose working directory is in `folder`, oldest first.

    PostgreSQL's processes work in the data directory and leave their parent's process group and session;
    orphans among them outlive the postmaster. The working directory is what all of them keep. Whoever has a
    terminal is a person who looks around in the folder, not a part of the lab; neither are this process and
    its ancestors.
    """
    root = os.path.realpath(folder)
    spared = _self_and_ancestors()
    found = []
    for pid in _pids():
        try:
            cwd = os.readlink(_PROC / str(pid) / "cwd")  # noqa: PTH115 - a deleted folder is no path
        except OSError:
            continue
        cwd = cwd.removesuffix(" (deleted)")
        fields = _stat(pid)
        if (
            fields is not None
            and (cwd == root or cwd.startswith(root + os.sep))
            and fields[_TERMINAL] == "0"
            and pid not in spared
        ):
            found.append((int(fields[_START]), pid))
    return [pid for _, pid in sorted(found)]


def _self_and_ancestors() -> set[int]:
    pid, line = os.getpid(), set()
    while pid > 0 and pid not in line:
        line.add(pid)
        fields = _stat(pid)
        pid = 0 if fields is None else int(fields[_PARENT])
    return line


def kill_inside(folder: Path, *, timeout_s: float = 10.0) -> int:
    """SIGKILL every process that lives in `folder`, until none is left. Returns how many were killed.

    The oldest go first: an agent before the database that it would start again, a postmaster before the
    children that it would replace. Raises LabError if some survive `timeout_s`.
    """
    killed: set[int] = set()
    deadline = time.monotonic() + timeout_s
    while pids := living_inside(folder):
        if time.monotonic() > deadline:
            raise LabError(f"processes {pids} in {folder} survived SIGKILL for {timeout_s:g} s")
        killed.update(pids)
        for pid in pids:
            signal_process(pid, signal.SIGKILL)
        wait_gone(pids, timeout_s=max(0.0, deadline - time.monotonic()))
    return len(killed)


def signal_process(pid: int, number: signal.Signals) -> None:
    """Send a signal; a process that is gone is fine."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def is_stopped(pid: int) -> bool:
    """Whether the process stands still (SIGSTOP), or is gone."""
    fields = _stat(pid)
    return fields is None or fields[_STATE] == "T"


def wait_gone(pids: Iterable[int], *, timeout_s: float) -> bool:
    """Wait until all of these have ended; whether they did within `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    for pid in pids:
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            left_s = max(0.0, deadline - time.monotonic())
            if not select.select([descriptor], [], [], left_s)[0]:
                return False
        finally:
            os.close(descriptor)
    return True
