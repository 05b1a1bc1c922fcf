"""When the runs under a lock may have changed: one look a second for all clusters of this process.

The server's list of executions tells of every one that began or ended lately. It may be late (it is kept
beside the histories), and clocks differ: so each lock is looked at for itself as well, more seldom.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from temporalio.client import Client
from temporalio.service import RPCError

log = logging.getLogger(__name__)

LOOK_EVERY_S = 1.0
LATELY = timedelta(seconds=60)
"""How far back a look goes: the list may be late by as much, or this clock ahead of the server's."""
ANYHOW_S = 60.0
"""A lock of which nothing was told for so long is looked at all the same."""
LATEST = "WorkflowId STARTS_WITH '{prefix}' AND (StartTime > '{since}' OR CloseTime > '{since}')"


class RunChanges:
    """Looks while somebody waits. Belongs to one event loop."""

    def __init__(self, client: Client, prefix: str) -> None:
        """`prefix`: of the workflow ids that are locks."""
        self._client = client
        self._prefix = prefix
        self._waiting: defaultdict[str, set[asyncio.Event]] = defaultdict(set)
        self._told: set[tuple[str, str]] = set()
        """Run id and status of what the last look found."""
        self._looking: asyncio.Task[None] | None = None

    @contextlib.contextmanager
    def of(self, workflow_id: str) -> Iterator[asyncio.Event]:
        """An event that is set whenever an execution under the lock began or ended, meanwhile."""
        changed = asyncio.Event()
        self._waiting[workflow_id].add(changed)
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._keep_looking())
        try:
            yield changed
        finally:
            self._waiting[workflow_id].discard(changed)
            if not self._waiting[workflow_id]:
                del self._waiting[workflow_id]

    async def _keep_looking(self) -> None:
        while self._waiting:
            try:
                await self._look()
            except RPCError as error:
                # Each lock is looked at for itself, and a server that is gone is found there.
                log.warning("what runs there are is not known to the second: %s", error)
            await asyncio.sleep(LOOK_EVERY_S)

    async def _look(self) -> None:
        since = (datetime.now(UTC) - LATELY).isoformat()
        listed = self._client.list_workflows(LATEST.format(prefix=self._prefix, since=since))
        found = {(one.run_id, str(one.status)): one.id async for one in listed}
        for one in found.keys() - self._told:
            for changed in self._waiting.get(found[one], ()):
                changed.set()
        self._told = set(found)


async def changed_or_anyhow(changed: asyncio.Event) -> None:
    """Return when it is set, which is taken back, or when it is time to look all the same."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(ANYHOW_S):
            await changed.wait()
    changed.clear()
