"""What is registered, for workflows that live long: none of them ends while its files cannot be used."""

from __future__ import annotations

from datetime import timedelta

from temporalio import workflow
from temporalio.exceptions import ActivityError, is_cancelled_exception

from . import options

with workflow.unsafe.imports_passed_through():
    from activities.evidence import ClusterName, Evidence
    from qnwis.config.registry import Registered

AGAIN, AGAIN_LONGEST = timedelta(seconds=15), timedelta(minutes=5)
"""The first pause before the files are read once more, and the longest."""


async def as_registered(cluster_id: str, known: Registered | None) -> Registered:
    """As it is registered now, or as it is `known`, while its files cannot be used.

    One that an earlier execution of this workflow knew is waited for. Raises ActivityError where it never was
    known: who starts a workflow for it is to hear that at once.
    """
    pause = AGAIN
    while True:
        try:
            return await workflow.execute_activity_method(
                Evidence.load_cluster,
                ClusterName(cluster_id=cluster_id),
                **options.read("registered topology and policy"),
            )
        except ActivityError as error:
            if is_cancelled_exception(error):
                raise
            if known is not None:
                workflow.logger.warning("goes on with what was registered before: %s", error.cause or error)
                return known
            if workflow.info().continued_run_id is None:
                raise
        await workflow.sleep(pause, summary="before its files are read once more")
        pause = min(2 * pause, AGAIN_LONGEST)
