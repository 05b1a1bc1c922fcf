"""The workers of vantages. A process that serves nothing else loads nothing of the runbooks, so it starts
sooner and holds less memory."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import timedelta

from temporalio.client import Client
from temporalio.worker import Interceptor, Worker

from activities.health import Health
from qnwis.config.registry import Registry
from qnwis.metrics.exposition import Exposition
from qnwis.metrics.watches import WatchMetrics
from qnwis.providers.all_nodes import AllNodes
from qnwis.providers.nodes import Nodes
from qnwis.transport import transport_of
from workflows.names import vantage_queue

from .settings import WorkerSettings
from .whereabouts import Whereabouts

ACTIVITIES = 10_000
"""At once in one worker: nearly all of them wait, one for each cluster and vantage and one for its runs, and
they must not keep an effect from being begun."""


def workers_at_vantages(
    client: Client,
    settings: WorkerSettings,
    metrics: Exposition | None,
    tracing: Sequence[Interceptor],
) -> Sequence[Worker]:
    """The workers of a process that serves vantages only."""
    nodes = AllNodes(transport_of(os.environ, settings.config_dir))
    return vantage_workers(client, settings, Registry(settings.config_dir), nodes, metrics, tracing)


def vantage_workers(
    client: Client,
    settings: WorkerSettings,
    registry: Registry,
    nodes: Nodes,
    metrics: Exposition | None = None,
    tracing: Sequence[Interceptor] = (),
) -> Sequence[Worker]:
    """One for each vantage that this process stands at."""
    watch = Health(registry, nodes, WatchMetrics(metrics) if metrics is not None else None).watch
    return [
        Worker(
            client,
            task_queue=vantage_queue(vantage),
            activities=[watch],
            max_concurrent_activities=ACTIVITIES,
            interceptors=[Whereabouts(), *tracing],
            max_heartbeat_throttle_interval=timedelta(seconds=1),
            default_heartbeat_throttle_interval=timedelta(seconds=1),
        )
        for vantage in settings.vantages
    ]
