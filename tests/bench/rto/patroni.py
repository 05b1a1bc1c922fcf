"""Patroni, with one etcd."""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import yaml

from qnwis.lab.errors import LabError

from .bed import AT, CONF, HBA, MONITOR, NODES, PG_BIN, PORT, SUPERUSER, Bed, make_table
from .names import PATRONI
from .peer import Peer, installed
from .settings import PATRONI as SETTINGS
from .settings import Setting
from .systems import Running, System

API_PORT, ETCD_PORT = 8008, 2379


class Patroni(System):
    name, fences, settings = PATRONI, True, SETTINGS
    remarks = ("Patroni by default starts a crashed database again; where it may not, it fails over.",)

    def missing(self) -> str | None:
        return installed("etcd")

    def version(self) -> str:
        return importlib.metadata.version("patroni")

    @asynccontextmanager
    async def running(self, bed: Bed, setting: Setting) -> AsyncIterator[Running]:
        own, peer = (f"http://{AT[MONITOR]}:{port}" for port in (ETCD_PORT, ETCD_PORT + 1))
        bed.start(
            MONITOR,
            "etcd",
            [
                *("etcd", "--name", "e", "--data-dir", str(bed.home(MONITOR) / "data")),
                *("--listen-client-urls", own, "--advertise-client-urls", own),
                *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
                *("--initial-cluster", f"e={peer}"),
            ],
        )
        cluster = Cluster(bed)
        for node in NODES:
            cluster.start_member(node, setting)
            if node == cluster.primary:
                await bed.until("Patroni's leader", cluster.leads)
        synchronous = bool(setting.values.get("synchronous_mode"))
        await bed.until("Patroni's members", lambda: cluster.healthy(synchronous=synchronous))
        await make_table(AT[cluster.primary])
        yield cluster


class Cluster(Peer):
    def start_member(self, node: str, setting: Setting) -> None:
        config = self.bed.home(node) / "patroni.yml"
        config.write_text(yaml.safe_dump(_config(self.bed, node, setting)))
        self.bed.start(node, "patroni", [sys.executable, "-m", "patroni", str(config)])

    async def leads(self) -> bool:
        return any(m["role"] == "leader" and m["state"] == "running" for m in await self._members())

    async def healthy(self, *, synchronous: bool) -> bool:
        members = await self._members()
        streaming = [m for m in members if m["state"] == "streaming"]
        confirmed = [m for m in members if m["role"] == "sync_standby"]
        return (
            await self.leads()
            and len(streaming) == len(NODES) - 1
            and (not synchronous or len(confirmed) > 0)
        )

    async def _members(self) -> list[dict[str, Any]]:
        answer = await self._ask("GET", "/cluster")
        found: list[dict[str, Any]] = answer.json().get("members", [])
        return found

    async def switch_over(self) -> None:
        candidates = [m for m in await self._members() if m["role"] in ("sync_standby", "replica")]
        candidates.sort(key=lambda m: m["role"] != "sync_standby")
        wanted = {"leader": self.primary, "candidate": candidates[0]["name"]}
        answer = await self._ask("POST", "/switchover", json=wanted)
        if not answer.is_success:
            raise LabError(f"Patroni: switchover: {answer.status_code} {answer.text}")

    async def _ask(self, method: str, path: str, **what: Any) -> httpx.Response:
        async with httpx.AsyncClient(timeout=60, trust_env=False) as client:
            try:
                return await client.request(method, f"http://{AT[self.primary]}:{API_PORT}{path}", **what)
            except httpx.HTTPError as error:
                raise LabError(f"Patroni: {path}: {error!r}") from error


def _config(bed: Bed, node: str, setting: Setting) -> dict[str, Any]:
    values = dict(setting.values)
    address, api = f"{AT[node]}:{PORT}", f"{AT[node]}:{API_PORT}"
    parameters = {
        name: value.strip("'") for name, value in CONF.items() if name not in ("port", "listen_addresses")
    }
    asked = values.pop("postgresql.parameters", {})
    assert isinstance(asked, dict)
    return {
        "scope": "bench",
        "name": node,
        "restapi": {"listen": api, "connect_address": api},
        "etcd3": {"hosts": [f"{AT[MONITOR]}:{ETCD_PORT}"]},
        "bootstrap": {
            "dcs": {
                **values,
                "postgresql": {
                    "use_pg_rewind": True,
                    "use_slots": True,
                    "parameters": {**parameters, **asked},
                },
            },
            "initdb": [{"encoding": "UTF8"}, {"locale": "C"}, "data-checksums", "no-sync"],
        },
        "postgresql": {
            "listen": address,
            "connect_address": address,
            "data_dir": str(bed.data_dir(node)),
            "bin_dir": str(PG_BIN),
            "pgpass": str(bed.home(node) / "pgpass"),
            "pg_hba": HBA.splitlines(),
            "authentication": {
                what: {"username": SUPERUSER} for what in ("superuser", "replication", "rewind")
            },
            "basebackup": [{"checkpoint": "fast"}, "no-sync"],
        },
    }
