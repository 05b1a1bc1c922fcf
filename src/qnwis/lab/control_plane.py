"""The lab's control plane: a Temporal server, a worker, the vantages and the cluster's guardian."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from temporalio.client import Client, WorkflowHandle
from temporalio.service import RPCError

from qnwis.continuity.run import RunResult
from qnwis.continuity.topology import Cluster, NodeStatus
from qnwis.starting import start_guardian
from qnwis.temporal import connect
from workflows.guardian import Guardian
from workflows.guardian_state import GuardianView
from workflows.names import SEARCH_ATTRIBUTES, failover_id
from workflows.primary_failure import PrimaryFailure

from .cluster import Lab
from .errors import LabError
from .layout import METRICS_PORT, SDK_METRICS_PORT, VANTAGES_APART, Block
from .places import CONTROL
from .processes import Started, last_lines, python_module
from .shape import VANTAGES
from .temporal_server import Say, TemporalServer, obtain_server

WORKER = "worker"
READY_WITHIN_S = 180.0
"""A busy machine takes its time; a worker that ends is told of at once."""
LOOK_EVERY_S = 0.2


@dataclass(frozen=True)
class ControlPlane:
    """What watches the lab's cluster and fails it over."""

    lab: Lab
    server: TemporalServer
    client: Client
    guardian: WorkflowHandle[Guardian, None]

    @classmethod
    async def start(cls, lab: Lab, say: Say, *, env: Mapping[str, str] | None = None) -> ControlPlane:
        """Start the parts; returns when every vantage sees every node healthy. `env` is the worker's, besides
        this process's own. Raises LabError."""
        server = await obtain_server(
            lab.processes,
            block=lab.block,
            database=lab.folder.run / "temporal.sqlite",
            search_attributes={key.name: "Keyword" for key in SEARCH_ATTRIBUTES},
            cache=lab.folder.cache,
            say=say,
        )
        lab.note_server(server.address, server.ui_url)
        workers = [
            start_worker(lab, server, env),
            *(start_vantage(lab, server, name) for name in VANTAGES[1:]),
        ]
        client = await connect(server.address)
        say(f"metrics, for Prometheus, at {', '.join(scraped_at(lab.block))}")
        return cls(lab, server, client, await watched(client, lab.cluster, workers))

    def run_url(self, run_id: str) -> str | None:
        """The Temporal UI's page of a failover run."""
        if self.server.ui_url is None:
            return None
        workflow_id = failover_id(self.lab.cluster.cluster_id)
        return f"{self.server.ui_url}/namespaces/{self.server.namespace}/workflows/{workflow_id}/{run_id}"

    async def next_run(self, *, within_s: float) -> WorkflowHandle[PrimaryFailure, RunResult]:
        """The cluster's failover run, once there is one. Raises LabError when none starts in time."""
        return await next_run(self.client, self.guardian, self.lab.cluster.cluster_id, within_s=within_s)


async def next_run(
    client: Client,
    guardian: WorkflowHandle[Guardian, None],
    cluster_id: str,
    *,
    within_s: float,
    after: str | None = None,
) -> WorkflowHandle[PrimaryFailure, RunResult]:
    """The cluster's failover run, once there is one, other than the one of run id `after`. Raises LabError
    when none starts in time."""
    workflow_id = failover_id(cluster_id)
    handle = client.get_workflow_handle_for(PrimaryFailure.run, workflow_id)
    try:
        async with asyncio.timeout(within_s):
            while True:
                with contextlib.suppress(RPCError):
                    run_id = (await handle.describe()).run_id
                    if run_id != after:
                        return client.get_workflow_handle_for(PrimaryFailure.run, workflow_id, run_id=run_id)
                await asyncio.sleep(0.1)
    except TimeoutError:
        why = (await guardian.query(Guardian.view)).holding
        raise LabError(
            f"no failover started within {within_s:g} s; the guardian says: {why or 'nothing'}"
        ) from None


def start_worker(lab: Lab, server: TemporalServer, env: Mapping[str, str] | None = None) -> Started:
    """Start the lab's worker process, which is the first vantage too."""
    command = python_module(
        "qnwis.cli.qnwis_continuity",
        "worker",
        *("--config-dir", str(lab.folder.config), "--state-dir", str(lab.folder.audit)),
        *("--vantage", VANTAGES[0], "--address", server.address),
        *_metrics_at(lab.block.control),
    )
    env = {**lab.certificates.environment(WORKER), **(env or {})}
    return lab.processes.start(WORKER, command, cwd=lab.folder.run, env=env, place=lab.block.place(CONTROL))


def start_vantage(lab: Lab, server: TemporalServer, name: str) -> Started:
    """Start the process of a vantage that stands apart."""
    command = python_module(
        "qnwis.cli.qnwis_continuity",
        "worker",
        *("--config-dir", str(lab.folder.config), "--address", server.address),
        *("--vantage", name, "--vantages-only"),
        *_metrics_at(lab.block.vantage(VANTAGES.index(name) - 1)),
    )
    env = lab.certificates.environment(name)
    return lab.processes.start(name, command, cwd=lab.folder.run, env=env, place=lab.block.place(name))


def _metrics_at(address: str) -> tuple[str, ...]:
    return ("--metrics", f"{address}:{METRICS_PORT}", "--sdk-metrics", f"{address}:{SDK_METRICS_PORT}")


def scraped_at(block: Block) -> tuple[str, ...]:
    """HOST:PORT of each worker's own metrics, for Prometheus; the SDK's are one port further."""
    workers = (block.control, *(block.vantage(index) for index in range(VANTAGES_APART)))
    return tuple(f"{worker}:{METRICS_PORT}" for worker in workers)


async def watched(
    client: Client, cluster: Cluster, workers: Sequence[Started] = ()
) -> WorkflowHandle[Guardian, None]:
    """The cluster's guardian, once it sees every node healthy. Raises LabError, at once if a worker ends."""
    guardian = await start_guardian(client, cluster.cluster_id)
    await _until_all_healthy(cluster, guardian, workers)
    return guardian


async def _until_all_healthy(
    cluster: Cluster, guardian: WorkflowHandle[Guardian, None], workers: Sequence[Started]
) -> None:
    wanted = {node.node_id: NodeStatus.HEALTHY for node in cluster.nodes}
    view: GuardianView | None = None
    try:
        async with asyncio.timeout(READY_WITHIN_S):
            while view is None or view.statuses != wanted or view.abstaining:
                if not all(worker.alive for worker in workers):
                    break
                view = await _view(guardian)
                await asyncio.sleep(LOOK_EVERY_S)
            else:
                return
    except TimeoutError:
        pass
    seen = "; ".join(_in_words(view)) if view is not None else ""
    ends = [f"{worker.log} ends:\n{last_lines(worker.log)}" for worker in workers]
    raise LabError(
        "\n".join([f"the guardian does not see every node healthy (it sees {seen or 'nothing'})", *ends])
    )


def _in_words(view: GuardianView) -> list[str]:
    nodes = [f"{node_id} {verdict.finding.value}" for node_id, verdict in view.verdicts.items()]
    return nodes + [f"{vantage} abstains: {why}" for vantage, why in view.abstaining.items()]


async def _view(guardian: WorkflowHandle[Guardian, None]) -> GuardianView | None:
    try:
        return await guardian.query(Guardian.view, rpc_timeout=timedelta(seconds=2))
    except RPCError:
        return None  # no worker answers yet
