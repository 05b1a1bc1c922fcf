"""Opening and sealing records with the key store, as the audit store needs it."""

from __future__ import annotations

import asyncio
import secrets
from base64 import b64decode
from collections.abc import Mapping

from pydantic import ValidationError

from qnwis.continuity.audit import AuditDraft, AuditRecord
from qnwis.continuity.refusal import Refusal
from qnwis.continuity.sealed_records import (
    SALT_BYTES,
    NotOpened,
    SealedRecord,
    SealingKey,
    is_sealed,
    open_artefacts,
    open_record,
    read_sealed,
)

from .audit_log import Row
from .data_keys import DataKeys
from .errors import Refused, Unreachable, Unrecordable
from .key_store import STORE_VARIABLE, KeyStore, KeyStoreError, LostKey, Wrapped


class Seals:
    """With a key store every record is sealed; without one none is, and those that are stay shut.

    Records are read and opened in a thread: whoever asks for hundreds holds nobody else up.
    """

    def __init__(self, keys: KeyStore | None) -> None:
        self._keys = None if keys is None else DataKeys(keys)

    @property
    def opens(self) -> bool:
        return self._keys is not None

    async def new_key(self) -> SealingKey | None:
        """For one record. Raises Unreachable: nothing is ever written in clear instead."""
        if self._keys is None:
            return None
        try:
            own = await self._keys.current()
        except KeyStoreError as error:
            raise Unreachable(f"audit store: {error}") from error
        salt = secrets.token_bytes(SALT_BYTES)
        return SealingKey(own.key, own.wrapped.key_id, own.wrapped.blob, salt)

    async def data_key(self, sealed: SealedRecord) -> bytes:
        """Raises KeyStoreError."""
        if self._keys is None:
            raise LostKey(f"no key store is named, and it is sealed under key {sealed.key_id}")
        return await self._keys.unwrapped(Wrapped(sealed.key_id, b64decode(sealed.wrapped)))

    async def opened(self, row: Row) -> AuditRecord:
        """Raises Unreachable, and Refused where it cannot be opened or read."""
        try:
            if not is_sealed(row.text):
                return await asyncio.to_thread(AuditRecord.model_validate_json, row.text)
            sealed = read_sealed(row.text)
            return await asyncio.to_thread(_record, sealed, await self._key(sealed))
        except (NotOpened, ValueError) as error:
            raise unreadable(error) from error

    async def artefacts(self, row: Row, texts: Mapping[str, str]) -> dict[str, str]:
        """In clear. Raises as `opened` does."""
        try:
            if not is_sealed(row.text):
                return dict(texts)
            sealed = read_sealed(row.text)
            return await asyncio.to_thread(open_artefacts, sealed, await self._key(sealed), texts)
        except (NotOpened, ValueError) as error:
            raise unreadable(error) from error

    async def _key(self, sealed: SealedRecord) -> bytes:
        try:
            return await self.data_key(sealed)
        except LostKey as error:
            raise Refused(
                Refusal(
                    rule="audit_key_lost",
                    message=f"{sealed.audit_id} cannot be opened: {error}",
                    values={"audit_id": sealed.audit_id, "key_id": sealed.key_id},
                    remedy=f"Restore key {sealed.key_id}, or name the key store that has it"
                    f" ({STORE_VARIABLE}); `audit verify` proves the log without it.",
                )
            ) from error
        except KeyStoreError as error:
            raise Unreachable(f"audit store: {error}") from error


def _record(sealed: SealedRecord, data_key: bytes) -> AuditRecord:
    """Raises NotOpened and ValueError."""
    return AuditRecord.model_validate_json(open_record(sealed, data_key))


def unreadable(error: Exception) -> Refused:
    return Refused(
        Refusal(
            rule="audit_record_unreadable",
            message=f"A stored audit record is not a record any more: {_told(error)}",
            remedy="Run `audit verify` to see what was changed, and restore the store from a copy.",
        )
    )


def unrecordable(draft: AuditDraft, error: Exception) -> Unrecordable:
    return Unrecordable(
        Refusal(
            rule="audit_record_impossible",
            message=f"{draft.operation} of {draft.run_id} makes no audit record: {_told(error)}",
            values={"operation": draft.operation, "run_id": draft.run_id},
            remedy="Keep the workflow's history, which says what was done; and report this: it is a fault.",
        )
    )


def _told(error: Exception) -> str:
    """In a line: of a record in which nothing is as it was, one field is enough."""
    if not isinstance(error, ValidationError):
        return str(error)
    first, *others = error.errors()
    where = ".".join(map(str, first["loc"]))
    more = f", and {len(others)} more" if others else ""
    return f"{where}: {first['msg']}{more}" if where else f"{first['msg']}{more}"
