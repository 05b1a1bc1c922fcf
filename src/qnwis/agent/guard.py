"""The guard: a small process beside a writable database that ends it when its lease is over.

It is apart from the agent because a frozen agent enforces nothing, and it ends every process of the database
because a backend outlives its postmaster for a while. A database has several guards, and the agent does the
same by itself: to leave it running past its lease, all of them would have to stand still.

    python -m qnwis.agent.guard DATA_DIR [UNTIL]

Until it is told a first UNTIL it is on call: beside a standby, whose promotion then need not wait for it to
start. It has nothing to end, and goes with its agent.

On standard input it takes lines with a later UNTIL each, seconds of the clock that also counts while the
machine is suspended (CLOCK_BOOTTIME). An end of input means that the agent is gone: then it does not wait.
Only SIGKILL ends it without an end to the database. What it did and how late, it says on standard output.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from pathlib import Path

from .priority import run_at_once
from .processes import kill_each_in


def now() -> float:
    """Seconds of the clock in which leases are told to the guard."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def main() -> None:
    data_dir, until = Path(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else None
    # Ctrl-C reaches a whole process group; the guard ends by its own rules alone.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    run_at_once()
    watch(data_dir, until)


def watch(data_dir: Path, until: float | None, *, source: int = 0) -> None:
    """End the database at the lease's end, as told last, or at the agent's. None: it has no lease yet."""
    text = b""
    while until is None or until > now():
        readable, _, _ = select.select([source], [], [], None if until is None else max(0, until - now()))
        if not readable:
            continue
        chunk = os.read(source, 4096)
        if not chunk:
            if until is not None:
                end_all(data_dir)
            print("the agent is gone", flush=True)
            return
        *lines, text = (text + chunk).split(b"\n")
        until = max([*map(float, lines), *([] if until is None else [until])], default=None)
    woken = now()
    end_all(data_dir)
    late_ms, gone_ms = 1000 * (woken - until), 1000 * (now() - until)
    with contextlib.suppress(OSError):
        print(f"the lease is over: woken {late_ms:.1f} ms after, all gone {gone_ms:.1f} ms after", flush=True)


def end_all(data_dir: Path) -> None:
    """SIGKILL every process of the database until none is left; a postmaster may fork meanwhile."""
    while kill_each_in(data_dir):
        time.sleep(0.001)


if __name__ == "__main__":
    main()
