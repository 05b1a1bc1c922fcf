"""Waiting for a run as long as the caller wants, and what is answered where it lasts longer."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable
from typing import Any, TypeVar

from fastapi import Response
from temporalio.client import WorkflowFailureError, WorkflowHandle
from temporalio.service import RPCError

from qnwis.continuity.refusal import Refusal
from qnwis.continuity.region_run import RegionResult
from qnwis.continuity.run import RunOutcome, RunResult
from qnwis.providers.errors import Refused
from qnwis.providers.request_store import Begun
from qnwis.starting import RunHandle, started_before

from .asking import Asking, answer
from .bodies import Accepted

log = logging.getLogger(__name__)

T = TypeVar("T", RunResult, RegionResult)
R = TypeVar("R")

LONGEST_S = 900.0
"""Longer than people have to vote (600 s by default); whoever wants to wait longer looks again."""
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


async def begun_before(
    asking: Asking, begun: Begun, workflow_id: str, result_type: type[R]
) -> WorkflowHandle[Any, R] | None:
    """What this request has started already, where it came before and its answer got lost."""
    if not begun.again:
        return None
    return await started_before(asking.parts.client, workflow_id, begun.deed_id, result_type)


async def ended_or_accepted(
    asking: Asking,
    handle: WorkflowHandle[Any, T],
    longest_s: float,
    *,
    accepted: Response,
    ended: Callable[[T], Response],
) -> Response:
    """The end of what was started, if it comes in time; else that it was accepted. Raises Refused with the
    rule that refused the run, and where it ended without a result."""
    await asking.keep(accepted)
    result = await _end_within(handle, longest_s)
    return accepted if result is None else ended(result)


async def _end_within(handle: WorkflowHandle[Any, T], longest_s: float) -> T | None:
    if longest_s <= 0:
        return None
    try:
        async with asyncio.timeout(longest_s):
            result = await handle.result()
    except TimeoutError:
        return None
    except RPCError as error:
        log.warning("%s is not waited for: Temporal: %s", handle.id, error.message)
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


def accepted_run(
    asking: Asking, handle: RunHandle, cluster_id: str, plan_id: str | None, longest_s: float
) -> Response:
    """202: the run of a cluster goes on."""
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
