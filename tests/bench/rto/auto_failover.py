"""pg_auto_failover: its monitor, and three nodes that take part in its quorum (synchronous by default)."""

from __future__ import annotations

import asyncio
import re
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from pydantic import JsonValue

from .bed import AT, HBA, MONITOR, NODES, PORT, Bed, make_table, sql
from .names import AUTO_FAILOVER
from .peer import Peer, installed
from .settings import AUTO_FAILOVER as SETTINGS
from .settings import Setting
from .systems import Running, System

DATABASE, USER = "pg_auto_failover", "autoctl_node"
URI = f"postgres://{USER}@{AT[MONITOR]}:{PORT}/{DATABASE}?sslmode=prefer"
OPEN = ("--pgport", str(PORT), "--auth", "trust", "--no-ssl")


class AutoFailover(System):
    name, fences, settings = AUTO_FAILOVER, True, SETTINGS

    def missing(self) -> str | None:
        return installed("pg_autoctl")

    def version(self) -> str:
        said = subprocess.run(["pg_autoctl", "--version"], capture_output=True, text=True).stdout
        found = re.search(r"version (\S+)", said)
        return found[1] if found else said.strip()

    @asynccontextmanager
    async def running(self, bed: Bed, setting: Setting) -> AsyncIterator[Running]:
        cluster = Cluster(bed)
        await cluster.start_monitor(_of(setting, "pgautofailover."))
        first, *others = NODES
        await cluster.add(first, setting)
        await bed.until("pg_auto_failover's first node", cluster.settled)
        await asyncio.gather(*(cluster.add(node, setting) for node in others))
        await bed.until("pg_auto_failover's nodes", cluster.healthy)
        await make_table(AT[cluster.primary])
        yield cluster


class Cluster(Peer):
    async def start_monitor(self, values: dict[str, JsonValue]) -> None:
        data = self.bed.data_dir(MONITOR)
        await self.bed.run(
            MONITOR,
            *("pg_autoctl", "create", "monitor", "--pgdata", str(data)),
            *(*OPEN, "--hostname", AT[MONITOR]),
        )
        self._open_to_all(MONITOR)
        self.bed.start(MONITOR, "pg_autoctl", ["pg_autoctl", "run", "--pgdata", str(data)])
        await self.bed.until("pg_auto_failover's monitor", self._monitor_answers)
        for name, value in values.items():
            await _ask(f"ALTER SYSTEM SET {name} = {value}")
        await _ask("SELECT pg_reload_conf()")

    async def add(self, node: str, setting: Setting) -> None:
        data = self.bed.data_dir(node)
        create = ("pg_autoctl", "create", "postgres", "--pgdata", str(data), "--name", node, "--monitor", URI)
        named = ("--hostname", AT[node], "--username", self.user, "--dbname", self.database)
        await self.bed.run(node, *create, *OPEN, *named)
        self._open_to_all(node)
        for name, value in _of(setting, "timeout.").items():
            await self.bed.run(node, "pg_autoctl", "config", "set", name, str(value), "--pgdata", str(data))
        parameters = setting.values.get("postgresql.parameters", {})
        assert isinstance(parameters, dict)
        self.bed.configure(node, {name: str(value) for name, value in parameters.items()})
        self.bed.start(node, "pg_autoctl", ["pg_autoctl", "run", "--pgdata", str(data)])

    def _open_to_all(self, party: str) -> None:
        with (self.bed.data_dir(party) / "pg_hba.conf").open("a") as rules:
            rules.write(HBA)

    async def _monitor_answers(self) -> bool:
        return len(await _ask("SELECT count(*) FROM pgautofailover.formation")) > 0

    async def settled(self) -> bool:
        nodes = await self._nodes()
        return nodes != [] and all(reported == goal == "single" for _, reported, goal, _ in nodes)

    async def healthy(self) -> bool:
        nodes = await self._nodes()
        wanted = {node: "primary" if node == self.primary else "secondary" for node in NODES}
        return len(nodes) == len(NODES) and all(
            reported == goal == wanted[name] and health == 1 for name, reported, goal, health in nodes
        )

    async def _nodes(self) -> list[tuple[str, str, str, int]]:
        rows = await _ask(
            "SELECT nodename, reportedstate::text, goalstate::text, health FROM pgautofailover.node"
        )
        return [(str(name), str(reported), str(goal), int(health)) for name, reported, goal, health in rows]

    async def switch_over(self) -> None:
        await self.bed.run(MONITOR, *("pg_autoctl", "perform", "switchover", "--monitor", URI))


async def _ask(query: str) -> list[tuple[Any, ...]]:
    # The health checks' own account may do little; the superuser owns the settings.
    return await sql(AT[MONITOR], query, database=DATABASE)


def _of(setting: Setting, prefix: str) -> dict[str, JsonValue]:
    return {name: value for name, value in setting.values.items() if name.startswith(prefix)}
