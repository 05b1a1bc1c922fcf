"""The audit trail: records in a chain, signed, under signed tree heads, in a log that only grows.

Where the log is kept (SQLite, PostgreSQL, S3) is its own matter (`audit_log.py`). With a key store each is
sealed (`sealed_records.py`). Who changes what is written is found out by `verify`, which needs the public
key only, and reads what is sealed too where it has the key store.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

from qnwis.continuity.audit import (
    AuditDraft,
    AuditRecord,
    ChainFault,
    Check,
    FaultCode,
    Link,
    base_id,
    chain,
    is_signed,
    verify_chain,
)
from qnwis.continuity.bundle import Provable
from qnwis.continuity.merkle import leaf_hash
from qnwis.continuity.model import canonical_json
from qnwis.continuity.pseudonyms import aliases_in, people_in, pseudonymised, resolved, tokens_in
from qnwis.continuity.refusal import Refusal
from qnwis.continuity.sealed_records import (
    NotOpened,
    SealedRecord,
    SealingKey,
    is_sealed,
    open_artefacts,
    open_record,
    read_sealed,
    seal_record,
)
from qnwis.continuity.tree_heads import HeadFault, SignedTreeHead, compare_with_witness

from .audit_faults import artefact_faults, fault_of, seal_faults, stored_artefacts, stored_records
from .audit_heads import head_faults, next_head, tree_of
from .audit_keys import SigningKey
from .audit_log import AuditLog, Conflict, Row, View
from .audit_names import hidden, json_or_none, named
from .audit_seals import Seals, unreadable
from .audit_sqlite import SqliteLog
from .errors import Refused, Unreachable
from .key_store import KeyStore, KeyStoreError, LostKey
from .persons import Persons
from .threads import Threads

T = TypeVar("T")

PERSONS = "audit-persons.sqlite"
ATTEMPTS = 50
"""Of an append, where other writers are first each time."""


class AuditStore(Protocol):
    """Where records of runs are kept.

    Each method raises Unreachable when the store cannot be read or written now, and Refused when trying
    again would not help before somebody does something about it.
    """

    async def append(self, draft: AuditDraft, artefacts: Mapping[str, str]) -> AuditRecord:
        """Add one record, with the texts that its manifest names.

        Repeated for the same run and operation it changes nothing and answers the first record. Raises
        Unrecordable for what can never be one: nothing is written, and trying again is in vain.
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

    async def latest_each(self, limit: int) -> tuple[tuple[int, AuditRecord | Refusal], ...]:
        """As `latest`, each with its place in the log: one that cannot be opened or read hides no other, and
        why it cannot stands in its place."""
        ...

    async def each_after(self, sequence: int, limit: int) -> tuple[tuple[int, AuditRecord | Refusal], ...]:
        """The next behind that place in the log, oldest first, as `latest_each` has them: for whoever must
        come past every record, and goes on where it was. Fewer than `limit` where the log ends."""
        ...

    async def between(
        self, since: datetime, until: datetime
    ) -> tuple[tuple[int, AuditRecord | Refusal], ...]:
        """The records of what ended in this time, `until` not included; oldest first, as `latest_each` has
        them: one that cannot be opened or read may be of this time, too."""
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


class LoggedAuditStore:
    """An AuditStore over any log.

    What is written holds commitments where persons would stand (`qnwis.continuity.pseudonyms`); their names
    are in `persons`. What is read has the names, of those that were not erased.

    The private key is made by the first append. Reading and verifying need the public key alone, and of what
    is sealed the key store (`keys`).
    """

    def __init__(
        self, log: AuditLog, key: SigningKey, persons: Persons, *, keys: KeyStore | None = None
    ) -> None:
        self._log = log
        self.key = key
        self._persons = persons
        self.seals = Seals(keys)
        self._readers, self._writers = Threads("audit-read"), Threads("audit-append")
        """Apart, so that a record never waits for those who read all of them."""

    async def append(self, draft: AuditDraft, artefacts: Mapping[str, str]) -> AuditRecord:
        for _ in range(ATTEMPTS):
            key = await self.seals.new_key()
            try:
                written = await self._in_thread(partial(self._append, draft, artefacts, key), self._writers)
            except Conflict:
                continue
            record = written if isinstance(written, AuditRecord) else await self.seals.opened(written)
            return (await self._named([record], self._writers))[0]
        raise Unreachable(f"audit store {self._log}: other writers were first {ATTEMPTS} times")

    async def get(self, audit_id: str) -> AuditRecord | None:
        row = await self._read(lambda view: view.by_id(audit_id))
        return None if row is None else (await self._opened([row]))[0]

    async def by_run(self, run_id: str) -> tuple[AuditRecord, ...]:
        return await self._opened(await self._read(lambda view: view.by_run(run_id)))

    async def latest(self, limit: int = 20) -> tuple[AuditRecord, ...]:
        return await self._opened(await self._read(lambda view: view.latest(limit)))

    async def latest_each(self, limit: int) -> tuple[tuple[int, AuditRecord | Refusal], ...]:
        return await self._each(await self._read(lambda view: view.latest(limit)))

    async def each_after(self, sequence: int, limit: int) -> tuple[tuple[int, AuditRecord | Refusal], ...]:
        return await self._each(await self._read(lambda view: view.after(sequence, limit)))

    async def between(
        self, since: datetime, until: datetime
    ) -> tuple[tuple[int, AuditRecord | Refusal], ...]:
        # What is recorded afterwards stands later in the log than it happened: every record is looked at.
        rows = await self._read(lambda view: list(view.rows()))
        opened = [(row.sequence, await self._opened_or_why(row)) for row in rows]
        return await self._named_each(
            [one for one in opened if isinstance(one[1], Refusal) or since <= one[1].timestamp < until]
        )

    async def artefacts(self, audit_id: str) -> dict[str, str]:
        found = await self._as_written(audit_id)
        if found is None:
            return {}
        texts = await self.seals.artefacts(*found)

        def name() -> dict[str, str]:
            known = self._persons.values(set().union(*map(aliases_in, texts.values())))
            return {name: resolved(text, known) for name, text in texts.items()}

        return await self._in_thread(name)

    async def verify(self) -> tuple[ChainFault, ...]:
        """What is sealed is proved by what was signed of it; with the key store its content is too."""
        if not await self._in_thread(self._log.exists):
            # The key is made together with the first record.
            gone = fault_of(
                0, FaultCode.MISSING_SEQUENCE, f"{self._log} is gone, but a key has signed for it"
            )
            return (gone,) if self.key.exists else ()
        check = self.key.checker()
        faults: list[ChainFault] = []
        stored = await self._in_thread(partial(self._stored, check, faults))
        if stored is None:
            return tuple(faults)
        records, texts = stored
        links = [
            await self._looked_into(record, texts.get(record.sequence, {}), faults)
            if isinstance(record, SealedRecord)
            else record
            for record in records
        ]
        faults += await asyncio.to_thread(_faults_of, records, links, texts, check)
        for alias in await self._in_thread(lambda: list(self._persons.altered())):
            faults.append(
                fault_of(0, FaultCode.ALTERED_NAME, f"{alias} is no commitment to what is kept for it")
            )
        return tuple(sorted(faults, key=lambda fault: fault.sequence))

    async def unopened(self) -> int:
        """How many records are sealed, and proved without their content for want of a key store."""
        if self.seals.opens:
            return 0
        return await self._read(lambda view: sum(is_sealed(row.text) for row in view.rows()))

    async def head(self) -> SignedTreeHead | None:
        row = await self._read(lambda view: view.newest_head())
        return None if row is None else SignedTreeHead.model_validate_json(row.text)

    async def compare(self, kept: Iterable[SignedTreeHead]) -> tuple[HeadFault, ...]:
        """Every head that a witness kept and that speaks against this store."""
        tree = await self._read(tree_of)
        return tuple(compare_with_witness(kept, tree, self.key.checker()))

    async def alias_of(self, name: str) -> str | None:
        """What stands for a person; None where the name is not known."""
        return await self._in_thread(lambda: self._persons.alias_of(name))

    async def erase_person(self, name: str) -> str | None:
        """Forget who a commitment stands for, and that person's tokens; records and proofs stay as they are.
        The commitment; None where the name is not known."""
        return await self._in_thread(lambda: self._persons.erase(name))

    async def stored(self, audit_id: str) -> tuple[Provable, dict[str, str]] | None:
        """A record and its artefacts, opened, with commitments for persons; None for an unknown id."""
        found = await self._as_written(audit_id)
        if found is None:
            return None
        row, texts = found
        tree, newest, before = await self._read(
            lambda view: (tree_of(view), view.newest_head(), view.newest_head(below=row.sequence))
        )
        if newest is None:
            return None
        return Provable(
            record=canonical_json(await self.seals.opened(row)) if is_sealed(row.text) else row.text,
            index=row.sequence - 1,
            tree=tree,
            head=SignedTreeHead.model_validate_json(newest.text),
            earlier=None if before is None else SignedTreeHead.model_validate_json(before.text),
        ), await self.seals.artefacts(row, texts)

    async def hidden(self, text: str, beside: Iterable[str]) -> str:
        """A text with commitments where persons stand: those that `beside` (texts as they are written) has,
        and those that the text names in its own fields."""

        def hide() -> str:
            known = self._persons.values(set().union(*map(aliases_in, beside)))
            value = json_or_none(text)
            names = {name for name in people_in(value) if not name.startswith("guardian-")}
            aliases = self._persons.aliases(names, tokens_in(value))
            return pseudonymised(text, {value: alias for alias, value in known.items()} | aliases)

        return await self._in_thread(hide)

    def _append(
        self, draft: AuditDraft, artefacts: Mapping[str, str], key: SealingKey | None
    ) -> AuditRecord | Row:
        """The new record, or the row that is there for this run and operation."""
        with self._log.writing() as log:
            own = log.own(draft.run_id, draft.operation)
            if own is not None:
                return own
            last = log.newest()
            taken = {base_id(draft)} if log.by_id(base_id(draft)) is not None else set()
            sign = self.key.signer(may_create=last is None)
            before = None if last is None else _written(last)
            if before is not None and not _is_signed(before, self.key.checker()):
                raise self.key.of_another_log(before.audit_id)
            # The names are on disk before what is committed to them: no alias is ever without its meaning.
            draft, artefacts = hidden(self._persons, draft, artefacts)
            record = chain(None if before is None else _link(before), draft, artefacts, sign, taken=taken)
            written, texts = canonical_json(record), artefacts
            leaf = leaf_hash(written.encode())
            if key is not None:
                written, texts = seal_record(record, artefacts, key, sign)
            row = Row(record.sequence, record.audit_id, record.run_id, record.operation, written)
            log.add(row, texts, next_head(log, record.sequence, leaf, sign))
            return record

    def _stored(
        self, check: Check, faults: list[ChainFault]
    ) -> tuple[list[AuditRecord | SealedRecord], dict[int, dict[str, str]]] | None:
        """All that is written, of one moment; None where it is no log any more."""
        try:
            with self._log.reading() as view:
                rows = list(view.rows())
                texts = stored_artefacts(view.all_artefacts(), faults)
                faults += head_faults(rows, view.heads(), check)
        except self._log.damages as error:
            faults[:] = [fault_of(0, FaultCode.UNREADABLE, f"{self._log} is damaged: {error}")]
            return None
        return stored_records(rows, check, faults), texts

    async def _looked_into(
        self, sealed: SealedRecord, texts: Mapping[str, str], faults: list[ChainFault]
    ) -> AuditRecord | Link:
        """The record that is sealed, where it can be opened; what was found wrong in it becomes faults."""
        try:
            if not self.seals.opens:
                raise NotOpened
            key = await self.seals.data_key(sealed)
            record, found = await asyncio.to_thread(_opened_and_checked, sealed, key, texts)
            faults += found
        except (NotOpened, LostKey, ValueError) as error:
            if self.seals.opens:
                code = FaultCode.LOST_KEY if isinstance(error, LostKey) else FaultCode.ALTERED_SEAL
                faults.append(fault_of(sealed.sequence, code, str(error)))
            return Link(
                sequence=sealed.sequence, previous_hash=sealed.previous_hash, record_hash=sealed.record_hash
            )
        except KeyStoreError as error:
            raise Unreachable(f"audit store {self._log}: {error}") from error
        return record

    async def _as_written(self, audit_id: str) -> tuple[Row, dict[str, str]] | None:
        def read(view: View) -> tuple[Row, dict[str, str]] | None:
            row = view.by_id(audit_id)
            return None if row is None else (row, view.artefacts(row.sequence))

        return await self._read(read)

    async def _opened(self, rows: Iterable[Row]) -> tuple[AuditRecord, ...]:
        return await self._named([await self.seals.opened(row) for row in rows])

    async def _each(self, rows: Sequence[Row]) -> tuple[tuple[int, AuditRecord | Refusal], ...]:
        return await self._named_each([(row.sequence, await self._opened_or_why(row)) for row in rows])

    async def _named_each(
        self, opened: Sequence[tuple[int, AuditRecord | Refusal]]
    ) -> tuple[tuple[int, AuditRecord | Refusal], ...]:
        named = iter(await self._named([one for _, one in opened if isinstance(one, AuditRecord)]))
        return tuple((place, one if isinstance(one, Refusal) else next(named)) for place, one in opened)

    async def _opened_or_why(self, row: Row) -> AuditRecord | Refusal:
        try:
            return await self.seals.opened(row)
        except Refused as error:
            return error.refusal

    async def _named(
        self, records: Sequence[AuditRecord], threads: Threads | None = None
    ) -> tuple[AuditRecord, ...]:
        """With the names of persons that were not erased."""
        return await self._in_thread(partial(named, self._persons, records), threads)

    async def _read(self, look: Callable[[View], T]) -> T:
        def read() -> T:
            with self._log.reading() as view:
                return look(view)

        return await self._in_thread(read)

    async def _in_thread(self, work: Callable[[], T], threads: Threads | None = None) -> T:
        try:
            return await (threads or self._readers).run(work)
        except (*self._log.failures, *Persons.failures) as error:
            raise Unreachable(f"audit store {self._log}: {error}") from error


class SqliteAuditStore(LoggedAuditStore):
    """In one file, with the names of persons beside it.

    `key_path` is the Ed25519 private key (PEM, mode 0600); the public key lies beside it as `<key_path>.pub`.
    """

    def __init__(self, path: Path, key_path: Path, *, keys: KeyStore | None = None) -> None:
        persons = Persons(path.with_name(PERSONS))
        super().__init__(SqliteLog(path), SigningKey(key_path), persons, keys=keys)


def _faults_of(
    records: Sequence[AuditRecord | SealedRecord],
    links: Iterable[AuditRecord | Link],
    texts: Mapping[int, Mapping[str, str]],
    check: Check,
) -> list[ChainFault]:
    """Of the whole chain, and of the artefacts beside it. Takes long where there are many records."""
    faults, left = verify_chain(links, check), dict(texts)
    for record in records:
        faults += artefact_faults(record, left.pop(record.sequence, {}))
    for sequence, orphans in left.items():
        message = f"artefacts {sorted(orphans)} belong to no record"
        faults.append(fault_of(sequence, FaultCode.ALTERED_ARTEFACT, message))
    return faults


def _opened_and_checked(
    sealed: SealedRecord, key: bytes, texts: Mapping[str, str]
) -> tuple[AuditRecord, list[ChainFault]]:
    """Raises NotOpened and ValueError."""
    record = AuditRecord.model_validate_json(open_record(sealed, key))
    faults = artefact_faults(record, open_artefacts(sealed, key, texts))
    return record, [*faults, *seal_faults(sealed, record)]


def _written(row: Row) -> AuditRecord | SealedRecord:
    """Raises Refused for a row that is no record any more."""
    try:
        return read_sealed(row.text) if is_sealed(row.text) else AuditRecord.model_validate_json(row.text)
    except ValueError as error:
        raise unreadable(error) from error


def _is_signed(written: AuditRecord | SealedRecord, check: Check) -> bool:
    return is_signed(written, check) if isinstance(written, AuditRecord) else written.is_signed(check)


def _link(written: AuditRecord | SealedRecord) -> Link:
    """Where the next record goes on."""
    return Link(
        sequence=written.sequence, previous_hash=written.previous_hash, record_hash=written.record_hash
    )
