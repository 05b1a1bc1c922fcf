"""Persons in records: commitments where names stand, when it is written, and names again when it is read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from pydantic import ValidationError

from qnwis.continuity.audit import AuditDraft, AuditRecord
from qnwis.continuity.model import canonical_json
from qnwis.continuity.pseudonyms import aliases_in, people_in, pseudonymised, resolved, tokens_in

from .audit_seals import unrecordable
from .persons import Persons

NEVER_CHANGED = ("run_id", "operation", "cluster_id", "role", "source_node", "target_node", "timestamp")
"""Of a record: what is written and read as it is."""


def hidden(
    persons: Persons, draft: AuditDraft, artefacts: Mapping[str, str]
) -> tuple[AuditDraft, Mapping[str, str]]:
    """Both with commitments where persons stand. Raises Unrecordable."""
    told = json.loads(canonical_json(draft))
    values = [told, *(value for text in artefacts.values() if (value := json_or_none(text)) is not None)]
    services = {draft.initiated_by} if draft.role == "service" else set()
    names = set().union(*(people_in(value, services) for value in values))
    tokens = {token: whose for value in values for token, whose in tokens_in(value).items()}
    aliases = persons.aliases(names, tokens)
    written = json.loads(pseudonymised(canonical_json(draft), aliases))
    written |= {name: told[name] for name in NEVER_CHANGED}
    texts = {name: pseudonymised(text, aliases) for name, text in artefacts.items()}
    try:
        return AuditDraft.model_validate_json(json.dumps(written)), texts
    except ValidationError as error:
        raise unrecordable(draft, error) from error


def named(persons: Persons, records: Sequence[AuditRecord]) -> tuple[AuditRecord, ...]:
    """With the names of persons that were not erased."""
    texts = [canonical_json(record) for record in records]
    known = persons.values(set().union(*map(aliases_in, texts)))
    return tuple(_named(record, text, known) for record, text in zip(records, texts, strict=True))


def _named(record: AuditRecord, text: str, known: Mapping[str, str]) -> AuditRecord:
    """Where what is kept for a commitment makes no record of it, it stays as it is written: one record hides
    no other."""
    try:
        told, written = json.loads(resolved(text, known)), json.loads(text)
        told |= {name: written[name] for name in NEVER_CHANGED}
        return AuditRecord.model_validate_json(json.dumps(told))
    except (ValueError, TypeError):
        return record


def json_or_none(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return None
