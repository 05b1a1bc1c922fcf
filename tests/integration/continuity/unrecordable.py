"""An audit store to which some records can never be written, or none for a while."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pytest

from qnwis.continuity.audit import AuditDraft, AuditRecord
from qnwis.continuity.refusal import Refusal
from qnwis.providers.audit_store import AuditStore
from qnwis.providers.errors import Unreachable, Unrecordable

NEVER = Refusal(rule="audit_record_impossible", message="It makes no record", remedy="Report it.")
TOLD = f"NOT ON RECORD: {NEVER}"


def takes_none_of(store: AuditStore, operation: str, patch: pytest.MonkeyPatch) -> list[str]:
    """The runs whose records of this operation were to be written, once for each attempt."""
    asked, real = [], store.append

    async def append(draft: AuditDraft, artefacts: Mapping[str, str]) -> AuditRecord:
        if draft.operation != operation:
            return await real(draft, artefacts)
        asked.append(draft.run_id)
        raise Unrecordable(NEVER)

    patch.setattr(store, "append", append)
    return asked


@contextmanager
def away(store: AuditStore) -> Iterator[None]:
    """Nothing can be written to it until the context ends."""

    async def append(draft: AuditDraft, artefacts: Mapping[str, str]) -> AuditRecord:
        raise Unreachable("the store is in the lost region")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "append", append)
        yield
