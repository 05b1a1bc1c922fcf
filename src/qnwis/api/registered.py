"""What is registered and what was recorded: clusters, policies, plans, readiness, audit records."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Annotated

import yaml
from fastapi import APIRouter, Header, Path, Query, Response
from pydantic import BaseModel
from temporalio.client import WorkflowExecutionStatus, WorkflowFailureError
from temporalio.service import RPCError, RPCStatusCode

from qnwis.continuity.audit import AuditRecord
from qnwis.continuity.identity import Permission
from qnwis.continuity.model import Model, sha256_digest
from qnwis.continuity.plan import Plan
from qnwis.continuity.policy import Policy
from qnwis.continuity.readiness_facts import Readiness
from qnwis.continuity.refusal import Refusal
from qnwis.continuity.topology import Cluster
from qnwis.providers.errors import Refused
from qnwis.providers.service_tokens import write_private
from qnwis.readiness_runs import start_readiness
from workflows.names import failover_id

from .asking import Asking, acts, answer, reads
from .continuity import no_plan
from .problems import unreachable
from .runs import ClusterId
from .texts import WholeCharacters

router = APIRouter(route_class=WholeCharacters)

Limit = Annotated[int, Query(ge=1, le=200)]
IfMatch = Annotated[
    str | None, Header(alias="If-Match", description="The digest of what is replaced, as GET answers it.")
]


class ClusterView(Model):
    request_id: str
    cluster: Cluster
    digest: str


class PolicyView(Model):
    request_id: str
    cluster_id: str
    policy: Policy
    digest: str


class Clusters(Model):
    request_id: str
    cluster_ids: tuple[str, ...]


class Policies(Model):
    request_id: str
    policies: dict[str, Policy]
    """By cluster_id."""


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


class Records(Model):
    request_id: str
    records: tuple[AuditRecord, ...]


class RecordView(Model):
    request_id: str
    record: AuditRecord
    artefacts: dict[str, str]
    """The texts that its manifest names, by name."""


class ReadinessView(Model):
    request_id: str
    readiness: Readiness


@router.get("/clusters", response_model=Clusters)
async def list_clusters(asking: Asking = reads(Permission.READ_STATUS)) -> Response:
    ids = await asyncio.to_thread(asking.parts.registry.cluster_ids)
    return answer(Clusters(request_id=asking.request_id, cluster_ids=tuple(ids)))


@router.get("/clusters/{cluster_id}", response_model=ClusterView)
async def show_cluster(cluster_id: ClusterId, asking: Asking = reads(Permission.READ_STATUS)) -> Response:
    found = asking.parts.registered(cluster_id).cluster
    view = ClusterView(request_id=asking.request_id, cluster=found, digest=sha256_digest(found))
    return answer(view, headers={"ETag": f'"{view.digest}"'})


@router.put("/clusters/{cluster_id}", response_model=ClusterView)
async def set_cluster(
    cluster_id: ClusterId,
    body: Cluster,
    if_match: IfMatch = None,
    asking: Asking = acts(Permission.MANAGE_CLUSTER),
) -> Response:
    """Replace the registered topology, while no run of the cluster goes on."""

    async def replace() -> Response:
        _same_id(cluster_id, body.cluster_id)
        found = asking.parts.registered(cluster_id).cluster
        _matches(if_match, sha256_digest(found))
        await _no_run(asking, cluster_id)
        await asyncio.to_thread(_write, asking, cluster_id, "cluster.yaml", body)
        written = asking.parts.registered(cluster_id).cluster
        return answer(
            ClusterView(request_id=asking.request_id, cluster=written, digest=sha256_digest(written))
        )

    return await asking.once(replace)


@router.get("/policies", response_model=Policies)
async def list_policies(asking: Asking = reads(Permission.READ_STATUS)) -> Response:
    registry = asking.parts.registry
    loaded = await asyncio.to_thread(
        lambda: {cluster_id: registry.load(cluster_id).policy for cluster_id in registry.cluster_ids()}
    )
    return answer(Policies(request_id=asking.request_id, policies=loaded))


@router.get("/clusters/{cluster_id}/policy", response_model=PolicyView)
async def show_policy(cluster_id: ClusterId, asking: Asking = reads(Permission.READ_STATUS)) -> Response:
    found = asking.parts.registered(cluster_id).policy
    digest = sha256_digest(found)
    view = PolicyView(request_id=asking.request_id, cluster_id=cluster_id, policy=found, digest=digest)
    return answer(view, headers={"ETag": f'"{digest}"'})


@router.put("/clusters/{cluster_id}/policy", response_model=PolicyView)
async def set_policy(
    cluster_id: ClusterId,
    body: Policy,
    if_match: IfMatch = None,
    asking: Asking = acts(Permission.CONFIGURE_POLICY),
) -> Response:
    """Replace the policy that governs the cluster, while no run of it goes on."""

    async def replace() -> Response:
        _matches(if_match, sha256_digest(asking.parts.registered(cluster_id).policy))
        await _no_run(asking, cluster_id)
        await asyncio.to_thread(_write, asking, cluster_id, "policy.yaml", body)
        written = asking.parts.registered(cluster_id).policy
        digest = sha256_digest(written)
        view = PolicyView(request_id=asking.request_id, cluster_id=cluster_id, policy=written, digest=digest)
        return answer(view)

    return await asking.once(replace)


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
    plan_id: Annotated[str, Path(pattern=r"^plan-[0-9a-f]{12}$")],
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
    found = await asking.parts.audit.latest(limit)
    return answer(Records(request_id=asking.request_id, records=found))


@router.get("/audit/{audit_id}", response_model=RecordView)
async def show_record(
    audit_id: Annotated[str, Path(pattern=r"^audit-[A-Za-z0-9-]{1,100}$")],
    asking: Asking = reads(Permission.VIEW_AUDIT),
) -> Response:
    """One record, with what its manifest names."""
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
    artefacts = await asking.parts.audit.artefacts(audit_id)
    return answer(RecordView(request_id=asking.request_id, record=record, artefacts=artefacts))


def _same_id(path: str, body: str) -> None:
    if path != body:
        raise Refused(
            Refusal(
                rule="cluster_id_differs",
                message=f"The path names {path}, and the body {body}",
                values={"path": path, "body": body},
                remedy="Send the topology of the cluster that the path names.",
            )
        )


def _matches(if_match: str | None, digest: str) -> None:
    """Raises Refused where what is to be replaced is not what the sender saw."""
    if if_match is None:
        raise Refused(
            Refusal(
                rule="if_match_missing",
                message="If-Match is missing: what is replaced has to be named by its digest",
                values={"digest": digest},
                remedy="GET it, and send its digest as If-Match.",
            )
        )
    if if_match.strip('"') != digest:
        raise Refused(
            Refusal(
                rule="changed_meanwhile",
                message="What is registered is not what If-Match names",
                values={"if_match": if_match, "digest": digest},
                remedy="GET it again, and make the change to that.",
            )
        )


async def _no_run(asking: Asking, cluster_id: str) -> None:
    """Raises Refused while a run of the cluster goes on, which knows the files as they were."""
    try:
        found = await asking.parts.client.get_workflow_handle(failover_id(cluster_id)).describe()
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            return
        raise
    if found.status is WorkflowExecutionStatus.RUNNING:
        raise Refused(
            Refusal(
                rule="run_in_progress",
                message=f"A run holds the lock of {cluster_id}",
                values={"workflow_id": found.id, "run_id": found.run_id},
                remedy="Change the files when it has ended.",
            )
        )


def _write(asking: Asking, cluster_id: str, name: str, value: BaseModel) -> None:
    """Replace the file whole. What a person wrote beside it (comments) is not kept. Raises Refused for a
    lease group, whose files are those of its active/active cluster."""
    registry = asking.parts.registry
    if cluster_id not in registry.cluster_ids():
        raise Refused(
            Refusal(
                rule="part_of_another",
                message=f"{cluster_id} is a lease group, and has no files of its own",
                values={"cluster_id": cluster_id},
                remedy="Change the whole cluster.",
            )
        )
    folder = registry.directory / "clusters" / cluster_id
    path = (folder if folder.is_dir() else registry.directory) / name
    mode = path.stat().st_mode & 0o777
    data = value.model_dump(mode="json", exclude_none=True, exclude_unset=True)
    write_private(path, yaml.safe_dump(data, sort_keys=False, allow_unicode=True))
    path.chmod(mode)
