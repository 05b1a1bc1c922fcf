"""Whether the database is this agent's to start and end, or still somebody else's: systemd's, a person's.

Before an agent has started a database for the first time, a postmaster that runs there is foreign: an agent
that was set up beside a live database must neither end it nor take it for its own, for its settings are not
yet the agent's. From the first start on, whatever runs there is the agent's to end.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from qnwis.continuity.refusal import Refusal

from .config import LocalDatabase
from .files import write_durably
from .processes import processes_in

_UNIT = re.compile(r"/([^/]+\.service)(?:/|$)", re.MULTILINE)


class TakenOver:
    """The first start of a database by an agent of this node, remembered on disk."""

    def __init__(self, file: Path, data_dir: Path) -> None:
        self._file = file
        self._data_dir = data_dir

    def now(self) -> None:
        """The agent starts the database."""
        if not self._is_so():
            write_durably(self._file, f"{self._data_dir}\n")

    def foreign_pid(self) -> int | None:
        """Of somebody else's postmaster that runs there."""
        if self._is_so():
            return None
        pid = postmaster_pid(self._data_dir)
        if pid is None or pid not in processes_in(self._data_dir):
            return None
        return None if _parent_of(pid) == os.getpid() else pid

    def refuse_foreign(self, node_id: str) -> Refusal | None:
        """Why the agent does nothing to the database, while it is somebody else's."""
        pid = self.foreign_pid()
        if pid is None:
            return None
        unit = _unit_of(pid)
        return Refusal(
            rule="foreign_postmaster",
            message=f"{node_id}: PostgreSQL runs already in {self._data_dir} (process {pid}"
            f"{f' of {unit}' if unit else ''}), and this agent has never started it; it is left alone",
            values={"data_dir": str(self._data_dir), "pid": pid, "unit": unit},
            remedy=f"Hand it over: `systemctl disable --now {unit}` and `systemctl mask {unit}`"
            if unit
            else "Hand it over: stop it where it was started, and have it not started there again",
        )

    def _is_so(self) -> bool:
        return self._file.exists() and self._file.read_text().strip() == str(self._data_dir)


def postmaster_pid(data_dir: Path) -> int | None:
    """As PostgreSQL wrote it down; the process may be gone."""
    try:
        return int((data_dir / "postmaster.pid").read_text().split("\n", 1)[0])
    except (OSError, ValueError):
        return None


def stale_socket_locks(database: LocalDatabase) -> list[Path]:
    """Locks of sockets that a postmaster of this data directory left. It must not run any more: PostgreSQL
    would take another process that has its number by now for it, and not start."""
    locks = [folder / f".s.PGSQL.{database.port}.lock" for folder in database.socket_dirs]
    return [lock for lock in locks if _second_line(lock) == str(database.data_dir)]


def _second_line(lock: Path) -> str | None:
    """Of a lock file: whose data directory it is."""
    try:
        return lock.read_text().split("\n")[1]
    except (OSError, IndexError):
        return None


def _parent_of(pid: int) -> int | None:
    try:
        # The second field is the program's name, in parentheses, and may hold anything.
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, IndexError, ValueError):
        return None


def _unit_of(pid: int) -> str | None:
    """The systemd service that started the process."""
    try:
        found = _UNIT.findall(Path(f"/proc/{pid}/cgroup").read_text())
    except OSError:
        return None
    return found[-1] if found else None
