"""The erasable sidecar of the audit trail: what each commitment stands for, and its salt.

A SQLite file of its own that only its owner may read. An erased row is overwritten in the file; copies of the
file (a backup) have to be erased where they lie.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

from qnwis.continuity.pseudonyms import PERSON, PROOF, SALT_BYTES, commitment

BUSY_TIMEOUT_S = 30.0

SCHEMA = """
CREATE TABLE IF NOT EXISTS commitments (
    alias   TEXT PRIMARY KEY,
    salt    BLOB NOT NULL,
    value   TEXT NOT NULL UNIQUE,  -- a name, or a token as canonical JSON
    person  TEXT NOT NULL          -- alias of the person whose it is
)
"""


class Persons:
    """Each method raises one of `failures` where the file cannot be read or written now."""

    failures: tuple[type[Exception], ...] = (OSError, sqlite3.Error)

    def __init__(self, path: Path) -> None:
        self._path = path

    def aliases(self, names: Iterable[str], tokens: Mapping[str, str]) -> dict[str, str]:
        """What stands for each name and token; made where there is nothing yet, on disk when it returns.

        `tokens`: whose each is, by the token.
        """
        people = {*names, *(person for person in tokens.values() if person)}
        if not people and not tokens:
            return {}
        with self._writing() as db:
            found = {name: _alias(db, PERSON, name, None) for name in sorted(people)}
            for token, person in sorted(tokens.items()):
                found[token] = _alias(db, PROOF, token, found.get(person))
            return found

    def values(self, aliases: Iterable[str]) -> dict[str, str]:
        """What each alias stands for; without those that were erased."""
        wanted = set(aliases)
        if not wanted or not os.access(self._path, os.R_OK | os.W_OK):
            return {}  # who may read the log and not the names sees commitments
        with self._open() as db:
            marks = ",".join("?" * len(wanted))
            query = f"SELECT alias, value FROM commitments WHERE alias IN ({marks})"
            return dict(db.execute(query, tuple(wanted)).fetchall())

    def alias_of(self, name: str) -> str | None:
        """None where the name was never recorded, or was erased."""
        if not self._path.exists():
            return None
        with self._open() as db:
            row = db.execute("SELECT alias FROM commitments WHERE value = ?", (name,)).fetchone()
        return None if row is None else str(row[0])

    def erase(self, name: str) -> str | None:
        """Forget a person and every token of theirs. The alias that stands for nobody now; None where the
        name was never recorded, or was erased before."""
        if not self._path.exists():
            return None
        with self._writing() as db:
            row = db.execute("SELECT alias FROM commitments WHERE value = ?", (name,)).fetchone()
            if row is None:
                return None
            db.execute("DELETE FROM commitments WHERE person = ?", row)
            return str(row[0])

    def altered(self) -> list[str]:
        """Aliases whose entry is not what they are a commitment to."""
        if not self._path.exists():
            return []
        with self._open() as db:
            rows = db.execute("SELECT alias, salt, value FROM commitments").fetchall()
        return [
            alias for alias, salt, value in rows if commitment(alias.partition(":")[0], value, salt) != alias
        ]

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        if not self._path.exists():
            self._path.touch(mode=0o600)
        with closing(sqlite3.connect(self._path, timeout=BUSY_TIMEOUT_S, isolation_level=None)) as db:
            # A rollback journal, which is gone after each transaction: a write-ahead log would keep names.
            db.execute("PRAGMA journal_mode = DELETE")
            db.execute("PRAGMA secure_delete = ON")
            db.execute("PRAGMA synchronous = FULL")
            db.execute(SCHEMA)
            yield db

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._open() as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
            except BaseException:
                db.execute("ROLLBACK")
                raise
            db.execute("COMMIT")


def _alias(db: sqlite3.Connection, kind: str, value: str, person: str | None) -> str:
    row = db.execute("SELECT alias FROM commitments WHERE value = ?", (value,)).fetchone()
    if row is not None:
        return str(row[0])
    salt = secrets.token_bytes(SALT_BYTES)
    alias = commitment(kind, value, salt)
    db.execute("INSERT INTO commitments VALUES (?, ?, ?, ?)", (alias, salt, value, person or alias))
    return alias
