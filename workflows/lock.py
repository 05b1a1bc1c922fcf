"""The workflow id is the cluster's lock, for the life of the run."""

from __future__ import annotations

from temporalio import workflow
from temporalio.exceptions import ApplicationError


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
