"""On what was measured."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from .bed import PG_BIN


def machine() -> list[str]:
    cpu = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    memory_kib = int(Path("/proc/meminfo").read_text().split()[1])
    postgres = subprocess.run([PG_BIN / "postgres", "--version"], capture_output=True, text=True).stdout
    return [
        f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores ({cpu}), {memory_kib / 2**20:.0f} GiB,"
        f" Linux {platform.release()}, Python {platform.python_version()}",
        f"{postgres.strip()}, of every system",
    ]
