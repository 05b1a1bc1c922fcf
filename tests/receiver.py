"""An HTTP endpoint on loopback that stands for a chat or a pager behind apprise's json:// address."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from aiohttp import web

from qnwis.config.notifications import FILE
from qnwis.continuity.notifications import Notification
from qnwis.providers.apprise_send import apprise_send

SECRET = "hunter2"
"""In every address; it must show up nowhere."""


@dataclass
class Receiver:
    """Of three manners: it takes, refuses, or never answers."""

    port: int = 0
    took: list[dict[str, str]] = field(default_factory=list)
    headers: list[Mapping[str, str]] = field(default_factory=list)
    """Of what it took."""
    held: asyncio.Event = field(default_factory=asyncio.Event)
    go_on: asyncio.Event = field(default_factory=asyncio.Event)

    def url(self, manner: str) -> str:
        return f"json://ann:{SECRET}@127.0.0.1:{self.port}/{manner}/{SECRET}"

    async def answer(self, request: web.Request) -> web.Response:
        message = json.loads(await request.text())
        match request.match_info["manner"]:
            case "refuses":
                return web.Response(status=403, text=SECRET)
            case "hangs":
                self.held.set()
                await self.go_on.wait()
        self.took.append(message)
        self.headers.append(dict(request.headers))
        return web.Response()


HANGS_S = 3.0


async def impatient(url: str, notification: Notification) -> None:
    """As workers send, but quick to give up what hangs, and with any patience for what does not."""
    await apprise_send(url, notification, timeout_s=HANGS_S if "/hangs/" in url else 60)


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    made = Receiver()
    application = web.Application()
    application.router.add_post("/{manner}/{rest}", made.answer)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.port = runner.addresses[0][1]
    try:
        yield made
    finally:
        made.go_on.set()
        await runner.cleanup()


def channels(folder: Path, *channels: dict[str, object]) -> None:
    """Write `notifications.yaml` with these."""
    (folder / FILE).write_text(yaml.safe_dump({"channels": list(channels)}))
