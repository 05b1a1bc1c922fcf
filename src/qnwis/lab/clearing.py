"""The end of a lab: its processes are stopped, and an earlier one that nobody owns any more is removed."""

from __future__ import annotations

import os
import shutil

from .disks import unmount_all
from .errors import LabError
from .layout import Folder
from .processes import Processes
from .procfs import identity, kill_inside
from .state import AnotherVersionError, read_state
from .temporal_server import PROCESS_NAME as TEMPORAL
from .temporal_server import stop_server

NAMESERVER, POWER_SWITCH = "nameserver", "power-switch"


def clear(folder: Folder) -> None:
    """Stop and remove an earlier lab that nobody owns. Raises LabError when it is somebody's, or no lab."""
    processes = Processes(folder.processes, folder.logs)
    try:
        state = read_state(folder)
    except AnotherVersionError:
        if any(started.alive for started in processes.all()):
            raise
        _remove(folder, processes)
        return
    if state is None:
        if any(folder.root.iterdir()):
            raise LabError(f"{folder.root} holds files and no lab; give an empty or new directory")
        return
    if state.kept and any(started.alive for started in processes.all()):
        raise LabError(
            f"a lab that was kept is running in {folder.root}; end it with `qnwis-continuity lab stop`, "
            "or give another directory"
        )
    if (
        state.owner_pid != os.getpid()
        and identity(state.owner_pid) == state.owner_identity
        and not state.kept
    ):
        raise LabError(
            f"the lab in {folder.root} belongs to process {state.owner_pid}, which is running; "
            "end that one, or give another directory"
        )
    _remove(folder, processes)


def _remove(folder: Folder, processes: Processes) -> None:
    stop_processes(folder, processes)
    unmount_all(folder.root)
    made = (
        folder.config,
        folder.logs,
        folder.nodes,
        folder.pki,
        folder.processes,
        folder.run,
        folder.secrets,
    )
    for path in made:
        shutil.rmtree(path, ignore_errors=True)
    folder.state_file.unlink()


def stop_processes(folder: Folder, processes: Processes) -> None:
    """In the order in which they need each other; at last whatever is left in the folder, recorded or not."""
    names = [started.name for started in processes.all()]
    base = {TEMPORAL, NAMESERVER, POWER_SWITCH, *(name for name in names if name.startswith("agent-"))}
    processes.stop([name for name in names if name not in base])
    stop_server(processes)
    processes.stop(base, grace_s=3.0)
    kill_inside(folder.root)
