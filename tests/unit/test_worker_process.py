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
