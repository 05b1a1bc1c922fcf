"""What can befall the lab's processes: killed, frozen, thawed; a machine whole or a part of it.

Blocking; none waits for longer than signals take. Links are cut and slowed by `qnwis.lab.network`, disks
filled by `qnwis.lab.disks`, clocks set by `qnwis.lab.clocks`.
"""

from __future__ import annotations

import signal
import time
from pathlib import Path

from .cluster import Lab
from .errors import LabError
from .nodes import NodeMachine
from .parts import Part
from .procfs import is_stopped, living_inside, signal_process, wait_gone

_STOPPED_WITHIN_S = 2.0


def processes_of(machine: NodeMachine, part: Part) -> list[int]:
    """The pids that make up the part now, oldest first."""
    match part:
        case Part.ALL:
            return living_inside(machine.home)
        case Part.AGENT:
            agent = machine.agent
            return [] if agent is None or not agent.alive else [agent.pid]
        case Part.GUARD:
            return [p for p in living_inside(machine.home) if b"qnwis.agent.guard" in _command(p)]
        case Part.DATABASE:
            return living_inside(machine.data_dir)
        case Part.POSTMASTER:
            return [p for p in living_inside(machine.data_dir) if p == _postmaster(machine)]
        case Part.RECEIVER:
            return [p for p in living_inside(machine.data_dir) if b"walreceiver" in _command(p)]


def kill_part(machine: NodeMachine, part: Part) -> int:
    """SIGKILL the part; how many processes that were."""
    if part is Part.ALL:
        return machine.kill()
    pids = processes_of(machine, part)
    for pid in pids:
        signal_process(pid, signal.SIGKILL)
    wait_gone(pids, timeout_s=5.0)
    machine.processes.reap()
    return len(pids)


def freeze(machine: NodeMachine, part: Part) -> int:
    """SIGSTOP the part, and what it starts meanwhile; how many processes stand still then. Raises LabError
    when some do not."""
    deadline = time.monotonic() + _STOPPED_WITHIN_S
    while moving := [pid for pid in processes_of(machine, part) if not is_stopped(pid)]:
        if time.monotonic() > deadline:
            raise LabError(f"{machine.node_id}: processes {moving} of its {part} did not stop")
        for pid in moving:
            signal_process(pid, signal.SIGSTOP)
    return len(processes_of(machine, part))


def thaw(machine: NodeMachine, part: Part) -> None:
    """SIGCONT; what is not frozen does not notice."""
    for pid in processes_of(machine, part):
        signal_process(pid, signal.SIGCONT)


def freeze_process(lab: Lab, name: str) -> None:
    """SIGSTOP one of the lab's processes that belong to no node, and its session."""
    _signal_process(lab, name, signal.SIGSTOP)


def thaw_process(lab: Lab, name: str) -> None:
    _signal_process(lab, name, signal.SIGCONT)


def refuse_updates(lab: Lab) -> None:
    """The DNS server answers REFUSED to every update, and goes on answering queries."""
    lab.folder.dns_refusing.touch()


def take_updates(lab: Lab) -> None:
    lab.folder.dns_refusing.unlink(missing_ok=True)


def _signal_process(lab: Lab, name: str, number: signal.Signals) -> None:
    started = lab.processes.find(name)
    if started is None:
        raise LabError(f"no process {name!r}; known: {[s.name for s in lab.processes.all()]}")
    for pid in started.members():
        signal_process(pid, number)


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _postmaster(machine: NodeMachine) -> int | None:
    try:
        return int((machine.data_dir / "postmaster.pid").read_text().split("\n", 1)[0])
    except (OSError, ValueError):
        return None
