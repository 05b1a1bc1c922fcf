"""The HTTP API beside the soak, and who asks it all the while, as a console and Prometheus would."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import httpx

from qnwis.lab.control_plane import ControlPlane, scraped_at
from qnwis.lab.errors import LabError
from qnwis.lab.processes import python_module
from qnwis.providers.keys import new_key, write_key
from qnwis.providers.service_tokens import FILE, TokenFile

API = "api"
"""Its process's name."""
BASE = "/api/v1/continuity"
PORT = 18080
READY_WITHIN_S = 60.0
ASK_WITHIN_S = 60.0


@dataclass(frozen=True)
class Asking:
    """Whoever asks. An answer that is none raises LabError: an API that stops answering ends the soak."""

    control: ControlPlane
    client: httpx.AsyncClient

    async def look(self, audit_id: str | None) -> None:
        """What a console shows after a run: runs, the guardian, records, a report; and what is scraped."""
        cluster_id = self.control.lab.cluster.cluster_id
        paths = ["/runs", f"/clusters/{cluster_id}/guardian", "/audit"]
        paths += [f"/audit/{audit_id}", f"/audit/{audit_id}/report"] if audit_id is not None else []
        for path in paths:
            await self._get(f"{BASE}{path}")
        for place in scraped_at(self.control.lab.block):
            await self._get(f"http://{place}/metrics")

    async def follow(self, run_id: str) -> None:
        """The live events of a run, as long as the API sends them, however long there are none."""
        path = f"{BASE}/clusters/{self.control.lab.cluster.cluster_id}/runs/{run_id}/events"
        try:
            async with self.client.stream("GET", path, timeout=None) as events:
                async for _ in events.aiter_lines():
                    pass
        except httpx.HTTPError as error:
            raise LabError(f"GET {path}: {error!r}") from error
        if events.status_code != httpx.codes.OK:
            raise LabError(f"GET {path}: {events.status_code}")

    async def _get(self, url: str) -> None:
        try:
            answer = await self.client.get(url)
        except httpx.HTTPError as error:
            raise LabError(f"GET {url}: {error!r}") from error
        if answer.status_code != httpx.codes.OK:
            raise LabError(f"GET {url}: {answer.status_code} {answer.text[:200]}")


@asynccontextmanager
async def asking(control: ControlPlane) -> AsyncIterator[Asking]:
    """Start the API in the lab, as a process of it, and sign in. Raises LabError."""
    lab = control.lab
    state, now = lab.folder.audit, datetime.now(UTC)
    write_key(state / "api-signing-key.pem", new_key(), person=API)
    tokens = TokenFile(lab.folder.config / FILE)
    token = tokens.issue("console", ("continuity_viewer",), now, now + timedelta(days=90))
    started = lab.processes.start(
        API,
        python_module(
            "qnwis.cli.qnwis_continuity",
            *("api", "serve", "--address", control.server.address),
            *("--config-dir", str(lab.folder.config), "--state-dir", str(state)),
            *("--host", lab.block.control, "--port", str(PORT)),
        ),
        cwd=lab.folder.run,
        env=lab.certificates.environment(),
    )
    async with httpx.AsyncClient(
        base_url=f"http://{lab.block.control}:{PORT}",
        headers={"Authorization": f"Bearer {token}"},
        timeout=ASK_WITHIN_S,
    ) as client:
        async with asyncio.timeout(READY_WITHIN_S):
            while not await _lives(client):
                if not started.alive:
                    raise LabError(f"the API has ended; see {started.log}")
                await asyncio.sleep(0.1)
        yield Asking(control, client)


async def _lives(client: httpx.AsyncClient) -> bool:
    try:
        return (await client.get("/health/live")).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False
