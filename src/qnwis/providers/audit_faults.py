"""What is stored, as far as it can be read; the rest becomes faults."""

from __future__ import annotations

import sqlite3

from qnwis.continuity.audit import AuditRecord, ChainFault, FaultCode
from qnwis.continuity.model import canonical_json


def stored_records(db: sqlite3.Connection, faults: list[ChainFault]) -> list[AuditRecord]:
    """Every record that can be read; what differs from what was written becomes a fault."""
    records = []
    columns = ("sequence", "audit_id", "run_id", "operation")
    for *stored, text in db.execute(f"SELECT {', '.join(columns)}, record FROM records ORDER BY sequence"):
        try:
            record = AuditRecord.model_validate_json(text)
        except (ValueError, TypeError):
            faults.append(fault_of(stored[0], FaultCode.UNREADABLE, "what is stored is not a record"))
            continue
        records.append(record)
        for column, value in zip(columns, stored, strict=True):
            if value != getattr(record, column):
                message = f"column {column} is {value!r}; the record says {getattr(record, column)!r}"
                faults.append(fault_of(stored[0], FaultCode.ALTERED_RECORD, message))
        if text != canonical_json(record):
            faults.append(fault_of(stored[0], FaultCode.ALTERED_RECORD, "the text is not in canonical form"))
    return records


def stored_artefacts(db: sqlite3.Connection, faults: list[ChainFault]) -> dict[int, dict[str, str]]:
    """By sequence, the texts by name."""
    found: dict[int, dict[str, str]] = {}
    for sequence, name, content in db.execute("SELECT sequence, name, content FROM artefacts"):
        if isinstance(name, str) and isinstance(content, str):
            found.setdefault(sequence, {})[name] = content
        else:
            faults.append(fault_of(sequence, FaultCode.ALTERED_ARTEFACT, f"artefact {name!r} is not text"))
    return found


def fault_of(sequence: int, code: FaultCode, message: str) -> ChainFault:
    return ChainFault(sequence=sequence, code=code, message=message)
