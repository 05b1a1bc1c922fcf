"""Finding and closing the reviews of emergency overrides."""

from __future__ import annotations

from temporalio.client import Client, WorkflowUpdateFailedError

from qnwis.continuity.refusal import Refusal
from qnwis.continuity.review import CloseRequest, Review
from qnwis.providers.errors import Refused
from qnwis.starting import raise_refusal
from workflows.names import CLUSTER, KIND, review_id
from workflows.review import REVIEW, OverrideReview


async def open_reviews(client: Client, cluster_id: str | None = None) -> list[Review]:
    """The reviews that are open, of one cluster or of all; the oldest first."""
    query = f"{KIND.name} = '{REVIEW}' AND ExecutionStatus = 'Running'"
    if cluster_id is not None:
        query += f" AND {CLUSTER.name} = '{cluster_id}'"
    found = [
        await client.get_workflow_handle(execution.id).query(OverrideReview.state)
        async for execution in client.list_workflows(query)
    ]
    return sorted(found, key=lambda review: review.opened.at)


async def the_open_review(client: Client, cluster_id: str, run_id: str | None = None) -> Review:
    """The cluster's open review, of that run where one is named. Raises Refused unless there is one."""
    found = [r for r in await open_reviews(client, cluster_id) if run_id in (None, r.opened.run_id)]
    if len(found) == 1:
        return found[0]
    runs = [review.opened.run_id for review in found]
    raise Refused(
        Refusal(
            rule="no_review" if not found else "several_reviews",
            message=f"{len(found)} reviews of {cluster_id} are open"
            + (f": {', '.join(runs)}" if runs else ""),
            values={"cluster_id": cluster_id, "runs": [*runs]},
            remedy="Name the run with --run." if found else "Nothing to do.",
        )
    )


async def close_review(client: Client, cluster_id: str, run_id: str, request: CloseRequest) -> Review:
    """Close it. Raises Refused with the rule by which it stays open."""
    handle = client.get_workflow_handle(review_id(cluster_id, run_id))
    try:
        closed: Review = await handle.execute_update("close", request, result_type=Review)
        return closed
    except WorkflowUpdateFailedError as error:
        raise_refusal(error)
