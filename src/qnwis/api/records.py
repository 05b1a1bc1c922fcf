"""What was made and recorded: plans, readiness, audit records and their bundles."""

from __future__ import annotations

from datetime import UTC, datetime

from fastapi import APIRouter, Response
from temporalio.client import WorkflowFailureError

from qnwis.continuity.audit import AuditRecord
from qnwis.continuity.identity import Permission
from qnwis.continuity.model import Model
from qnwis.continuity.plan import Plan
from qnwis.continuity.readiness_facts import Readiness
from qnwis.continuity.refusal import Refusal
from qnwis.providers.bundles import SUFFIX
from qnwis.providers.errors import Refused
from qnwis.readiness_runs import start_readiness

from .asking import Asking, answer, reads
from .continuity import no_plan
from .paths import AuditId, ClusterId, Limit, PlanId
from .problems import unreachable
from .texts import WholeCharacters

router = APIRouter(route_class=WholeCharacters)

BUNDLE = "application/octet-stream"
BINARY = {"type": "string", "format": "binary"}


class KeptPlan(Model):
    plan_id: str
    digest: str
    cluster_id: str
    made_by: str
    made_at: datetime


class Plans(Model):
    request_id: str
    plans: tuple[KeptPlan, ...]


class PlanView(Model):
    request_id: str
    plan_id: str
    digest: str
    plan: Plan


class Unreadable(Model):
    """A record that cannot be opened or read."""

    sequence: int
    """Its place in the log."""
    refusal: Refusal
    """Why, and what to do."""


class Records(Model):
    request_id: str
    records: tuple[AuditRecord, ...]
    unreadable: tuple[Unreadable, ...] = ()
    """Of these newest, those that cannot be read; they hide no other."""


class RecordView(Model):
    request_id: str
    record: AuditRecord
    artefacts: dict[str, str]
    """The texts that its manifest names, by name."""


class ReadinessView(Model):
    request_id: str
    readiness: Readiness


@router.get("/clusters/{cluster_id}/readiness", response_model=ReadinessView)
async def readiness(cluster_id: ClusterId, asking: Asking = reads(Permission.READ_STATUS)) -> Response:
    """Whether a failover would work now, evaluated on a worker; changes nothing."""
    parts = asking.parts
    parts.registered(cluster_id)
    handle = await start_readiness(parts.client, cluster_id, by=asking.who.name, task_queue=parts.task_queue)
    try:
        found = await handle.result()
    except WorkflowFailureError as error:
        raise Refused(unreachable(f"{cluster_id} was not evaluated: {error.cause}")) from error
    return answer(ReadinessView(request_id=asking.request_id, readiness=found))


@router.get("/plans", response_model=Plans)
async def list_plans(limit: Limit = 20, asking: Asking = reads(Permission.LIST_PLANS)) -> Response:
    """The plans that POST /plan made, newest first."""
    kept = [
        KeptPlan(
            plan_id=one.plan.plan_id,
            digest=one.plan.digest,
            cluster_id=one.plan.cluster_id,
            made_by=one.made_by,
            made_at=datetime.fromtimestamp(one.at_s, UTC),
        )
        for one in await asking.parts.store.plans(limit=limit)
    ]
    return answer(Plans(request_id=asking.request_id, plans=tuple(kept)))


@router.get("/plans/{plan_id}", response_model=PlanView)
async def show_plan(
    plan_id: PlanId,
    asking: Asking = reads(Permission.LIST_PLANS),
) -> Response:
    found = await asking.parts.store.plans(limit=1, plan_id=plan_id)
    if not found:
        raise Refused(no_plan(plan_id))
    plan = found[0].plan
    return answer(PlanView(request_id=asking.request_id, plan_id=plan_id, digest=plan.digest, plan=plan))


@router.get("/audit", response_model=Records)
async def list_records(limit: Limit = 20, asking: Asking = reads(Permission.VIEW_AUDIT)) -> Response:
    """The newest records, newest first."""
    found = await asking.parts.audit.latest_each(limit)
    records = tuple(one for _, one in found if isinstance(one, AuditRecord))
    unreadable = tuple(
        Unreadable(sequence=place, refusal=one) for place, one in found if isinstance(one, Refusal)
    )
    if unreadable and not records:
        raise Refused(unreadable[0].refusal)
    return answer(Records(request_id=asking.request_id, records=records, unreadable=unreadable))


@router.get("/audit/{audit_id}", response_model=RecordView)
async def show_record(
    audit_id: AuditId,
    asking: Asking = reads(Permission.VIEW_AUDIT),
) -> Response:
    """One record, with what its manifest names."""
    record = await record_of(audit_id, asking)
    artefacts = await asking.parts.audit.artefacts(audit_id)
    return answer(RecordView(request_id=asking.request_id, record=record, artefacts=artefacts))


@router.get(
    "/audit/{audit_id}/bundle",
    response_class=Response,
    responses={200: {"description": "The sealed bundle", "content": {BUNDLE: {"schema": BINARY}}}},
)
async def download_bundle(audit_id: AuditId, asking: Asking = reads(Permission.VIEW_AUDIT)) -> Response:
    """The record's bundle, which `qnwis-continuity audit verify FILE` proves offline."""
    await record_of(audit_id, asking)
    content = await asking.parts.bundles.read(audit_id)
    name = f'attachment; filename="{audit_id}{SUFFIX}"'
    return Response(content, media_type=BUNDLE, headers={"Content-Disposition": name})


async def record_of(audit_id: str, asking: Asking) -> AuditRecord:
    """Raises Refused for an unknown id."""
    record = await asking.parts.audit.get(audit_id)
    if record is None:
        raise Refused(
            Refusal(
                rule="no_record",
                message=f"There is no record {audit_id}",
                values={"audit_id": audit_id},
                remedy="GET /api/v1/continuity/audit lists them.",
            )
        )
    return record
