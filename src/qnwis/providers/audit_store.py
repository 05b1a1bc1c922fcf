"""The audit trail on disk: a SQLite file that only grows, and the key that signs it.

Several processes may append at once; each append is one immediate transaction, on disk before it returns.
Nothing here updates or deletes, and triggers refuse it to others; who removes the triggers is found out by
`verify`, which needs the public key only.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from qnwis.continuity.audit import (
    AuditDraft,
    AuditRecord,
    ChainFault,
    Check,
    FaultCode,
    Sign,
    base_id,
    chain,
    verify_artefacts,
    verify_chain,
)
from qnwis.continuity.model import canonical_json
from qnwis.continuity.refusal import Refusal

from .errors import Refused, Unreachable

T = TypeVar("T")

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

    async def artefacts(self, audit_id: str) -> dict[str, str]:
        """The texts that the record's manifest names; empty for an unknown id."""
        ...

    async def verify(self) -> tuple[ChainFault, ...]:
        """Everything that shows the trail was changed; empty when nothing does."""
        ...


class SqliteAuditStore:
    """An AuditStore in one file.

    `key_path` is the Ed25519 private key (PEM, mode 0600), made by the first append; the public key lies
    beside it as `<key_path>.pub`. Reading and verifying need the public key alone.
    """

    def __init__(self, path: Path, key_path: Path) -> None:
        self._path = path
        self._key = SigningKey(key_path)

    async def append(self, draft: AuditDraft, artefacts: Mapping[str, str]) -> AuditRecord:
        return await self._in_thread(lambda: self._append(draft, artefacts))

    async def get(self, audit_id: str) -> AuditRecord | None:
        found = await self._select("WHERE audit_id = ?", audit_id)
        return found[0] if found else None

    async def by_run(self, run_id: str) -> tuple[AuditRecord, ...]:
        return await self._select("WHERE run_id = ? ORDER BY sequence", run_id)

    async def latest(self, limit: int = 20) -> tuple[AuditRecord, ...]:
        return await self._select("ORDER BY sequence DESC LIMIT ?", limit)

    async def artefacts(self, audit_id: str) -> dict[str, str]:
        def read() -> dict[str, str]:
            with self._reading() as db:
                rows = db.execute(
                    "SELECT name, content FROM artefacts JOIN records USING (sequence) WHERE audit_id = ?",
                    (audit_id,),
                )
                return dict(rows)

        return await self._in_thread(read)

    async def verify(self) -> tuple[ChainFault, ...]:
        return await self._in_thread(self._verify)

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
            sign = self._key.signer(may_create=last is None)
            record = chain(_parsed(last[0]) if last else None, draft, artefacts, sign, taken=taken)
            db.execute(
                "INSERT INTO records VALUES (?, ?, ?, ?, ?)",
                (record.sequence, record.audit_id, record.run_id, record.operation, canonical_json(record)),
            )
            db.executemany(
                "INSERT INTO artefacts VALUES (?, ?, ?)",
                [(record.sequence, name, content) for name, content in artefacts.items()],
            )
            return record

    def _verify(self) -> tuple[ChainFault, ...]:
        if not self._path.exists():
            # The key is made together with the first record.
            gone = _fault(0, FaultCode.MISSING_SEQUENCE, f"{self._path} is gone, but a key has signed for it")
            return (gone,) if self._key.exists else ()
        check = self._key.checker()
        faults: list[ChainFault] = []
        try:
            with self._reading() as db:
                records = _stored_records(db, faults)
                artefacts = _stored_artefacts(db, faults)
        except sqlite3.DatabaseError as error:
            return (_fault(0, FaultCode.UNREADABLE, f"{self._path} is damaged: {error}"),)
        faults += verify_chain(records, check)
        for record in records:
            faults += verify_artefacts(record, artefacts.pop(record.sequence, {}))
        for sequence, orphans in artefacts.items():
            message = f"artefacts {sorted(orphans)} belong to no record"
            faults.append(_fault(sequence, FaultCode.ALTERED_ARTEFACT, message))
        return tuple(sorted(faults, key=lambda fault: fault.sequence))

    async def _select(self, clause: str, value: str | int) -> tuple[AuditRecord, ...]:
        def read() -> tuple[AuditRecord, ...]:
            with self._reading() as db:
                return tuple(
                    _parsed(row[0]) for row in db.execute(f"SELECT record FROM records {clause}", (value,))
                )

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


@dataclass(frozen=True)
class SigningKey:
    """An Ed25519 key pair on disk."""

    path: Path

    @property
    def public_path(self) -> Path:
        return self.path.with_name(self.path.name + ".pub")

    @property
    def exists(self) -> bool:
        return self.path.exists() or self.public_path.exists()

    def signer(self, *, may_create: bool) -> Sign:
        """Raises Refused where the private key is gone, or is not the one of the public key."""
        if not self.exists and may_create:
            self._create()
        try:
            key = load_pem_private_key(self.path.read_bytes(), password=None)
        except FileNotFoundError:
            raise _refused(
                "audit_key_missing", f"The signing key {self.path} is missing", self.path
            ) from None
        if not isinstance(key, Ed25519PrivateKey):
            raise _refused("audit_key_wrong", f"{self.path} is not an Ed25519 key", self.path)
        public = _public_pem(key.public_key())
        if not self.public_path.exists():
            _write_once(self.public_path, public, mode=0o644)
        if self.public_path.read_bytes() != public:
            message = f"The signing key {self.path} does not belong to {self.public_path}"
            raise _refused("audit_key_wrong", message, self.path)
        return key.sign

    def checker(self) -> Check:
        """Needs the public key alone. Raises Refused where that is missing or none."""
        try:
            key = load_pem_public_key(self.public_path.read_bytes())
        except FileNotFoundError:
            message = f"The public key {self.public_path} is missing"
            raise _refused("audit_key_missing", message, self.public_path) from None
        if not isinstance(key, Ed25519PublicKey):
            raise _refused("audit_key_wrong", f"{self.public_path} is not an Ed25519 key", self.public_path)

        def check(signature: bytes, message: bytes) -> bool:
            try:
                key.verify(signature, message)
            except InvalidSignature:
                return False
            return True

        return check

    def _create(self) -> None:
        key = Ed25519PrivateKey.generate()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        _write_once(
            self.path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), mode=0o600
        )


def _write_once(path: Path, content: bytes, *, mode: int) -> None:
    """Make a file with all of its content or not at all; one that is there already stays as it is."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            path.hardlink_to(draft)
    finally:
        draft.unlink()


def _public_pem(key: Ed25519PublicKey) -> bytes:
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


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


def _stored_records(db: sqlite3.Connection, faults: list[ChainFault]) -> list[AuditRecord]:
    """Every record that can be read; what differs from what was written becomes a fault."""
    records = []
    columns = ("sequence", "audit_id", "run_id", "operation")
    for *stored, text in db.execute(f"SELECT {', '.join(columns)}, record FROM records ORDER BY sequence"):
        try:
            record = AuditRecord.model_validate_json(text)
        except (ValueError, TypeError):
            faults.append(_fault(stored[0], FaultCode.UNREADABLE, "what is stored is not a record"))
            continue
        records.append(record)
        for column, value in zip(columns, stored, strict=True):
            if value != getattr(record, column):
                message = f"column {column} is {value!r}; the record says {getattr(record, column)!r}"
                faults.append(_fault(stored[0], FaultCode.ALTERED_RECORD, message))
        if text != canonical_json(record):
            faults.append(_fault(stored[0], FaultCode.ALTERED_RECORD, "the text is not in canonical form"))
    return records


def _stored_artefacts(db: sqlite3.Connection, faults: list[ChainFault]) -> dict[int, dict[str, str]]:
    """By sequence, the texts by name."""
    found: dict[int, dict[str, str]] = {}
    for sequence, name, content in db.execute("SELECT sequence, name, content FROM artefacts"):
        if isinstance(name, str) and isinstance(content, str):
            found.setdefault(sequence, {})[name] = content
        else:
            faults.append(_fault(sequence, FaultCode.ALTERED_ARTEFACT, f"artefact {name!r} is not text"))
    return found


def _fault(sequence: int, code: FaultCode, message: str) -> ChainFault:
    return ChainFault(sequence=sequence, code=code, message=message)


def _refused(rule: str, message: str, file: Path) -> Refused:
    return Refused(
        Refusal(
            rule=rule,
            message=message,
            values={"file": str(file)},
            remedy=f"Restore {file} from a copy: a new key could not continue this chain.",
        )
    )
