"""`docs/reference/audit-records.md`: what leaves a record, and what stands in one."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from types import ModuleType

from qnwis.continuity import (
    access_review,
    audit,
    break_glass_record,
    conflict_record,
    decisions,
    erasure,
    guardian_record,
    region_run,
    registration,
    review,
)
from qnwis.continuity.access import Deed
from qnwis.continuity.audit import AuditRecord, FaultCode

from .fields import all_models, field_table, meanings, schema_of
from .markdown import cell, code, paragraphs, table

DRY = "_dry_run"
OTHERS = {
    registration: "a change through the API of what is registered: recorded first, with before and after",
    review: "the review of an emergency override was closed",
    access_review: "who can do what, who did, and which rights nobody used",
    break_glass_record: "what people carried out by a break-glass plan, recorded afterwards",
    erasure: "a person was erased; the record has the commitment alone",
}


def operations() -> list[tuple[str, ModuleType]]:
    """Every operation, and the module that names it."""
    runs = [
        f"{what}_{how}" for what in ("failover", "maintenance", audit.DRILL) for how in ("execute", "dry_run")
    ]
    regions = [f"{name}{dry}" for name in region_run.OPERATIONS.values() for dry in ("", DRY)]
    return [
        *((name, audit) for name in runs),
        *((name, region_run) for name in regions),
        *((decisions.operation_of(deed), decisions) for deed in Deed),
        *((name, guardian_record) for name in (guardian_record.FAILOVER_REFUSED, guardian_record.REPROTECT)),
        *((change.value, registration) for change in registration.Change),
        (review.OPERATION, review),
        (access_review.OPERATION, access_review),
        (break_glass_record.OPERATION, break_glass_record),
        *((name, conflict_record) for name in (conflict_record.UNDO, conflict_record.PRUNE)),
        (erasure.OPERATION, erasure),
    ]


def audit_page() -> str:
    parts = [
        "# Audit records\n\n",
        "What leaves a record, and what a record says. [Proving what was done](../howto/audit.md) says how"
        " they are kept, sealed and proved.\n\n",
        "## Operations\n\n",
        table(("`operation`", "what it is a record of", "made in"), (_row(*one) for one in operations())),
        "## Fields\n\n",
        "Everything but the place in the chain, the hashes and the signature is the draft of the record;"
        " names of persons are stored as commitments.\n\n",
    ]
    whole = schema_of(AuditRecord)
    for name, model in all_models(AuditRecord).items():
        schema = whole if model is AuditRecord else whole.get("$defs", {}).get(name, {})
        parts += [
            f"### {name}\n\n",
            paragraphs(model.__doc__ or ""),
            field_table(schema, whole, meanings(model)),
        ]
    parts += [
        "## What `audit verify` finds\n\n",
        table(("fault", "means"), ((code(fault.value), cell(text)) for fault, text in _faults())),
    ]
    return "".join(parts)


def _row(name: str, module: ModuleType) -> tuple[str, str, str]:
    source = module.__name__.replace(".", "/")
    return (
        code(name),
        cell(_about(name, module)),
        f"[`{source.rpartition('/')[2]}.py`](../../src/{source}.py)",
    )


def _about(name: str, module: ModuleType) -> str:
    if module is audit:
        kind = {
            "failover": "a failover's run",
            "maintenance": "a planned switchover's run",
            audit.DRILL: "a drill, each way",
        }[name.partition("_")[0]]
        return kind + (", as a dry run: nothing was changed" if name.endswith(DRY) else "")
    if module is region_run:
        kind = "the evacuation of a region" if "evacuate" in name else "the way back to a region"
        return kind + (", as a dry run: nothing was changed" if name.endswith(DRY) else "")
    if module is decisions:
        return (
            f"whether somebody may `{name.removeprefix(decisions.PREFIX)}`, and by which proof; "
            "refused ones too"
        )
    if name == guardian_record.FAILOVER_REFUSED:
        return (
            "a failover that a guardian does not start, once for as long as the same rule refuses "
            "in the same situation"
        )
    if name == guardian_record.REPROTECT:
        return "a rejoin that Reprotect orders"
    if module is conflict_record:
        return (
            "a conflicting write was undone"
            if name == conflict_record.UNDO
            else "old tombstones were forgotten"
        )
    return OTHERS[module]


def _faults() -> Iterator[tuple[FaultCode, str]]:
    """The comment behind each."""
    source = inspect.getsource(FaultCode)
    (written,) = ast.parse(source).body
    assert isinstance(written, ast.ClassDef)
    lines = source.splitlines()
    for line in written.body:
        if isinstance(line, ast.Assign) and isinstance(line.targets[0], ast.Name):
            yield FaultCode[line.targets[0].id], lines[line.lineno - 1].partition("# ")[2]
