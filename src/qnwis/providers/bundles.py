"""Bundles on disk: one for each record, sealed under a key of its own."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from qnwis.continuity.audit import AuditRecord
from qnwis.continuity.bundle import ARTEFACTS, HISTORY, RECORD, REPORT, BundleKey, seal
from qnwis.continuity.refusal import Refusal
from qnwis.continuity.report import report_of
from qnwis.continuity.report_text import document_of, markdown
from qnwis.durable import make_folder, write_once

from .audit_store import LoggedAuditStore
from .errors import Refused
from .key_store import KEY_BYTES, KeyStore

SUFFIX = ".qnwis-bundle"
FOLDER = "bundles"
"""Where a worker keeps them, in its state directory."""


class Bundles:
    """Makes the bundle of a record, from the store it stands in."""

    def __init__(self, store: LoggedAuditStore, keys: KeyStore, folder: Path) -> None:
        self._store = store
        self._keys = keys
        self._folder = folder

    @property
    def public_key(self) -> bytes:
        """Raw, of the log: whoever sealed a bundle of it signed with this one's other half."""
        return self._store.key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    async def write(self, audit_id: str, history: str | None = None) -> Path:
        """The bundle's file; one that is there already stays as it is. `history`: JSON, of the run.

        Raises KeyStoreError, Unreachable, OSError, and Refused for an unknown record.
        """
        path = self._folder / f"{audit_id}{SUFFIX}"
        if not await asyncio.to_thread(path.exists):
            content = await self.sealed(audit_id, history)
            await asyncio.to_thread(_write, path, content)
        return path

    async def read(self, audit_id: str) -> bytes:
        """The bundle that its run made, else one made now and kept nowhere: the run's own has its history.
        Raises as `write` does."""
        path = self._folder / f"{audit_id}{SUFFIX}"
        if await asyncio.to_thread(path.exists):
            return await asyncio.to_thread(path.read_bytes)
        return await self.sealed(audit_id)

    async def sealed(self, audit_id: str, history: str | None = None) -> bytes:
        """The content of the bundle's file."""
        found = await self._store.stored(audit_id)
        if found is None:
            raise Refused(
                Refusal(
                    rule="no_such_record",
                    message=f"No record {audit_id} with a signed tree head",
                    remedy="`qnwis-continuity audit` lists the records; a store from before there were tree"
                    " heads has them from its next record on.",
                )
            )
        proved, artefacts = found
        files: dict[str, str] = {
            RECORD: proved.record,
            REPORT: markdown(
                document_of(report_of(AuditRecord.model_validate_json(proved.record), artefacts))
            ),
            **_named(artefacts),
        }
        if history is not None:
            files[HISTORY] = await self._store.hidden(history, [proved.record, *artefacts.values()])
        key = secrets.token_bytes(KEY_BYTES)
        wrapped = await self._keys.wrap(key)
        return await asyncio.to_thread(
            lambda: seal(
                proved,
                files,
                BundleKey(key, wrapped.key_id, wrapped.blob),
                audit_id=audit_id,
                sign=self._store.key.signer(may_create=False),
                public_key=self.public_key,
            )
        )


def _named(artefacts: Mapping[str, str]) -> dict[str, str]:
    return {f"{ARTEFACTS}{name}": text for name, text in sorted(artefacts.items())}


def _write(path: Path, content: bytes) -> None:
    make_folder(path.parent, mode=0o700)
    write_once(path, content, mode=0o600)
