"""Starting the lab's processes detached, and stopping exactly those again, in this or a later run.

Each process has a file with its pid and what tells it from a later process of the same pid, so that a lab
whose owner was killed can be cleaned up, and nothing else is ever signalled.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from qnwis.continuity.model import Model

from .errors import LabError
from .places import HERE, Place
from .procfs import identity, session_members, signal_process, wait_gone


class Started(Model):
    """A process that the lab started."""

    name: str
    pid: int
    """Also its session: it was started as the leader of one."""
    identity: str
    command: tuple[str, ...]
    log: Path

    @property
    def alive(self) -> bool:
        return identity(self.pid) == self.identity

    def members(self) -> list[int]:
        """It and what it started in its session; empty once the pid belongs to somebody else."""
        if identity(self.pid) not in (None, self.identity):
            return []
        return session_members(self.pid)


class Processes:
    """The processes of one lab, by name. Several programs may use the same folder at once."""

    def __init__(self, folder: Path, logs: Path) -> None:
        self._folder = folder
        self._logs = logs
        self._children: list[subprocess.Popen[bytes]] = []

    def start(
        self,
        name: str,
        command: Sequence[str],
        *,
        cwd: Path,
        env: Mapping[str, str] | None = None,
        place: Place = HERE,
    ) -> Started:
        """Start a process in a session of its own; its output is appended to `<name>.log`.

        `env` is added to this process's environment. Raises LabError when one of that name is running, or
        when the program cannot be started.
        """
        found = self.find(name)
        if found is not None and found.alive:
            raise LabError(f"{name} is already running as process {found.pid}; stop it first")
        self._folder.mkdir(parents=True, exist_ok=True)
        self._logs.mkdir(parents=True, exist_ok=True)
        log = self._logs / f"{name}.log"
        command = place.command(command)
        with log.open("ab") as output:
            try:
                child = subprocess.Popen(
                    command,
                    cwd=cwd,
                    env={**os.environ, **import_path(), **place.env, **(env or {})},
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            except OSError as error:
                raise LabError(f"{name}: {command[0]} cannot be started: {error.strerror}") from error
        self._children.append(child)
        # A child that ended at once is known by its pid alone: it is never alive, and is signalled never.
        started = Started(
            name=name, pid=child.pid, identity=identity(child.pid) or "", command=tuple(command), log=log
        )
        record = self._folder / f"{name}.json"
        temporary = record.with_suffix(".new")
        temporary.write_text(started.model_dump_json())
        temporary.replace(record)
        return started

    def find(self, name: str) -> Started | None:
        """The process last started under that name, running or not."""
        try:
            return Started.model_validate_json((self._folder / f"{name}.json").read_text())
        except FileNotFoundError:
            return None

    def all(self) -> list[Started]:
        return [s for path in sorted(self._folder.glob("*.json")) if (s := self.find(path.stem)) is not None]

    def stop(self, names: Iterable[str], *, grace_s: float = 5.0) -> None:
        """End these processes and whatever they left in their sessions; unknown and ended ones are fine.

        All are asked at once with SIGTERM; what is left after `grace_s` is killed.
        """
        stopping = [s for name in names if (s := self.find(name)) is not None]
        for started in stopping:
            if started.alive:
                signal_process(started.pid, signal.SIGTERM)
        wait_gone((s.pid for s in stopping if s.alive), timeout_s=grace_s)
        for started in stopping:
            members = started.members()
            for pid in members:
                signal_process(pid, signal.SIGKILL)
            if not wait_gone(members, timeout_s=5.0):
                raise LabError(f"{started.name}: process {started.pid} survived SIGKILL")
            (self._folder / f"{started.name}.json").unlink(missing_ok=True)
        self.reap()

    def kill(self, name: str) -> None:
        """SIGKILL a process and its session, as a crash would; its record stays."""
        started = self.find(name)
        if started is None:
            raise LabError(f"no process {name!r}; known: {[s.name for s in self.all()]}")
        members = started.members()
        for pid in members:
            signal_process(pid, signal.SIGKILL)
        wait_gone(members, timeout_s=5.0)
        self.reap()

    def stop_all(self, *, grace_s: float = 5.0) -> None:
        self.stop([s.name for s in self.all()], grace_s=grace_s)

    def reap(self) -> None:
        """Let go of children that have ended, so that they do not stay behind as zombies."""
        self._children = [child for child in self._children if child.poll() is None]


def python_module(module: str, *arguments: str) -> list[str]:
    """The command that runs a module of this project in the same interpreter."""
    return [sys.executable, "-m", module, *arguments]


def import_path() -> dict[str, str]:
    """PYTHONPATH under which a child in another working directory imports what this process imports."""
    return {"PYTHONPATH": os.pathsep.join(str(Path(entry).absolute()) for entry in sys.path)}


def last_lines(log: Path, count: int = 5) -> str:
    """The end of a log, for an error message."""
    try:
        lines = log.read_text(errors="replace").strip().splitlines()
    except OSError:
        return "(no log)"
    return "\n".join(lines[-count:]) or "(empty log)"
