"""What is registered: clusters and the policies that govern them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import yaml
from fastapi import APIRouter, Body, Response
from pydantic import BaseModel
from temporalio.client import WorkflowExecutionStatus
from temporalio.service import RPCError, RPCStatusCode

from qnwis.continuity.identity import Permission
from qnwis.continuity.model import Model, canonical_json, sha256_digest
from qnwis.continuity.policy import Policy
from qnwis.continuity.refusal import Refusal
from qnwis.continuity.registration import AFTER, BEFORE, Change, draft_of_change
from qnwis.continuity.topology import Cluster
from qnwis.providers.errors import Refused
from qnwis.providers.service_tokens import write_private
from qnwis.starting import run_in_progress
from workflows.names import failover_id

from .asking import Asking, acts, answer, reads
from .bodies import RULES, TOPOLOGY, OfBoundedSize, example
from .paths import ClusterId, IfMatch
from .texts import WholeCharacters

router = APIRouter(route_class=WholeCharacters)


class ClusterView(Model):
    request_id: str
    cluster: Cluster
    digest: str


class RegisterBody(Model):
    model_config = example(cluster=TOPOLOGY, policy=RULES)

    cluster: Annotated[Cluster, OfBoundedSize]
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

    async def register() -> Response:
        cluster_id = body.cluster.cluster_id
        await asyncio.to_thread(_register, asking, body)
        await _record(Change.REGISTER_CLUSTER, cluster_id, None, body.cluster, asking)
        location = {"Location": f"/api/v1/continuity/clusters/{cluster_id}"}
        return _cluster(cluster_id, asking, status=201, headers=location)

    return await asking.once(register)


@router.put("/clusters/{cluster_id}", response_model=ClusterView)
async def set_cluster(
    cluster_id: ClusterId,
    body: Annotated[Cluster, OfBoundedSize, Body(examples=[TOPOLOGY])],
    if_match: IfMatch = None,
    asking: Asking = acts(Permission.MANAGE_CLUSTER),
) -> Response:
    """Replace the registered topology, while no run of the cluster goes on."""

    async def replace() -> Response:
        _same_id(cluster_id, body.cluster_id)
        found = asking.parts.registered(cluster_id).cluster
        if found != body:  # else this very request wrote it, and its record is missing
            _matches(if_match, sha256_digest(found))
            await _no_run(asking, cluster_id)
            await asyncio.to_thread(_write, asking, cluster_id, "cluster.yaml", body)
        await _record(Change.SET_CLUSTER, cluster_id, found, body, asking)
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

    async def replace() -> Response:
        found = asking.parts.registered(cluster_id).policy
        if found != body:  # else this very request wrote it, and its record is missing
            _matches(if_match, sha256_digest(found))
            await _no_run(asking, cluster_id)
            await asyncio.to_thread(_write, asking, cluster_id, "policy.yaml", body)
        await _record(Change.SET_POLICY, cluster_id, found, body, asking)
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


async def _record(
    change: Change, cluster_id: str, before: Model | None, after: Model, asking: Asking
) -> None:
    """Before it is answered that the change was made."""
    draft = draft_of_change(
        change,
        cluster_id,
        by=asking.who,
        before=None if before is None else sha256_digest(before),
        after=sha256_digest(after),
        key=asking.key,
        at=asking.parts.now(),
    )
    texts = {AFTER: canonical_json(after), **({} if before is None else {BEFORE: canonical_json(before)})}
    await asking.parts.audit.append(draft, texts)


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
        raise Refused(run_in_progress(cluster_id, found.id, found.run_id))


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
    write_private(path, _as_yaml(value))
    path.chmod(mode)


def _register(asking: Asking, body: RegisterBody) -> None:
    """Write both files of a new cluster; they are there together or not at all. Raises Refused for one that
    is registered."""
    cluster_id, directory = body.cluster.cluster_id, asking.parts.registry.directory
    if asking.parts.known(cluster_id) is not None:
        raise Refused(_registered_already(cluster_id))
    (directory / "clusters").mkdir(exist_ok=True)
    with TemporaryDirectory(dir=directory) as temporary:
        made = Path(temporary) / cluster_id
        made.mkdir(mode=0o755)
        for name, value in (("policy.yaml", body.policy), ("cluster.yaml", body.cluster)):
            (made / name).write_text(_as_yaml(value))
        try:
            made.rename(directory / "clusters" / cluster_id)
        except OSError as error:  # somebody else was first
            raise Refused(_registered_already(cluster_id)) from error


def _registered_already(cluster_id: str) -> Refusal:
    return Refusal(
        rule="cluster_registered",
        message=f"{cluster_id} is registered already",
        values={"cluster_id": cluster_id},
        remedy=f"Change it: PUT /api/v1/continuity/clusters/{cluster_id}.",
    )


def _as_yaml(value: BaseModel) -> str:
    data = value.model_dump(mode="json", exclude_none=True, exclude_unset=True)
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True)
