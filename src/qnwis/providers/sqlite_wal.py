"""SQLite files with a write-ahead log, which several processes may open at once."""

from __future__ import annotations

import sqlite3
import time

PAUSE_S = 0.005


def write_ahead(db: sqlite3.Connection, *, within_s: float) -> None:
    """Have a file keep a write-ahead log, as it does from then on.

    Where several make this first change at once, SQLite tells all but one that the file is locked, at once
    and without its busy timeout: they ask again here, for as long.

    Errors: sqlite3.OperationalError where the file is still locked after `within_s`.
    """
    until = time.monotonic() + within_s
    while True:
        try:
            db.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() >= until:
                raise
        time.sleep(PAUSE_S)
