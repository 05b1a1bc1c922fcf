"""What tokens were used for: one token serves one purpose, however often it is sent."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol


class Nonces(Protocol):
    def use(self, person: str, nonce: str, *, used_by: str, until: datetime) -> str:
        """What this person's nonce is used for: `used_by`, unless it was used before."""


class SqliteNonces:
    """In a file that all workers of a host share."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._open() as database:
            database.execute(
                "CREATE TABLE IF NOT EXISTS nonces"
                " (person TEXT, nonce TEXT, used_by TEXT, until TEXT, PRIMARY KEY (person, nonce))"
            )

    def use(self, person: str, nonce: str, *, used_by: str, until: datetime) -> str:
        with self._open() as database:
            # Past its end a token is refused anyhow.
            database.execute("DELETE FROM nonces WHERE until < ?", (_text(datetime.now(UTC)),))
            database.execute(
                "INSERT OR IGNORE INTO nonces VALUES (?, ?, ?, ?)", (person, nonce, used_by, _text(until))
            )
            (user,) = database.execute(
                "SELECT used_by FROM nonces WHERE person = ? AND nonce = ?", (person, nonce)
            ).fetchone()
        return str(user)

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        connection = sqlite3.connect(self._path, timeout=10)
        try:
            with connection:
                yield connection
        finally:
            connection.close()


def _text(time: datetime) -> str:
    return time.astimezone(UTC).isoformat()
