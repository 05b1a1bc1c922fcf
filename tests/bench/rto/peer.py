"""What the clusters that are not this project's have in common."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from .bed import AT, NODES, PG_BIN, PORT, SUPERUSER, Bed
from .systems import Running

INSTALL = "`make install-peers` installs all of them on Debian"


class Peer(Running):
    """Three nodes on a bed; everybody in its network may log in."""

    def __init__(self, bed: Bed) -> None:
        self.hosts: Mapping[str, str] = {node: AT[node] for node in NODES}
        self.port, self.user, self.database = PORT, SUPERUSER, "postgres"
        self.password_file = bed.root / "no-password"
        self.password_file.write_text("")
        self.primary = NODES[0]
        self.bed = bed

    def home(self, node: str) -> Path:
        return self.bed.home(node)

    def data_dir(self, node: str) -> Path:
        return self.bed.data_dir(node)


def installed(*programs: str) -> str | None:
    """What is missing of PostgreSQL 15 and of these programs."""
    absent = [program for program in programs if shutil.which(program) is None]
    if not (PG_BIN / "postgres").exists():
        absent.insert(0, str(PG_BIN / "postgres"))
    return f"no {', '.join(absent)}; {INSTALL}" if absent else None
