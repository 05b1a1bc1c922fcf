"""What is registered: clusters and the policies that govern them."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Body, Response
from pydantic import AfterValidator
from temporalio.client import WorkflowExecutionStatus
from temporalio.service import RPCError

from qnwis.continuity.identity import Permission
from qnwis.continuity.model import Model, sha256_digest
from qnwis.continuity.policy import Policy
from qnwis.continuity.refusal import Refusal
from qnwis.continuity.registration import Change
from qnwis.continuity.topology import Cluster, registrable
from qnwis.providers.errors import Refused
from qnwis.providers.request_store import Begun
from qnwis.starting import run_in_progress
from qnwis.temporal import not_there
from workflows.names import failover_id

from .asking import Asking, acts, answer, reads
from .bodies import RULES, TOPOLOGY, OfBoundedSize, example
from .changing import alone, register_new, replace_file
from .paths import ClusterId, IfMatch
from .texts import WholeCharacters

router = APIRouter(route_class=WholeCharacters)

Registrable = Annotated[Cluster, AfterValidator(registrable)]
"""A topology that its file can be read back from."""


class ClusterView(Model):
    request_id: str
    cluster: Cluster
    digest: str


class RegisterBody(Model):
    model_config = example(cluster=TOPOLOGY, policy=RULES)

    cluster: Annotated[Registrable, OfBoundedSize]
    policy: Policy


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


@router.get("/clusters", response_model=Clusters)
async def list_clusters(asking: Asking = reads(Permission.READ_STATUS)) -> Response:
    ids = await asyncio.to_thread(asking.parts.registry.cluster_ids)
    return answer(Clusters(request_id=asking.request_id, cluster_ids=tuple(ids)))


@router.get("/clusters/{cluster_id}", response_model=ClusterView)
async def show_cluster(cluster_id: ClusterId, asking: Asking = reads(Permission.READ_STATUS)) -> Response:
    return _cluster(cluster_id, asking)


@router.post("/clusters", response_model=ClusterView, status_code=201)
async def register_cluster(
    body: RegisterBody,
    asking: Asking = acts(Permission.MANAGE_CLUSTER, Permission.CONFIGURE_POLICY),
) -> Response:
    """Register a cluster that is not there yet, with the policy that governs it."""

    async def register(begun: Begun) -> Response:
        cluster_id = body.cluster.cluster_id
        async with alone(asking, cluster_id):
            await register_new(asking, body.cluster, body.policy, begun.deed_id)
            location = {"Location": f"/api/v1/continuity/clusters/{cluster_id}"}
            return _cluster(cluster_id, asking, status=201, headers=location)

    return await asking.once(register)


@router.put("/clusters/{cluster_id}", response_model=ClusterView)
async def set_cluster(
    cluster_id: ClusterId,
    body: Annotated[Registrable, OfBoundedSize, Body(examples=[TOPOLOGY])],
    if_match: IfMatch = None,
    asking: Asking = acts(Permission.MANAGE_CLUSTER),
) -> Response:
    """Replace the registered topology, while no run of the cluster goes on."""

    async def replace(begun: Begun) -> Response:
        _same_id(cluster_id, body.cluster_id)
        async with alone(asking, cluster_id):
            found = asking.parts.registered(cluster_id).cluster
            if found != body:  # else there is nothing to change or to record
                _matches(if_match, sha256_digest(found))
                await _no_run(asking, cluster_id)
                await replace_file(asking, Change.SET_CLUSTER, cluster_id, found, body, begun.deed_id)
            return _cluster(cluster_id, asking)

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
    return _policy(cluster_id, asking)


@router.put("/clusters/{cluster_id}/policy", response_model=PolicyView)
async def set_policy(
    cluster_id: ClusterId,
    body: Annotated[Policy, Body(examples=[RULES])],
    if_match: IfMatch = None,
    asking: Asking = acts(Permission.CONFIGURE_POLICY),
) -> Response:
    """Replace the policy that governs the cluster, while no run of it goes on."""

    async def replace(begun: Begun) -> Response:
        async with alone(asking, cluster_id):
            found = asking.parts.registered(cluster_id).policy
            if found != body:  # else there is nothing to change or to record
                _matches(if_match, sha256_digest(found))
                await _no_run(asking, cluster_id)
                await replace_file(asking, Change.SET_POLICY, cluster_id, found, body, begun.deed_id)
            return _policy(cluster_id, asking)

    return await asking.once(replace)


def _cluster(
    cluster_id: str, asking: Asking, *, status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    """The topology as it is registered now."""
    found = asking.parts.registered(cluster_id).cluster
    view = ClusterView(request_id=asking.request_id, cluster=found, digest=sha256_digest(found))
    return answer(view, status, {**(headers or {}), "ETag": f'"{view.digest}"'})


def _policy(cluster_id: str, asking: Asking) -> Response:
    """The policy as it is registered now."""
    found = asking.parts.registered(cluster_id).policy
    view = PolicyView(
        request_id=asking.request_id, cluster_id=cluster_id, policy=found, digest=sha256_digest(found)
    )
    return answer(view, headers={"ETag": f'"{view.digest}"'})


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
        if not_there(error):
            return
        raise
    if found.status is WorkflowExecutionStatus.RUNNING:
        raise Refused(run_in_progress(cluster_id, found.id, found.run_id))
