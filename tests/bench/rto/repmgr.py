"""repmgr, with a repmgrd on each node. It fences nothing: an old primary that lives goes on taking writes."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from .bed import AT, NODES, PG_BIN, PORT, Bed, make_table, sql
from .names import REPMGR
from .peer import Peer, installed
from .settings import QUICK, Setting
from .settings import REPMGR as SETTINGS
from .systems import Running, System

USER = "repmgr"


class Repmgr(System):
    name, fences, settings = REPMGR, False, SETTINGS
    remarks = ("repmgr's switchover logs in to the other nodes by SSH, and is not measured.",)

    def missing(self) -> str | None:
        return installed("repmgr", "repmgrd")

    def version(self) -> str:
        said = subprocess.run(["repmgr", "--version"], capture_output=True, text=True).stdout
        return said.split()[-1]

    @asynccontextmanager
    async def running(self, bed: Bed, setting: Setting) -> AsyncIterator[Running]:
        cluster = Cluster(bed)
        first, *others = NODES
        for number, node in enumerate(NODES, start=1):
            cluster.write_config(number, node, setting)
        database = {name: str(value) for name, value in setting.values.items() if name in QUICK}
        await bed.initdb(first, {"shared_preload_libraries": "'repmgr'", "wal_log_hints": "on", **database})
        await bed.start_postgres(first)
        await sql(AT[first], f"CREATE ROLE {USER} SUPERUSER LOGIN REPLICATION")
        await sql(AT[first], f"CREATE DATABASE {USER} OWNER {USER}")
        await cluster.repmgr(first, "primary", "register")
        for node in others:
            source = ("-h", AT[first], "-p", str(PORT), "-U", USER, "-d", USER)
            await cluster.repmgr(node, *source, "standby", "clone", "--fast-checkpoint")
            await bed.start_postgres(node)
            await cluster.repmgr(node, "standby", "register", "--upstream-node-id=1")
        for node in NODES:
            command = ["repmgrd", "-f", str(cluster.config(node)), "--daemonize=false", "--no-pid-file"]
            bed.start(node, "repmgrd", command)
        await bed.until("two standbys that stream", lambda: bed.streaming(first, len(others)))
        await bed.until("repmgr's daemons", cluster.monitored)
        await make_table(AT[first])
        yield cluster


class Cluster(Peer):
    def config(self, node: str) -> Path:
        return self.home(node) / "repmgr.conf"

    def write_config(self, number: int, node: str, setting: Setting) -> None:
        program = f"{PG_BIN / 'repmgr'} -f {self.config(node)}"
        values = {
            "node_id": number,
            "node_name": f"'{node}'",
            "conninfo": f"'host={AT[node]} port={PORT} user={USER} dbname={USER} connect_timeout=2'",
            "data_directory": f"'{self.data_dir(node)}'",
            "pg_bindir": f"'{PG_BIN}'",
            "failover": "automatic",
            "promote_command": f"'{program} standby promote'",
            "follow_command": f"'{program} standby follow --upstream-node-id=%n'",
            "use_replication_slots": "no",
            **{name: value for name, value in setting.values.items() if name not in QUICK},
        }
        self.config(node).write_text("".join(f"{name}={value}\n" for name, value in values.items()))

    async def repmgr(self, node: str, *arguments: str) -> None:
        await self.bed.run(node, "repmgr", "-f", str(self.config(node)), *arguments)

    async def monitored(self) -> bool:
        """Whether each daemon says that it watches its node's upstream."""
        logs = [(self.bed.root / "logs" / f"repmgrd-{node}.log").read_text() for node in NODES[1:]]
        return all("starting monitoring of node" in log for log in logs)
