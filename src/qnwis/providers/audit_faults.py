"""What is stored, as far as it can be read without a key; the rest becomes faults."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from qnwis.continuity.audit import (
    AuditRecord,
    ChainFault,
    Check,
    FaultCode,
    manifest_faults,
    verify_artefacts,
)
from qnwis.continuity.model import canonical_json
from qnwis.continuity.sealed_records import SealedRecord, is_sealed, read_sealed

from .audit_log import Row

COLUMNS = ("sequence", "audit_id", "run_id", "operation")


def stored_records(
    rows: Iterable[Row], check: Check, faults: list[ChainFault]
) -> list[AuditRecord | SealedRecord]:
    """Every record that can be read; what differs from what was written becomes a fault."""
    records: list[AuditRecord | SealedRecord] = []
    for row in rows:
        try:
            record = _read(row, check, faults)
        except (ValueError, TypeError) as error:
            told = str(error) if is_sealed(row.text) else "what is stored is not a record"
            faults.append(fault_of(row.sequence, FaultCode.UNREADABLE, told))
            continue
        records.append(record)
        for column in COLUMNS:
            value, said = getattr(row, column), getattr(record, column)
            if value != said:
                message = f"column {column} is {value!r}; the record says {said!r}"
                faults.append(fault_of(row.sequence, FaultCode.ALTERED_RECORD, message))
    return records


def _read(row: Row, check: Check, faults: list[ChainFault]) -> AuditRecord | SealedRecord:
    if is_sealed(row.text):
        sealed = read_sealed(row.text)
        if not sealed.is_signed(check):
            message = "the sealed record is not as it was signed"
            faults.append(fault_of(row.sequence, FaultCode.ALTERED_SEAL, message))
        return sealed
    record = AuditRecord.model_validate_json(row.text)
    if row.text != canonical_json(record):
        faults.append(fault_of(row.sequence, FaultCode.ALTERED_RECORD, "the text is not in canonical form"))
    return record


def stored_artefacts(
    found: Iterable[tuple[int, object, object]], faults: list[ChainFault]
) -> dict[int, dict[str, str]]:
    """By sequence, the texts by name."""
    artefacts: dict[int, dict[str, str]] = {}
    for sequence, name, content in found:
        if isinstance(name, str) and isinstance(content, str):
            artefacts.setdefault(sequence, {})[name] = content
        else:
            faults.append(fault_of(sequence, FaultCode.ALTERED_ARTEFACT, f"artefact {name!r} is not text"))
    return artefacts


def artefact_faults(record: AuditRecord | SealedRecord, texts: Mapping[str, str]) -> list[ChainFault]:
    """Every artefact that is not as it was written."""
    if isinstance(record, SealedRecord):
        return manifest_faults(record.sequence, record.artefacts, texts)
    return verify_artefacts(record, texts)


def seal_faults(sealed: SealedRecord, record: AuditRecord) -> list[ChainFault]:
    """What is readable beside a sealed record and is not what the record itself says."""
    return [
        fault_of(
            sealed.sequence,
            FaultCode.ALTERED_SEAL,
            f"{name} is {getattr(sealed, name)!r} beside the seal; the record says {getattr(record, name)!r}",
        )
        for name in (*COLUMNS, "previous_hash", "record_hash")
        if getattr(sealed, name) != getattr(record, name)
    ]


def fault_of(sequence: int, code: FaultCode, message: str) -> ChainFault:
    return ChainFault(sequence=sequence, code=code, message=message)
