"""What was sent to people already: a SQLite file that outlives workers, so that nothing is sent twice."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from qnwis.continuity.notifications import Delivery, Due, Notification, SendState, Sent, due

log = logging.getLogger(__name__)

BUSY_TIMEOUT_S = 1.0
"""How long to wait for other workers' writes."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS sent (
    run_id TEXT NOT NULL, event TEXT NOT NULL, about TEXT NOT NULL, channel TEXT NOT NULL,
    state TEXT NOT NULL, at TEXT NOT NULL,
    PRIMARY KEY (run_id, event, about, channel)
)
"""
KEY = "run_id = ? AND event = ? AND about = ? AND channel = ?"


class SentStore:
    """Shared by the workers that share the file. A store that fails never keeps a message from people."""

    def __init__(self, path: Path, *, longest: timedelta) -> None:
        """`longest`: after it a sending that was begun and not settled counts as interrupted."""
        self._path = path
        self._longest = longest

    async def begin(self, notification: Notification, channel: str) -> Due:
        """Whether to send this now; SEND is answered to one asker and noted as begun."""
        try:
            return await asyncio.to_thread(self._begin, _key(notification, channel))
        except (OSError, sqlite3.Error) as error:
            log.warning("%s: %s; sending without knowing what was sent before", self._path, error)
            return Due.SEND

    async def settle(self, notification: Notification, delivery: Delivery) -> None:
        """Note what became of a sending."""
        state = SendState.DELIVERED if delivery.delivered else SendState.FAILED
        try:
            await asyncio.to_thread(self._note, _key(notification, delivery.channel), state)
        except (OSError, sqlite3.Error) as error:
            log.warning("%s: %s; what was sent may be sent again", self._path, error)

    def _begin(self, key: tuple[str, ...]) -> Due:
        with self._writing() as db:
            row = db.execute(f"SELECT state, at FROM sent WHERE {KEY}", key).fetchone()
            known = None if row is None else Sent(state=row[0], at=row[1])
            answer = due(known, datetime.now(UTC), longest=self._longest)
            if answer is Due.SEND:
                _put(db, key, SendState.BEGUN)
            return answer

    def _note(self, key: tuple[str, ...], state: SendState) -> None:
        with self._writing() as db:
            _put(db, key, state)

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self._path, timeout=BUSY_TIMEOUT_S, isolation_level=None)) as db:
            db.execute(SCHEMA)
            db.execute("BEGIN IMMEDIATE")
            with db:  # committed at the end, rolled back by an exception
                yield db


def _key(notification: Notification, channel: str) -> tuple[str, ...]:
    return notification.run_id, notification.event.value, notification.about, channel


def _put(db: sqlite3.Connection, key: tuple[str, ...], state: SendState) -> None:
    row = (*key, state.value, datetime.now(UTC).isoformat())
    db.execute("INSERT OR REPLACE INTO sent VALUES (?, ?, ?, ?, ?, ?)", row)
