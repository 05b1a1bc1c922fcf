"""The audit trail: what was done, by whom, why and with what result, so that later changes show.

Each record carries the hash of the one before, a hash of its own content, a manifest with the hash of every
artefact of its run, and a signature over its own hash. Changing, removing or inserting anything breaks one
of them. What a chain alone cannot show is that its newest records were cut off: that is what the signed heads
of the Merkle tree over the records are for, kept elsewhere (`tree_heads`).

Pure: signing and checking come in as functions, time comes in with the draft.
"""

from __future__ import annotations

import hashlib
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC
from enum import StrEnum
from typing import Annotated, Any

from pydantic import AfterValidator, AwareDatetime, Field, SerializerFunctionWrapHandler, model_serializer

from .approvals import Vote
from .audit_layers import Layers, layers_of
from .model import Model, sha256_digest
from .refusal import Refusal
from .run import FailoverRequest, RunArtefacts, RunResult

Sign = Callable[[bytes], bytes]
"""Message in, signature out."""
Check = Callable[[bytes, bytes], bool]
"""Whether a signature (first) is the signer's for a message (second)."""

NO_RECORD = "sha256:" + "0" * 64
"""`previous_hash` of the first record."""

LATER_FIELDS = frozenset({"plan_digest", "refusal", "approvals", "layers"})
"""Of a record: those that the first form did not have."""

DRILL = "drill"
UNAUTHENTICATED = "unauthenticated"
"""Role of a person whose name was given and not proved; a record must not claim more."""
SERVICE = "service"
"""Role of a part of the system that acted by itself: the guardian of a cluster or of a region."""

UtcTime = Annotated[AwareDatetime, AfterValidator(lambda time: time.astimezone(UTC))]
Sha256 = Annotated[str, Field(pattern="^sha256:[0-9a-f]{64}$")]


class Approval(Model):
    """Whether people had to agree, and who did."""

    required: bool
    approved_by: str | None = None
    approved_at: UtcTime | None = None


class AuditResult(Model):
    """How the operation ended."""

    success: bool
    """What the verifier said; False for a refusal."""
    duration_ms: int = Field(ge=0)
    """The whole run, with the time that people took to vote; the report has what each step took."""
    actions_executed: int = Field(ge=0)
    """Those that succeeded, or had nothing to do, which older records do not count; none in a dry run."""


class AuditDraft(Model):
    """A record before it has its place in the chain. Form: specification, "Audit Trail & Compliance"."""

    timestamp: UtcTime
    """When the operation ended."""
    operation: str = Field(min_length=1)
    """For example `failover_execute`."""
    cluster_id: str
    initiated_by: str
    """A person, or the part of the system that acted by itself."""
    role: str
    source_node: str | None
    """node_id of the primary before."""
    target_node: str | None
    """node_id of the plan's target; None when there was no plan. `result` says whether it took over."""
    reason: str
    approval: Approval
    result: AuditResult
    run_id: str = Field(min_length=1)
    """Temporal run id; with `operation` it names the record, so that a repeated append adds nothing."""
    plan_digest: str | None = None
    """Of the plan that people agreed to and that was carried out; None where there was none."""
    refusal: Refusal | None = None
    """The rule that said no."""
    approvals: tuple[Vote, ...] | None = None
    """Every vote that was cast, for and against; None where nobody was asked."""
    layers: Layers | None = None
    """L19 to L22."""

    @model_serializer(mode="wrap")
    def _without_what_older_records_lack(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # A record is hashed as it was written: one from before these fields were there has none of them.
        written = serialize(self)
        return {name: v for name, v in written.items() if v is not None or name not in LATER_FIELDS}


class AuditRecord(AuditDraft):
    """One link of the chain."""

    audit_id: str
    """`audit-cont-YYYYMMDD-HHMMSS` in UTC, followed by `-<sequence>` where another record has that id."""
    sequence: int = Field(ge=1)
    """Place in the chain, from 1 without gaps."""
    previous_hash: Sha256
    manifest: dict[str, Sha256]
    """Name of each artefact of the run (plan, evidence, outcomes, verification, ...) to its SHA-256."""
    manifest_hash: Sha256
    record_hash: Sha256
    """Of the canonical JSON of everything above."""
    signature: str
    """Base64 of the signature over `record_hash`."""


class Link(Model):
    """What is readable of a record that is sealed: its place in the chain."""

    sequence: int
    previous_hash: Sha256
    record_hash: Sha256


class FaultCode(StrEnum):
    ALTERED_RECORD = "altered_record"  # its content is not what its hash says
    MISSING_SEQUENCE = "missing_sequence"  # records before it are gone, or it stands in the wrong place
    BROKEN_LINK = "broken_link"  # it does not follow the record before it
    BAD_SIGNATURE = "bad_signature"  # its hash was not signed by this key
    ALTERED_ARTEFACT = "altered_artefact"  # an artefact differs from the manifest, is missing or was added
    ALTERED_HEAD = "altered_head"  # a signed tree head is missing, altered, or of other records
    ALTERED_NAME = "altered_name"  # what is kept for a person's commitment is not what it commits to
    UNREADABLE = "unreadable"  # it cannot be read as a record at all
    ALTERED_SEAL = "altered_seal"  # what is encrypted, or stands beside it, is not as it was signed
    LOST_KEY = "lost_key"  # the key store has not the key that its content needs


class ChainFault(Model):
    """One thing that shows the trail was changed."""

    sequence: int
    code: FaultCode
    message: str


def draft_of(artefacts: RunArtefacts) -> AuditDraft:
    """The record of a run that has ended."""
    request, result = artefacts.request, artefacts.result
    return AuditDraft(
        timestamp=result.ended_at,
        operation=_operation(request),
        cluster_id=request.cluster_id,
        initiated_by=request.initiated_by,
        role=role_of(automatic=request.automatic, proved=result.initiator_roles),
        source_node=result.old_primary,
        target_node=result.plan.failover_target_id if result.plan is not None else None,
        reason=request.reason,
        approval=_approval(result),
        result=AuditResult(
            success=result.verified,
            duration_ms=round((result.ended_at - result.started_at).total_seconds() * 1000),
            actions_executed=result.actions_executed,
        ),
        run_id=result.run_id,
        plan_digest=result.plan_digest or (result.plan.digest if result.plan is not None else None),
        refusal=result.refusal,
        approvals=result.approval.votes if result.approval is not None else None,
        layers=layers_of(artefacts),
    )


def _operation(request: FailoverRequest) -> str:
    what = "failover" if request.maintenance is None else "maintenance"
    if request.maintenance is not None and request.maintenance.drill:
        what = DRILL
    return f"{what}_dry_run" if request.dry_run else f"{what}_execute"


def role_of(*, automatic: bool, proved: Sequence[str]) -> str:
    """By which whoever began it may do so. `proved`: the roles of a person, none where there was no proof."""
    return SERVICE if automatic else ", ".join(proved) or UNAUTHENTICATED


def _approval(result: RunResult) -> Approval:
    window = result.approval
    if window is None:
        return Approval(required=False)
    agreed = [vote for vote in window.votes if vote.approve]
    if len(agreed) < window.workflow.required_approvers:
        return Approval(required=True)
    return Approval(
        required=True, approved_by=", ".join(vote.person for vote in agreed), approved_at=agreed[-1].at
    )


def chain(
    previous: AuditRecord | Link | None,
    draft: AuditDraft,
    artefacts: Mapping[str, str],
    sign: Sign,
    *,
    taken: Collection[str] = (),
) -> AuditRecord:
    """The draft as the record after `previous` (None: as the first), signed.

    `artefacts` are the texts that the manifest names; `taken` are the audit ids already given.
    """
    sequence = 1 if previous is None else previous.sequence + 1
    audit_id = base_id(draft)
    manifest = {name: sha256_text(text) for name, text in artefacts.items()}
    unsigned = AuditRecord(
        **dict(draft),
        audit_id=f"{audit_id}-{sequence}" if audit_id in taken else audit_id,
        sequence=sequence,
        previous_hash=NO_RECORD if previous is None else previous.record_hash,
        manifest=manifest,
        manifest_hash=sha256_digest(manifest),
        record_hash=NO_RECORD,
        signature="",
    )
    record_hash = content_hash(unsigned)
    signature = b64encode(sign(_signed_message(record_hash))).decode()
    return unsigned.model_copy(update={"record_hash": record_hash, "signature": signature})


def base_id(draft: AuditDraft) -> str:
    """The audit id of a draft that has its second for itself."""
    return f"audit-cont-{draft.timestamp:%Y%m%d-%H%M%S}"


def content_hash(record: AuditRecord) -> str:
    """What `record_hash` must be."""
    return sha256_digest(record.model_dump(mode="json", exclude={"record_hash", "signature"}))


def sha256_text(text: str) -> str:
    """`sha256:<hex>` of a text; of the same bytes if it holds bytes that are not UTF-8."""
    return "sha256:" + hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()


def verify_chain(records: Iterable[AuditRecord | Link], check: Check) -> list[ChainFault]:
    """Every fault of a whole chain, given from its first record to its last. Empty: nothing was changed.

    Of a record that is sealed and not opened, its link alone is looked at.
    """
    faults: list[ChainFault] = []
    expected_sequence, expected_link = 1, NO_RECORD
    for record in records:
        if record.sequence != expected_sequence:
            faults.append(
                ChainFault(
                    sequence=record.sequence,
                    code=FaultCode.MISSING_SEQUENCE,
                    message=f"found record {record.sequence} where record {expected_sequence} belongs",
                )
            )
        elif record.previous_hash != expected_link:
            faults.append(
                ChainFault(
                    sequence=record.sequence,
                    code=FaultCode.BROKEN_LINK,
                    message=f"previous_hash is {record.previous_hash}; the record before has {expected_link}",
                )
            )
        if isinstance(record, AuditRecord):
            faults.extend(_faults_within(record, check))
        expected_sequence, expected_link = record.sequence + 1, record.record_hash
    return faults


def verify_artefacts(record: AuditRecord, artefacts: Mapping[str, str]) -> list[ChainFault]:
    """Every artefact of a run that is not as its record's manifest says."""
    return manifest_faults(record.sequence, record.manifest, artefacts)


def manifest_faults(
    sequence: int, manifest: Mapping[str, str], artefacts: Mapping[str, str]
) -> list[ChainFault]:
    """Every text that is not the one whose hash the manifest has under its name."""
    found = {name: sha256_text(text) for name, text in artefacts.items()}
    return [
        ChainFault(
            sequence=sequence,
            code=FaultCode.ALTERED_ARTEFACT,
            message=f"artefact {name!r} is {found.get(name, 'missing')}; "
            f"the manifest has {manifest.get(name, 'none of this name')}",
        )
        for name in sorted(found.keys() | manifest.keys())
        if found.get(name) != manifest.get(name)
    ]


def _faults_within(record: AuditRecord, check: Check) -> Iterator[ChainFault]:
    for what, written, actual in (
        ("record_hash", record.record_hash, content_hash(record)),
        ("manifest_hash", record.manifest_hash, sha256_digest(record.manifest)),
    ):
        if written != actual:
            yield ChainFault(
                sequence=record.sequence,
                code=FaultCode.ALTERED_RECORD,
                message=f"{what} is {written}; the content gives {actual}",
            )
    if not is_signed(record, check):
        yield ChainFault(
            sequence=record.sequence,
            code=FaultCode.BAD_SIGNATURE,
            message=f"the signature of {record.audit_id} is not this key's for {record.record_hash}",
        )


def is_signed(record: AuditRecord, check: Check) -> bool:
    """Whether the record's hash was signed by the key that `check` knows."""
    try:
        signature = b64decode(record.signature, validate=True)
    except Base64Error:
        return False
    # Base64 has several spellings of some bytes; only the one that was written counts.
    return b64encode(signature).decode() == record.signature and check(
        signature, _signed_message(record.record_hash)
    )


def _signed_message(record_hash: str) -> bytes:
    # Names its purpose, so that a signature given for something else can never pass for a record's.
    return b"qnwis audit record v1\n" + record_hash.encode()
