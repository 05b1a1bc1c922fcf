"""The audit trail on disk: a SQLite file that only grows.

Several processes may append at once; each append is one immediate transaction, on disk before it returns.
Nothing here updates or deletes, and triggers refuse it to others; who removes the triggers is found out by
`verify`, which needs the public key only.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Protocol, TypeVar

from qnwis.continuity.audit import (
    AuditDraft,
    AuditRecord,
    ChainFault,
    FaultCode,
    base_id,
    chain,
    verify_artefacts,
    verify_chain,
)
from qnwis.continuity.bundle import Provable
from qnwis.continuity.model import canonical_json
from qnwis.continuity.pseudonyms import aliases_in, people_in, pseudonymised, resolved, tokens_in
from qnwis.continuity.refusal import Refusal
from qnwis.continuity.tree_heads import HeadFault, SignedTreeHead, compare_with_witness

from .audit_faults import fault_of, stored_artefacts, stored_records
from .audit_heads import grow, head_faults, newest_head, tree_of
from .audit_keys import SigningKey
from .errors import Refused, Unreachable
from .persons import Persons

T = TypeVar("T")

PERSONS = "audit-persons.sqlite"
NEVER_HIDDEN = ("run_id", "operation", "cluster_id", "role", "source_node", "target_node", "timestamp")
"""Of a draft: what is no person, whatever a person is called."""
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


class AuditStore(Protocol):
    """Where records of runs are kept.

    Each method raises Unreachable when the store cannot be read or written now, and Refused when trying
    again would not help.
    """

    async def append(self, draft: AuditDraft, artefacts: Mapping[str, str]) -> AuditRecord:
        """Add one record, with the texts that its manifest names.

        Repeated for the same run and operation it changes nothing and answers the first record.
        """
        ...

    async def get(self, audit_id: str) -> AuditRecord | None:
        """The record of that id; None where there is none."""
        ...

    async def by_run(self, run_id: str) -> tuple[AuditRecord, ...]:
        """The records of one run, oldest first."""
        ...

    async def latest(self, limit: int = 20) -> tuple[AuditRecord, ...]:
        """The newest records, newest first."""
        ...

    async def between(self, since: datetime, until: datetime) -> tuple[AuditRecord, ...]:
        """The records of what ended in this time, `until` not included; oldest first."""
        ...

    async def artefacts(self, audit_id: str) -> dict[str, str]:
        """The texts that the record's manifest names; empty for an unknown id."""
        ...

    async def verify(self) -> tuple[ChainFault, ...]:
        """Everything that shows the trail was changed; empty when nothing does."""
        ...

    async def head(self) -> SignedTreeHead | None:
        """The newest signed tree head; None for a store without a record."""
        ...


class SqliteAuditStore:
    """An AuditStore in one file.

    What is written holds commitments where persons would stand (`qnwis.continuity.pseudonyms`); their names
    are in `audit-persons.sqlite` beside it. What is read has the names, of those that were not erased.

    `key_path` is the Ed25519 private key (PEM, mode 0600), made by the first append; the public key lies
    beside it as `<key_path>.pub`. Reading and verifying need the public key alone.
    """

    def __init__(self, path: Path, key_path: Path) -> None:
        self._path = path
        self.key = SigningKey(key_path)
        self._persons = Persons(path.with_name(PERSONS))

    async def append(self, draft: AuditDraft, artefacts: Mapping[str, str]) -> AuditRecord:
        return await self._in_thread(lambda: self._named([self._append(draft, artefacts)])[0])

    async def get(self, audit_id: str) -> AuditRecord | None:
        found = await self._select("WHERE audit_id = ?", audit_id)
        return found[0] if found else None

    async def by_run(self, run_id: str) -> tuple[AuditRecord, ...]:
        return await self._select("WHERE run_id = ? ORDER BY sequence", run_id)

    async def latest(self, limit: int = 20) -> tuple[AuditRecord, ...]:
        return await self._select("ORDER BY sequence DESC LIMIT ?", limit)

    async def between(self, since: datetime, until: datetime) -> tuple[AuditRecord, ...]:
        # What is recorded afterwards stands later in the log than it happened: every record is looked at.
        found = await self._select("WHERE sequence >= ? ORDER BY sequence", 1)
        return tuple(record for record in found if since <= record.timestamp < until)

    async def artefacts(self, audit_id: str) -> dict[str, str]:
        def read() -> dict[str, str]:
            with self._reading() as db:
                rows = db.execute(
                    "SELECT name, content FROM artefacts JOIN records USING (sequence) WHERE audit_id = ?",
                    (audit_id,),
                )
                texts = dict(rows)
            known = self._persons.values(set().union(*map(aliases_in, texts.values())))
            return {name: resolved(text, known) for name, text in texts.items()}

        return await self._in_thread(read)

    async def verify(self) -> tuple[ChainFault, ...]:
        return await self._in_thread(self._verify)

    async def head(self) -> SignedTreeHead | None:
        def read() -> SignedTreeHead | None:
            with self._reading() as db:
                row = newest_head(db)
            return None if row is None else SignedTreeHead.model_validate_json(row[2])

        return await self._in_thread(read)

    async def compare(self, kept: Iterable[SignedTreeHead]) -> tuple[HeadFault, ...]:
        """Every head that a witness kept and that speaks against this store."""

        def read() -> tuple[HeadFault, ...]:
            with self._reading() as db:
                return tuple(compare_with_witness(kept, tree_of(db), self.key.checker()))

        return await self._in_thread(read)

    async def alias_of(self, name: str) -> str | None:
        """What stands for a person; None where the name is not known."""
        return await self._in_thread(lambda: self._persons.alias_of(name))

    async def erase_person(self, name: str) -> str | None:
        """Forget who a commitment stands for, and that person's tokens; records and proofs stay as they are.
        The commitment; None where the name is not known."""
        return await self._in_thread(lambda: self._persons.erase(name))

    async def stored(self, audit_id: str) -> tuple[Provable, dict[str, str]] | None:
        """A record and its artefacts as they are written; None for an unknown id."""

        def read() -> tuple[Provable, dict[str, str]] | None:
            with self._reading() as db:
                found = db.execute("SELECT sequence, record FROM records WHERE audit_id = ?", (audit_id,))
                row, newest = found.fetchone(), newest_head(db)
                if row is None or newest is None:
                    return None
                before = newest_head(db, below=row[0])
                texts = db.execute("SELECT name, content FROM artefacts WHERE sequence = ?", (row[0],))
                return Provable(
                    record=row[1],
                    index=row[0] - 1,
                    tree=tree_of(db),
                    head=SignedTreeHead.model_validate_json(newest[2]),
                    earlier=None if before is None else SignedTreeHead.model_validate_json(before[2]),
                ), dict(texts)

        return await self._in_thread(read)

    async def hidden(self, text: str, beside: Iterable[str]) -> str:
        """A text with commitments where persons stand: those that `beside` (texts as they are written) has,
        and those that the text names in its own fields."""

        def hide() -> str:
            known = self._persons.values(set().union(*map(aliases_in, beside)))
            value = _json(text)
            names = {name for name in people_in(value) if not name.startswith("guardian-")}
            aliases = self._persons.aliases(names, tokens_in(value))
            return pseudonymised(text, {value: alias for alias, value in known.items()} | aliases)

        return await self._in_thread(hide)

    def _append(self, draft: AuditDraft, artefacts: Mapping[str, str]) -> AuditRecord:
        with self._writing() as db:
            own = db.execute(
                "SELECT record FROM records WHERE run_id = ? AND operation = ?",
                (draft.run_id, draft.operation),
            ).fetchone()
            if own is not None:
                return _parsed(own[0])
            last = db.execute("SELECT record FROM records ORDER BY sequence DESC LIMIT 1").fetchone()
            taken = {
                row[0]
                for row in db.execute("SELECT audit_id FROM records WHERE audit_id = ?", (base_id(draft),))
            }
            sign = self.key.signer(may_create=last is None)
            # The names are on disk before what is committed to them: no alias is ever without its meaning.
            draft, artefacts = self._hidden(draft, artefacts)
            record = chain(_parsed(last[0]) if last else None, draft, artefacts, sign, taken=taken)
            written = canonical_json(record)
            db.execute(
                "INSERT INTO records VALUES (?, ?, ?, ?, ?)",
                (record.sequence, record.audit_id, record.run_id, record.operation, written),
            )
            db.executemany(
                "INSERT INTO artefacts VALUES (?, ?, ?)",
                [(record.sequence, name, content) for name, content in artefacts.items()],
            )
            grow(db, record.sequence, written, sign)
            return record

    def _hidden(
        self, draft: AuditDraft, artefacts: Mapping[str, str]
    ) -> tuple[AuditDraft, Mapping[str, str]]:
        """Both with commitments where persons stand."""
        told = json.loads(canonical_json(draft))
        values = [told, *(value for text in artefacts.values() if (value := _json(text)) is not None)]
        services = {draft.initiated_by} if draft.role == "service" else set()
        names = set().union(*(people_in(value, services) for value in values))
        tokens = {token: whose for value in values for token, whose in tokens_in(value).items()}
        aliases = self._persons.aliases(names, tokens)
        hidden = json.loads(pseudonymised(canonical_json(draft), aliases))
        hidden |= {name: told[name] for name in NEVER_HIDDEN}
        texts = {name: pseudonymised(text, aliases) for name, text in artefacts.items()}
        return AuditDraft.model_validate_json(json.dumps(hidden)), texts

    def _named(self, records: Iterable[AuditRecord]) -> tuple[AuditRecord, ...]:
        """With the names of persons that were not erased."""
        texts = [canonical_json(record) for record in records]
        known = self._persons.values(set().union(*map(aliases_in, texts)))
        return tuple(AuditRecord.model_validate_json(resolved(text, known)) for text in texts)

    def _verify(self) -> tuple[ChainFault, ...]:
        if not self._path.exists():
            # The key is made together with the first record.
            gone = fault_of(
                0, FaultCode.MISSING_SEQUENCE, f"{self._path} is gone, but a key has signed for it"
            )
            return (gone,) if self.key.exists else ()
        check = self.key.checker()
        faults: list[ChainFault] = []
        try:
            with self._reading() as db:
                records = stored_records(db, faults)
                artefacts = stored_artefacts(db, faults)
                faults += head_faults(db, check)
        except sqlite3.DatabaseError as error:
            return (fault_of(0, FaultCode.UNREADABLE, f"{self._path} is damaged: {error}"),)
        faults += verify_chain(records, check)
        for record in records:
            faults += verify_artefacts(record, artefacts.pop(record.sequence, {}))
        for sequence, orphans in artefacts.items():
            message = f"artefacts {sorted(orphans)} belong to no record"
            faults.append(fault_of(sequence, FaultCode.ALTERED_ARTEFACT, message))
        for alias in self._persons.altered():
            faults.append(
                fault_of(0, FaultCode.ALTERED_NAME, f"{alias} is no commitment to what is kept for it")
            )
        return tuple(sorted(faults, key=lambda fault: fault.sequence))

    async def _select(self, clause: str, value: str | int) -> tuple[AuditRecord, ...]:
        def read() -> tuple[AuditRecord, ...]:
            with self._reading() as db:
                rows = db.execute(f"SELECT record FROM records {clause}", (value,)).fetchall()
            return self._named([_parsed(row[0]) for row in rows])

        return await self._in_thread(read)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.to_thread(work)
        except (OSError, sqlite3.Error) as error:
            raise Unreachable(f"audit store {self._path}: {error}") from error

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """One immediate transaction: committed at the end, rolled back by an exception."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(self._path, timeout=BUSY_TIMEOUT_S, isolation_level=None)) as db:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            db.executescript(f"BEGIN IMMEDIATE; {SCHEMA} COMMIT;")
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
            except BaseException:
                db.execute("ROLLBACK")
                raise
            db.execute("COMMIT")

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        """One consistent view; of an empty store where nothing was ever appended."""
        if not self._path.exists():
            with closing(sqlite3.connect(":memory:")) as db:
                db.executescript(SCHEMA)
                yield db
            return
        uri = f"{self._path.absolute().as_uri()}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None)) as db:
            # A damaged byte must come out as it is, to be found by the hash and not by the decoder.
            db.text_factory = lambda raw: raw.decode(errors="surrogateescape")
            db.execute("BEGIN")
            yield db


def _parsed(text: str) -> AuditRecord:
    try:
        return AuditRecord.model_validate_json(text)
    except ValueError as error:
        raise Refused(
            Refusal(
                rule="audit_record_unreadable",
                message=f"A stored audit record is not a record any more: {error}",
                remedy="Run `audit verify` to see what was changed, and restore the store from a copy.",
            )
        ) from error


def _json(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return None
