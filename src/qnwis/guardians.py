"""Asking guardians what they hold, from outside. One that was ended would answer as it was then: it watches
nothing any more, so it is not asked."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, TypeVar

from temporalio.client import Client, WorkflowHandle, WorkflowQueryRejectedError
from temporalio.common import QueryRejectCondition
from temporalio.service import RPCError

from qnwis.continuity.refusal import Refusal
from qnwis.providers.errors import Refused
from qnwis.starting import no_guardian, raise_no_guardian
from qnwis.temporal import not_there
from workflows.guardian import Guardian
from workflows.guardian_state import GuardianView
from workflows.names import guardian_id, region_guardian_id
from workflows.region_guardian import RegionGuardian, RegionView

BEGINS_WITHIN_S = 10.0
"""A guardian that was just started reads its files and asks every agent within this; one that cannot has
ended by then."""
LOOK_EVERY_S = 0.2
LOOK_WITHIN = timedelta(seconds=2)

V = TypeVar("V", GuardianView, RegionView)


async def cluster_view(client: Client, cluster_id: str, *, within: timedelta | None = None) -> GuardianView:
    """What the cluster's guardian holds. Raises Refused where none watches: there is none, or it has ended;
    RPCError and WorkflowQueryFailedError where it does not answer, RPCError also after `within`."""
    guardian = client.get_workflow_handle_for(Guardian.run, guardian_id(cluster_id))
    try:
        return await guardian.query(
            Guardian.view, reject_condition=QueryRejectCondition.NOT_OPEN, rpc_timeout=within
        )
    except WorkflowQueryRejectedError as error:
        raise Refused(no_guardian(cluster_id, how=_how(error))) from error
    except RPCError as error:
        raise_no_guardian(error, cluster_id)


async def region_view(client: Client, region: str, *, within: timedelta | None = None) -> RegionView:
    """The same of a region's guardian."""
    guardian = client.get_workflow_handle_for(RegionGuardian.run, region_guardian_id(region))
    try:
        return await guardian.query(
            RegionGuardian.view, reject_condition=QueryRejectCondition.NOT_OPEN, rpc_timeout=within
        )
    except WorkflowQueryRejectedError as error:
        raise Refused(_no_region_guardian(region, how=_how(error))) from error
    except RPCError as error:
        if not not_there(error):
            raise
        raise Refused(_no_region_guardian(region)) from error


async def begun(
    guardian: WorkflowHandle[Any, None], look: Callable[[], Awaitable[V]], watches: Callable[[V], bool]
) -> V | None:
    """What a guardian that was just started holds, once it watches; where that takes longer than
    BEGINS_WITHIN_S, what it held last, or None while no worker answers for it. Raises WorkflowFailureError
    where it ends."""
    ended, seen = asyncio.ensure_future(guardian.result()), None
    try:
        async with asyncio.timeout(BEGINS_WITHIN_S):
            while seen is None or not watches(seen):
                # While no worker has taken it up none answers; of one that has ended, `result` says why.
                with contextlib.suppress(RPCError, Refused):
                    seen = await look()
                await asyncio.wait({ended}, timeout=LOOK_EVERY_S)
                if ended.done():
                    await ended
    except TimeoutError:
        pass
    finally:
        ended.cancel()
    return seen


def _how(error: WorkflowQueryRejectedError) -> str:
    return "unknown" if error.status is None else error.status.name.lower()


def _no_region_guardian(region: str, *, how: str | None = None) -> Refusal:
    workflow_id = region_guardian_id(region)
    return Refusal(
        rule="no_guardian",
        message=f"No guardian watches {region}" + (f": {workflow_id} has ended ({how})" if how else ""),
        values={"workflow_id": workflow_id},
        remedy=f"Start it: qnwis-continuity region watch {region}.",
    )
