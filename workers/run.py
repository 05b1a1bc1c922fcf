"""The worker process: connect, run until told to stop, close everything before the interpreter exits."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import signal
import threading
from collections.abc import Callable, Sequence

from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.worker import Interceptor, Worker

from qnwis.continuity.model import build_models
from qnwis.labels import use_labels
from qnwis.metrics.exposition import Exposition
from qnwis.metrics.serving import sdk_runtime, served
from qnwis.providers.key_store import key_store_of
from qnwis.temporal import connect
from qnwis.tracing.asked import traced

from .garbage import collect_garbage, collect_seldom
from .settings import GRACE_S, WorkerSettings
from .vantages import workers_at_vantages

log = logging.getLogger(__name__)

Maker = Callable[[Client, WorkerSettings, Exposition | None, Sequence[Interceptor]], Sequence[Worker]]

SERVICE = "qnwis-worker"
ENDS_WITHIN_S = GRACE_S + 5.0
"""After it was told to stop. The SDK itself waits for minutes to report to a server that is gone."""


async def run_worker(settings: WorkerSettings) -> None:
    """Run until SIGTERM or SIGINT. Raises NoServer when no Temporal server answers, MetricsAddress when
    metrics cannot be served where the settings say, and TracingError when traces are asked for in vain."""
    # Which run and activity it is stands in the line by itself.
    activity.logger.activity_info_on_message = False
    workflow.logger.workflow_info_on_message = False
    allow_many_connections()
    workers_of = maker_of(settings)
    build_models()
    collect_seldom()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for sig in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(sig, stop.set)
    keys = key_store_of(os.environ)
    use_labels(keys.label_key() if keys is not None else None)
    async with contextlib.AsyncExitStack() as running:
        tracing = running.enter_context(traced(SERVICE))
        metrics = Exposition() if settings.metrics is not None else None
        if metrics is not None and settings.metrics is not None:
            running.enter_context(served(metrics, settings.metrics))
        runtime = sdk_runtime(settings.sdk_metrics)
        client = await connect(settings.address, runtime=runtime, interceptors=tracing.client)
        for worker in workers_of(client, settings, metrics, tracing.worker):
            await running.enter_async_context(worker)
            log.info("worker polls %s", worker.task_queue)
        collecting = asyncio.create_task(collect_garbage())
        await stop.wait()
        collecting.cancel()
        log.info("worker stops")
        # Not by the loop, which is gone when the interpreter waits for threads that ask who is silent.
        ends = threading.Timer(ENDS_WITHIN_S, _end_all_the_same)
        ends.daemon = True
        ends.start()


def maker_of(settings: WorkerSettings) -> Maker:
    """What makes the workers of a process with these settings. Loads what they need and no more."""
    if settings.vantages_only:
        return workers_at_vantages
    from .wiring import runbook_workers

    return runbook_workers


def allow_many_connections() -> None:
    """As many open files as this process may have: it keeps two connections to each node that it watches,
    and systems let a process begin with 1,024."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _end_all_the_same() -> None:
    """As if it had been killed: what it did not report is done again by whoever takes it up, and has no
    further effect."""
    log.error(
        "the worker did not end within %g s: it has something to report, and no Temporal server takes it, or"
        " a store that it asked is silent; it ends without",
        ENDS_WITHIN_S,
    )
    logging.shutdown()
    os._exit(1)
