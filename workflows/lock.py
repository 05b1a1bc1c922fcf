"""The workflow id is the cluster's lock, for the life of the run."""

from __future__ import annotations

from temporalio import workflow
from temporalio.exceptions import ApplicationError

from .names import FAILOVER_PREFIX, REGION_PREFIX


def refuse_a_lock() -> None:
    """What is no run must not be started under an id that is a lock: it would stand where runs are looked
    for, and keep one that is due from beginning."""
    workflow_id = workflow.info().workflow_id
    if workflow_id.startswith((FAILOVER_PREFIX, REGION_PREFIX)):
        raise ApplicationError(
            f"workflow id is {workflow_id!r}; expected one that does not begin with {FAILOVER_PREFIX!r} or"
            f" {REGION_PREFIX!r}: these are the locks of clusters and regions",
            type="wrong_workflow_id",
            non_retryable=True,
        )


def refuse_another_id(expected: str) -> None:
    """The workflow id is the lock; a run under any other id could race the one that holds it."""
    info = workflow.info()
    if info.workflow_id != expected:
        raise ApplicationError(
            f"workflow id is {info.workflow_id!r}; expected {expected!r}: the id is the cluster's lock",
            type="wrong_workflow_id",
            non_retryable=True,
        )
    # A child without a timeout is told of one of zero.
    if info.run_timeout or info.execution_timeout:
        raise ApplicationError(
            "a run timeout is set; expected none, because it would end a run in the middle of its plan",
            type="run_timeout_set",
            non_retryable=True,
        )
