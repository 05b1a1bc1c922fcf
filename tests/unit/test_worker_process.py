"""What a worker process does for itself when it starts."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

ASKED = """
import resource
from workers.run import allow_many_connections
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 640))
allow_many_connections()
print(resource.getrlimit(resource.RLIMIT_NOFILE))
"""


def test_a_worker_may_open_as_many_connections_as_it_is_allowed() -> None:
    ran = subprocess.run([sys.executable, "-c", ASKED], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "(640, 640)"


LOADED = """
import sys
from pathlib import Path
from workers.run import maker_of
from workers.settings import WorkerSettings
maker_of(WorkerSettings(config_dir=Path("."), vantages_only=True))
print([name for name in sys.modules if name.startswith("workflows.") and name != "workflows.names"])
maker_of(WorkerSettings(config_dir=Path("."), state_dir=Path(".")))
print("workflows.primary_failure" in sys.modules)
"""


def test_a_process_that_serves_vantages_only_loads_no_runbooks() -> None:
    ran = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, check=True)
    assert ran.stdout.split("\n") == ["[]", "True", ""]


FROZEN = """
import gc
from workers.garbage import collect_seldom
collect_seldom()
before = gc.get_stats()[2]["collections"]
held = [[] for _ in range(1_000_000)]
print(gc.get_freeze_count() > 0, gc.get_stats()[2]["collections"] - before)
class Loop: pass
for _ in range(200_000):
    loop = Loop(); loop.itself = loop
print(sum(type(one) is Loop for one in gc.get_objects()) < 150_000)
"""


def test_a_worker_that_takes_much_up_does_not_look_through_all_of_it_and_yet_frees_what_is_let_go() -> None:
    ran = subprocess.run([sys.executable, "-c", FROZEN], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["True", "0", "True"]


OUTLIVED = """
import gc, weakref
from time import monotonic
from workers.garbage import collect_seldom, collected
collect_seldom()
class Loop: pass
loop = Loop(); loop.itself = loop
seen = weakref.ref(loop)
due = collected(monotonic(), float("inf"))
del loop
collected(monotonic(), due)
print(seen() is None)
due = collected(monotonic(), monotonic() - 1)
print(seen() is None, due >= monotonic() + 200)
"""


def test_what_outlived_a_look_of_a_quiet_worker_is_freed_by_a_later_one() -> None:
    ran = subprocess.run([sys.executable, "-c", OUTLIVED], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["False", "True", "True"]


FREED = """
from pathlib import Path
from threading import Thread
from workers.garbage import collect_seldom, give_back

def resident_kib():
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0])

def take_and_let_go():
    blocks = [bytes(16_000) for _ in range(4_000)]
    kept.extend(blocks[::100])

collect_seldom()
kept = []
for _ in range(8):
    thread = Thread(target=take_and_let_go)
    thread.start()
    thread.join()
before = resident_kib()
give_back()
print(before - resident_kib() > 40_000)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="the C library has no malloc_trim")
def test_memory_that_is_free_among_what_is_held_goes_back_to_the_system() -> None:
    ran = subprocess.run([sys.executable, "-c", FREED], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["True"]
