"""What a worker process does for itself when it starts."""

from __future__ import annotations

import subprocess
import sys

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
