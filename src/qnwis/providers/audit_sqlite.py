"""The audit log in a SQLite file that only grows.

Several processes may append at once; each append is one immediate transaction, on disk before it returns.
Nothing here updates or deletes, and triggers refuse it to others.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from .audit_sql import SqlLog
from .sqlite_wal import write_ahead

BUSY_TIMEOUT_S = 30.0
"""How long an append waits for other writers."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS records (
    sequence   INTEGER PRIMARY KEY,
    audit_id   TEXT NOT NULL UNIQUE,
    run_id     TEXT NOT NULL,
    operation  TEXT NOT NULL,
    record     TEXT NOT NULL,  -- canonical JSON
    UNIQUE (run_id, operation)
);
CREATE TABLE IF NOT EXISTS artefacts (
    sequence   INTEGER NOT NULL,
    name       TEXT NOT NULL,
    content    TEXT NOT NULL,
    PRIMARY KEY (sequence, name)
);
CREATE TRIGGER IF NOT EXISTS records_only_grow BEFORE INSERT ON records
    WHEN NEW.sequence IS NOT (SELECT coalesce(max(sequence), 0) + 1 FROM records)
    BEGIN SELECT raise(ABORT, 'audit records are only appended'); END;
CREATE TRIGGER IF NOT EXISTS records_never_change BEFORE UPDATE ON records
    BEGIN SELECT raise(ABORT, 'audit records are never changed'); END;
CREATE TRIGGER IF NOT EXISTS records_never_go BEFORE DELETE ON records
    BEGIN SELECT raise(ABORT, 'audit records are never deleted'); END;
CREATE TRIGGER IF NOT EXISTS artefacts_only_grow BEFORE INSERT ON artefacts
    WHEN EXISTS (SELECT 1 FROM artefacts WHERE sequence = NEW.sequence AND name = NEW.name)
    BEGIN SELECT raise(ABORT, 'audit artefacts are only appended'); END;
CREATE TRIGGER IF NOT EXISTS artefacts_never_change BEFORE UPDATE ON artefacts
    BEGIN SELECT raise(ABORT, 'audit artefacts are never changed'); END;
CREATE TRIGGER IF NOT EXISTS artefacts_never_go BEFORE DELETE ON artefacts
    BEGIN SELECT raise(ABORT, 'audit artefacts are never deleted'); END;
CREATE TABLE IF NOT EXISTS heads (
    size       INTEGER PRIMARY KEY,
    peaks      BLOB NOT NULL,  -- hashes of the tree's complete subtrees, the largest first
    head       TEXT NOT NULL   -- canonical JSON of the signed tree head
);
CREATE TRIGGER IF NOT EXISTS heads_only_grow BEFORE INSERT ON heads
    WHEN EXISTS (SELECT 1 FROM heads WHERE size >= NEW.size)
    BEGIN SELECT raise(ABORT, 'audit heads are only appended'); END;
CREATE TRIGGER IF NOT EXISTS heads_never_change BEFORE UPDATE ON heads
    BEGIN SELECT raise(ABORT, 'audit heads are never changed'); END;
CREATE TRIGGER IF NOT EXISTS heads_never_go BEFORE DELETE ON heads
    BEGIN SELECT raise(ABORT, 'audit heads are never deleted'); END;
"""


DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR})
"""What SQLite says of a file that is no log: no pages of a database, or (SQLITE_ERROR) not its tables. All
else (no right to read it, a lock, a disk that fails) tells nothing of what was written."""


class DamagedFile(sqlite3.DatabaseError):
    """The file can be read, and is not what was written."""


class SqliteLog:
    failures: tuple[type[Exception], ...] = (OSError, sqlite3.Error)
    damages: tuple[type[Exception], ...] = (DamagedFile,)

    def __init__(self, path: Path) -> None:
        self._path = path

    def __str__(self) -> str:
        return str(self._path)

    def exists(self) -> bool:
        if not self._path.exists():
            return False
        try:
            with self._opened() as db:
                return _has_records(db)
        except sqlite3.DatabaseError:
            return True  # and damaged, which reading it says

    @contextmanager
    def writing(self) -> Iterator[SqlLog]:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(self._path, timeout=BUSY_TIMEOUT_S, isolation_level=None)) as db:
            write_ahead(db, within_s=BUSY_TIMEOUT_S)
            db.execute("PRAGMA synchronous = FULL")
            db.executescript(f"BEGIN IMMEDIATE; {SCHEMA} COMMIT;")
            db.execute("BEGIN IMMEDIATE")
            try:
                yield SqlLog(db, mark="?")
            except BaseException:
                db.execute("ROLLBACK")
                raise
            db.execute("COMMIT")

    @contextmanager
    def reading(self) -> Iterator[SqlLog]:
        if self._path.exists():
            with self._opened() as db:
                if _has_records(db):
                    yield SqlLog(db, mark="?")
                    return
        # Nothing was written yet, or the first writer has only begun to.
        with closing(sqlite3.connect(":memory:")) as db:
            db.executescript(SCHEMA)
            yield SqlLog(db, mark="?")

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        """One consistent view. Raises DamagedFile, or another error of SQLite where it cannot be read now."""
        uri = f"{self._path.absolute().as_uri()}?mode=ro"
        try:
            with closing(sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None)) as db:
                # A damaged byte must come out as it is, to be found by the hash and not by the decoder.
                db.text_factory = lambda raw: raw.decode(errors="surrogateescape")
                db.execute("BEGIN")
                yield db
        except sqlite3.DatabaseError as error:
            if getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK) & 0xFF in DAMAGED:
                raise DamagedFile(*error.args) from error
            raise


def _has_records(db: sqlite3.Connection) -> bool:
    return db.execute("SELECT 1 FROM sqlite_master WHERE name = 'records'").fetchone() is not None
