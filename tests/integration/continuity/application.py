"""A small application that brings its own promote and demote, as real processes, and a lab of two of them.

It keeps rows in a file, takes them only while it is promoted, and sends each to the other node. `python -m
tests.integration.continuity.application HOST PORT FOLDER PEER` runs one node.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from aiohttp import ClientError, ClientSession, ClientTimeout, web

from tests.looking import WITHIN_S, Looks

from .pg import free_port

TOKEN = "Bearer made-up"
HOSTS = {"a": "127.0.9.1", "b": "127.0.9.2"}


class Application:
    def __init__(self, folder: Path, peer: str) -> None:
        self._file, self._lies, self._peer = folder / "state.json", folder / "lies", peer
        self._journal = folder / "orders.jsonl"
        known = json.loads(self._file.read_text()) if self._file.exists() else {}
        self._writable, self._rows = bool(known.get("writable")), list(known.get("rows", []))

    def _keep(self) -> None:
        self._file.write_text(json.dumps({"writable": self._writable, "rows": self._rows}))

    async def state(self, _: web.Request) -> web.Response:
        return web.json_response(
            {"node": {"writable": self._writable, "position": len(self._rows)}, "rows": self._rows}
        )

    async def write(self, request: web.Request) -> web.Response:
        if not self._writable:
            return web.json_response({"error": "not promoted"}, status=409)
        row = await request.json()
        self._rows.append(row)
        self._keep()
        with contextlib.suppress(ClientError, TimeoutError):
            async with ClientSession(timeout=ClientTimeout(total=1)) as session:
                await session.post(f"{self._peer}/replica", json=self._rows)
        return web.json_response({"position": len(self._rows)})

    async def replica(self, request: web.Request) -> web.Response:
        if self._writable:
            return web.json_response({"error": "promoted"}, status=409)
        self._rows = await request.json()
        self._keep()
        return web.Response()

    async def order(self, request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != TOKEN:
            return web.Response(status=401, text="who are you, " + request.headers.get("Authorization", ""))
        what = request.match_info["what"]
        with self._journal.open("a") as journal:
            journal.write(json.dumps([what, request.headers["Idempotency-Key"]]) + "\n")
        if what == "demote" and self._lies.exists():
            return web.json_response({"demoted": True})
        self._writable = what == "promote"
        self._keep()
        return web.json_response({"writable": self._writable})


def served(folder: Path, peer: str) -> web.Application:
    one, made = Application(folder, peer), web.Application()
    made.add_routes(
        [
            web.get("/state", one.state),
            web.post("/rows", one.write),
            web.post("/replica", one.replica),
            web.post("/admin/{what:demote|promote}", one.order),
        ]
    )
    return made


@dataclass
class ApplicationLab:
    root: Path
    port: int
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def url(self, name: str) -> str:
        return f"http://{HOSTS[name]}:{self.port}"

    def folder(self, name: str) -> Path:
        return self.root / name

    def topology(self, cluster_id: str, **fields: Any) -> dict[str, Any]:
        headers = {"Authorization": f"file:{self.root / 'token'}"}
        place = f"http://{{hostname}}:{self.port}"
        http = {
            "state": {
                "url": f"{place}/state",
                "writable": "/node/writable",
                "position": "/node/position",
            },
            "demote": {"url": f"{place}/admin/demote", "headers": headers},
            "promote": {"url": f"{place}/admin/promote", "headers": headers},
            "answer_s": 5,
            "settle_s": 1,
        }
        nodes = [
            {
                "node_id": name,
                "hostname": host,
                "role": "primary" if name == "a" else "secondary",
                "region": "east",
                "site": name,
                "http": http,
            }
            for name, host in HOSTS.items()
        ]
        return {
            "cluster_id": cluster_id,
            "name": "Orders",
            "manager": "http",
            "regions": ["east"],
            "nodes": nodes,
            **fields,
        }

    async def start(self, name: str) -> None:
        peer = self.url("b" if name == "a" else "a")
        self.running[name] = subprocess.Popen(
            [sys.executable, "-m", __name__, HOSTS[name], str(self.port), str(self.folder(name)), peer],
            cwd=Path(__file__).parents[3],
        )
        async with asyncio.timeout(WITHIN_S):
            looks = Looks()
            while await self.state(name) is None:
                assert self.running[name].poll() is None, f"{name} ended"
                await looks.again()

    def kill(self, name: str) -> None:
        """SIGKILL it, as the loss of its machine does."""
        if (process := self.running.pop(name, None)) is not None:
            process.kill()
            process.wait()

    async def state(self, name: str) -> dict[str, Any] | None:
        with contextlib.suppress(httpx.HTTPError):
            async with httpx.AsyncClient(trust_env=False, timeout=5) as client:
                found: dict[str, Any] = (await client.get(f"{self.url(name)}/state")).json()
                return found
        return None

    async def write(self, name: str, row: int) -> int:
        """The status that a client gets."""
        async with httpx.AsyncClient(trust_env=False, timeout=5) as client:
            return (await client.post(f"{self.url(name)}/rows", json=row)).status_code

    def orders(self, name: str) -> list[list[str]]:
        """What was asked of it, and under which Idempotency-Key."""
        journal = self.folder(name) / "orders.jsonl"
        return [json.loads(line) for line in journal.read_text().splitlines()] if journal.exists() else []


@contextlib.asynccontextmanager
async def application_lab(root: Path) -> AsyncIterator[ApplicationLab]:
    """Two nodes, of which `a` is promoted."""
    lab = ApplicationLab(root, free_port(HOSTS["a"], above=25_000))
    (root / "token").write_text(TOKEN + "\n")
    for name in HOSTS:
        lab.folder(name).mkdir()
    (lab.folder("a") / "state.json").write_text(json.dumps({"writable": True, "rows": []}))
    try:
        await asyncio.gather(*map(lab.start, HOSTS))
        yield lab
    finally:
        for name in HOSTS:
            lab.kill(name)


if __name__ == "__main__":
    HOST, PORT, FOLDER, PEER = sys.argv[1:]
    web.run_app(served(Path(FOLDER), PEER), host=HOST, port=int(PORT), print=None)
