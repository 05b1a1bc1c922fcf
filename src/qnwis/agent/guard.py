"""The guard: a small process beside a writable database that ends it when its lease is over.

It is apart from the agent because a frozen agent enforces nothing, and it ends every process of the database
because a backend outlives its postmaster for a while. The agent does the same by itself: to leave a database
running past its lease, both would have to stand still.

    python -m qnwis.agent.guard DATA_DIR UNTIL

On standard input it takes lines with a later UNTIL each, seconds of the clock that also counts while the
machine is suspended (CLOCK_BOOTTIME). An end of input means that the agent is gone: then it does not wait.
The line `over` ends the guard and nothing else.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from pathlib import Path

from .processes import processes_in

NICENESS = -10
"""The guard sleeps; when its time has come it must not wait for a busy machine. Needs the right to it."""


def now() -> float:
    """Seconds of the clock in which leases are told to the guard."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def main() -> int:
    data_dir, until = Path(sys.argv[1]), float(sys.argv[2])
    # Ctrl-C reaches a whole process group; the guard ends by its own rules alone.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(OSError):
        os.nice(NICENESS)
    return watch(data_dir, until)


def watch(data_dir: Path, until: float, *, source: int = 0) -> int:
    """Wait for the lease's end, a later one, or the end of the agent. 0 when told that it is over."""
    text = b""
    while (rest := until - now()) > 0:
        readable, _, _ = select.select([source], [], [], rest)
        if not readable:
            continue
        chunk = os.read(source, 4096)
        if not chunk:
            print("the agent is gone", flush=True)
            break
        *lines, text = (text + chunk).split(b"\n")
        for line in lines:
            if line == b"over":
                return 0
            until = max(until, float(line))
    else:
        print("the lease is over", flush=True)
    end_all(data_dir)
    return 1


def end_all(data_dir: Path) -> None:
    """SIGKILL every process of the database until none is left; a postmaster may fork meanwhile."""
    while pids := processes_in(data_dir):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.001)


if __name__ == "__main__":
    sys.exit(main())
