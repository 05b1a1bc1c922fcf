"""Waiting for a run as long as the caller wants, and what is answered where it lasts longer."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any, TypeVar

from fastapi import Response
from temporalio.client import WorkflowFailureError, WorkflowHandle

from qnwis.continuity.refusal import Refusal
from qnwis.continuity.region_run import RegionResult
from qnwis.continuity.run import RunOutcome, RunResult
from qnwis.providers.errors import Refused
from qnwis.starting import RunHandle

from .asking import Asking, answer
from .bodies import Accepted

T = TypeVar("T", RunResult, RegionResult)

LONGEST_S = 300.0
"""Whoever wants to wait longer looks again."""
DRY_RUN_S = 60.0
"""A dry run takes seconds; one that takes longer, because of nodes that are silent, goes on after 202."""


def wait_s(prefer: str | None, *, dry_run: bool = False) -> float:
    """How long the caller would wait, by `Prefer: wait=30` or `respond-async` (RFC 7240).

    Where it does not say: not at all for a run, which may wait for people; for the end of a dry run, which
    asks nobody.
    """
    found = re.search(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,6})", prefer or "", re.IGNORECASE)
    if found is not None:
        return min(float(found[1]), LONGEST_S)
    at_once = re.search(r"(?:^|[,;\s])respond-async(?:$|[,;\s])", prefer or "", re.IGNORECASE)
    return DRY_RUN_S if dry_run and at_once is None else 0.0


def run_url(cluster_id: str, run_id: str) -> str:
    return f"/api/v1/continuity/clusters/{cluster_id}/runs/{run_id}"


async def end_within(handle: WorkflowHandle[Any, T], longest_s: float) -> T | None:
    """The run's end, if it comes in time. Raises Refused with the rule that refused the run, and where it
    ended without a result."""
    if longest_s <= 0:
        return None
    try:
        async with asyncio.timeout(longest_s):
            result = await handle.result()
    except TimeoutError:
        return None
    except WorkflowFailureError as error:
        raise Refused(
            Refusal(
                rule="run_failed",
                message=f"The run ended without a result: {error.cause}",
                values={"run_id": handle.result_run_id},
                remedy="Look at it in the Temporal UI; qnwis-continuity finish brings it to an end.",
            )
        ) from error
    if result.outcome is RunOutcome.REFUSED and result.refusal is not None:
        raise Refused(result.refusal)
    return result


async def ended_or_accepted(
    asking: Asking,
    handle: RunHandle,
    cluster_id: str,
    plan_id: str | None,
    longest_s: float,
    ended: Callable[[RunResult], Response],
) -> Response:
    """The end of a cluster's run, if it comes in time; else 202. Raises Refused as `end_within` does."""
    result = await end_within(handle, longest_s)
    if result is not None:
        return ended(result)
    run_id = handle.result_run_id or handle.first_execution_run_id or ""
    url = run_url(cluster_id, run_id)
    accepted = Accepted(
        request_id=asking.request_id,
        execution_id=run_id,
        plan_id=plan_id,
        cluster_id=cluster_id,
        run_url=url,
        events_url=f"{url}/events",
    )
    headers = {"Location": url, "Preference-Applied": f"wait={longest_s:.0f}"}
    return answer(accepted, 202, headers)
