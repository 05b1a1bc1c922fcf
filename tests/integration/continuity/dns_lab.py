"""The lab's DNS server by itself: one or more of it, with the record `db.lab.test.`."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from qnwis.continuity.topology import DnsService
from qnwis.lab.layout import DNS_PORT, claimed_block, write_secret
from qnwis.lab.processes import Processes, python_module
from qnwis.lab.procfs import kill_inside
from qnwis.providers.dns import Rfc2136Dns, key_file_text
from qnwis.providers.errors import Unreachable

SECRET = "c2VjcmV0IG9mIHRoZSBsYWIncyB0ZXN0cyAwMTIzNDU="
OLD = "127.77.1.10"
"""What the record holds at first."""


@dataclass
class DnsLab:
    """One or more DNS servers of the same zone; only the first is updated."""

    home: Path
    processes: Processes
    hosts: list[str]

    @property
    def service(self) -> DnsService:
        return self.service_on(0)

    def service_on(self, *servers: int, key: str | None = "lab.key", name: str = "db") -> DnsService:
        return DnsService(
            zone="lab.test",
            name=name,
            ttl_s=1,
            servers=tuple(f"{self.hosts[i]}:{DNS_PORT}" for i in servers),
            tsig_key_file=None if key is None else str(self.home / key),
        )

    async def start(self, index: int, address: str = OLD, *more: str) -> None:
        command = python_module(
            "qnwis.lab.nameserver",
            *("--zone", "lab.test", "--record", f"db={address}", "--ttl", "1"),
            *("--listen", self.hosts[index], "--port", str(DNS_PORT)),
            *("--key-file", str(self.home / "lab.key"), "--journal", str(self.journal(index)), *more),
        )
        started = self.processes.start(f"dns-{index}", command, cwd=self.home)
        while True:
            try:
                await Rfc2136Dns(timeout_s=0.1).read(self.service_on(index))
                return
            except Unreachable:
                assert started.alive, started.log.read_text()

    def journal(self, index: int = 0) -> Path:
        return self.home / f"dns-{index}.jsonl"

    def changes(self) -> list[tuple[list[str], list[str]]]:
        """What the first server's journal says of the address records: before and after."""
        if not self.journal().exists():
            return []
        lines = (json.loads(line) for line in self.journal().read_text().splitlines())
        return [(c["before"], c["after"]) for line in lines for c in line["changes"] if c["type"] == "A"]


@contextlib.asynccontextmanager
async def dns_lab(home: Path, address: str = OLD, *more: str) -> AsyncIterator[DnsLab]:
    """One server, whose record holds the address, with more arguments; it is gone at the end."""
    write_secret(home / "lab.key", key_file_text("lab.", SECRET))
    with claimed_block(0) as block:
        hosts = [block.nameserver, block.power_switch]
        made = DnsLab(home, Processes(home / "processes", home / "logs"), hosts)
        try:
            await made.start(0, address, *more)
            yield made
        finally:
            kill_inside(home)
