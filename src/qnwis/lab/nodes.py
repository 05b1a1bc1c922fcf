"""A node of the lab as a machine: a folder in which its agent and its database live, and a power button."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .errors import LabError
from .layout import Folder
from .places import HERE, Place
from .processes import Processes, Started, python_module
from .procfs import kill_inside, living_inside
from .shape import Disk
from .state import read_state


def machine_of(folder: Folder, processes: Processes, node_id: str) -> NodeMachine:
    """The node of a lab as that lab runs it."""
    state = read_state(folder)
    if state is None:
        return NodeMachine(folder, processes, node_id)
    return NodeMachine(folder, processes, node_id, state.block.place(node_id), state.agent_module)


class PoweredOffError(LabError):
    """The node's power switch is off."""


@dataclass(frozen=True)
class NodeMachine:
    """A node's folder and what can be done to it from outside."""

    folder: Folder
    processes: Processes
    node_id: str
    place: Place = HERE
    agent_module: str = "qnwis.agent"
    """The program that runs as its agent."""

    @property
    def home(self) -> Path:
        return self.folder.nodes / self.node_id

    @property
    def agent_config(self) -> Path:
        return self.home / "agent.yaml"

    @property
    def state_dir(self) -> Path:
        """The agent's own: its epoch, its journal, its logs."""
        return self.home / "agent"

    @property
    def data_dir(self) -> Path:
        """PostgreSQL's. Its parent belongs to PostgreSQL's user too, for copies beside it."""
        return self.home / "postgres" / "data"

    @property
    def log_dir(self) -> Path:
        """A folder for PostgreSQL's write-ahead log where that has a disk of its own; else empty."""
        return self.home / "postgres" / "wal"

    def disk(self, name: Disk) -> Path:
        """The folder that is the disk of that name where the lab's shape made it a small one."""
        return {"agent": self.state_dir, "wal": self.log_dir}[name]

    @property
    def powered_off(self) -> bool:
        return self._marker.exists()

    @property
    def agent(self) -> Started | None:
        """The agent last started, running or not."""
        return self.processes.find(self._name)

    @property
    def running(self) -> bool:
        """Whether anything of the node is alive."""
        return bool(living_inside(self.home))

    def start(self) -> Started:
        """Start the agent, which starts the database. Raises PoweredOffError, LabError if it runs already."""
        with self._power():
            if self.powered_off:
                raise PoweredOffError(
                    f"{self.node_id} is powered off; switch it on (POST /nodes/{self.node_id}/on)"
                )
            return self._start()

    def kill(self) -> int:
        """SIGKILL the agent and every process of the database, as a crash of the machine would.

        Returns the number of processes killed. The node stays powered on and may be started again.
        """
        killed = kill_inside(self.home)
        self.processes.reap()
        return killed

    def power_off(self) -> tuple[bool, int]:
        """Cut the power: nothing of the node runs, nor can it be started. Whether that changed anything, and
        how many processes were killed."""
        with self._power():
            was_on = not self.powered_off
            self._marker.touch()
            killed = self.kill()
            return was_on or killed > 0, killed

    def power_on(self) -> bool:
        """Give power and start the agent if it is not running. Whether that changed anything."""
        with self._power():
            was_off = self.powered_off
            self._marker.unlink(missing_ok=True)
            if self.agent is not None and self.agent.alive:
                return was_off
            self._start()
            return True

    def _start(self) -> Started:
        command = python_module(self.agent_module, "--config", str(self.agent_config))
        return self.processes.start(self._name, command, cwd=self.home, place=self.place)

    @property
    def _name(self) -> str:
        return f"agent-{self.node_id}"

    @property
    def _marker(self) -> Path:
        return self.home / "powered-off"

    @contextmanager
    def _power(self) -> Iterator[None]:
        """One change of the node's power at a time: nothing starts while it is being switched off."""
        with (self.home / "power.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
