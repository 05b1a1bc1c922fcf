"""Builds of this program that workers run side by side, and which of them begins what begins next.

A run is pinned to the build on which it began (`workflows/versioning.py`), so the workers of an old build are
stopped when no run is left on it: when Temporal calls it drained.
"""

from __future__ import annotations

import asyncio
import time
from datetime import datetime

from temporalio.api.enums.v1 import WorkerDeploymentVersionStatus
from temporalio.api.workflowservice.v1 import (
    DescribeWorkerDeploymentRequest,
    SetWorkerDeploymentCurrentVersionRequest,
)
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from qnwis.continuity.model import Model
from qnwis.continuity.refusal import Refusal
from qnwis.providers.errors import Refused
from qnwis.temporal import not_there

DEPLOYMENT = "qnwis-continuity"
"""The deployment of workers that name no other."""
HEARD_OF_WITHIN_S = 5.0
"""A worker that polls for so long is known to Temporal."""


class Build(Model):
    build: str
    status: str
    """inactive, current, ramping, draining (runs are left on it) or drained."""
    since: datetime
    """When its first worker came."""


async def builds_of(client: Client, deployment: str = DEPLOYMENT) -> tuple[Build, ...]:
    """The builds that workers were ever seen with, the newest first; none for a deployment that nobody knows.

    Temporal hears of a build a moment after its first worker, and calls one drained minutes after its last.
    """
    asked = DescribeWorkerDeploymentRequest(namespace=client.namespace, deployment_name=deployment)
    try:
        info = (await client.workflow_service.describe_worker_deployment(asked)).worker_deployment_info
    except RPCError as error:
        if not_there(error):
            return ()
        raise
    found = [
        Build(
            build=version.deployment_version.build_id,
            status=_word(version.status),
            since=version.create_time.ToDatetime(),
        )
        for version in info.version_summaries
    ]
    return tuple(sorted(found, key=lambda build: build.since, reverse=True))


async def make_current(client: Client, build: str, deployment: str = DEPLOYMENT) -> None:
    """Let what begins from now on, guardians and what else goes on without end be of this build.

    Raises Refused where no worker of that build is known, or none polls a queue that the current build's do.
    Temporal hears of a worker's queues one after another, so that is waited for.
    """
    deadline = time.monotonic() + HEARD_OF_WITHIN_S
    while (refusal := await _not_current(client, build, deployment)) is not None:
        if time.monotonic() > deadline:
            raise Refused(refusal)
        await asyncio.sleep(HEARD_OF_WITHIN_S / 20)


async def _not_current(client: Client, build: str, deployment: str) -> Refusal | None:
    """Make it the current one; why not, if it cannot be now."""
    known = [found.build for found in await builds_of(client, deployment)]
    if build not in known:
        return _unknown(build, known, deployment)
    asked = SetWorkerDeploymentCurrentVersionRequest(
        namespace=client.namespace, deployment_name=deployment, build_id=build, identity=client.identity
    )
    try:
        await client.workflow_service.set_worker_deployment_current_version(asked)
    except RPCError as error:
        if error.status is not RPCStatusCode.FAILED_PRECONDITION:
            raise
        return _incomplete(build, deployment, str(error))
    return None


def _word(status: WorkerDeploymentVersionStatus.ValueType) -> str:
    name = WorkerDeploymentVersionStatus.Name(status).removeprefix("WORKER_DEPLOYMENT_VERSION_STATUS_")
    return "inactive" if name in ("UNSPECIFIED", "CREATED") else name.lower()


def _incomplete(build: str, deployment: str, said: str) -> Refusal:
    return Refusal(
        rule="build_incomplete",
        message=f"Temporal does not make {build} the current build of {deployment}: {said}",
        values={"build": build, "deployment": deployment},
        remedy="Start its workers for every queue that the current build's poll",
    )


def _unknown(build: str, known: list[str], deployment: str) -> Refusal:
    return Refusal(
        rule="build_unknown",
        message=f"No worker of build {build} is known in {deployment}, but of {', '.join(known) or 'none'}",
        values={"build": build, "known": [*known], "deployment": deployment},
        remedy=f"Start one first: `qnwis-continuity worker --build {build} …`",
    )
