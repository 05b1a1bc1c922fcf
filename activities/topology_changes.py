"""When another topology of a cluster is registered, or another policy: one look a second at the files, for
all watches of this process, and none on the event loop, since a disk may be slow."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable, Iterator
from time import monotonic

from qnwis.config.problem import ConfigError
from qnwis.config.registry import Registered, Registry

log = logging.getLogger(__name__)

LOOK_EVERY_S = 1.0


class Watched:
    """What was registered when its watch began."""

    def __init__(self, registered: Registered) -> None:
        self.registered = registered
        self.changed = asyncio.Event()
        self.postpone()

    def postpone(self) -> None:
        """The files are looked at once an interval, or a little later."""
        self.due_at = monotonic() + self.registered.cluster.heartbeat.interval_sec


class TopologyChanges:
    """Looks while somebody waits. Belongs to one event loop."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._watched: set[Watched] = set()
        self._looking: asyncio.Task[None] | None = None

    @contextlib.contextmanager
    def of(self, registered: Registered) -> Iterator[asyncio.Event]:
        """An event that is set when another topology or policy than in `registered` is registered."""
        watched = Watched(registered)
        self._watched.add(watched)
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._keep_looking())
        try:
            yield watched.changed
        finally:
            self._watched.discard(watched)

    async def _keep_looking(self) -> None:
        while self._watched:
            await asyncio.sleep(LOOK_EVERY_S)
            now = monotonic()
            due = [watched for watched in self._watched if watched.due_at <= now]
            for watched in due:
                watched.postpone()
            for watched in await asyncio.to_thread(self._changed, due):
                watched.changed.set()

    def _changed(self, due: Iterable[Watched]) -> list[Watched]:
        return [watched for watched in due if self._is_another(watched.registered)]

    def _is_another(self, registered: Registered) -> bool:
        """A file that is just being written, or cannot be read, is none yet. Whatever is wrong with one must
        not end the look for all the others. Of files that did not change, the registry answers with the same
        objects as before, so there is nothing to compare."""
        cluster_id = registered.cluster.cluster_id
        try:
            return self._registry.load(cluster_id) != registered
        except (ConfigError, OSError):
            return False
        except Exception:
            log.exception("what is registered as %s could not be looked at", cluster_id)
            return False
