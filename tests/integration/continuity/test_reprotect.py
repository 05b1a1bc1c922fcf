"""A cluster that lost standbys is brought back to those it wants, on a real Temporal server."""

from __future__ import annotations

import asyncio

import pytest
from temporalio.service import RPCError

from workflows.guardian import Guardian
from workflows.names import reprotect_id
from workflows.reprotect import Reprotect

from .conftest import Setting
from .test_guardian import all_healthy, until


async def test_an_old_primary_that_returns_is_brought_back_where_the_policy_says_so(stage: Setting) -> None:
    on = await stage(reprotect="automatic", reprotect_after_s=0.1)
    guardian = await on.start_guardian()
    await until(guardian, all_healthy)
    on.world.kill("node-1")
    moved = await until(guardian, lambda view: view.last_result is not None)
    assert on.world.changes("rejoin") == [], "nobody orders a machine that is off"

    on.world.revive("node-1")  # an hour later, say
    async with asyncio.timeout(40):
        while not on.world.changes("rejoin"):
            await asyncio.sleep(0.05)

    old = on.world.machines["node-1"]
    assert (old.primary, old.upstream) == (False, moved.primary_node_id)
    assert old.epoch == on.world.machines[moved.primary_node_id or ""].epoch, "no later one"
    watching = on.client.get_workflow_handle_for(Reprotect.run, reprotect_id(on.world.cluster.cluster_id))
    async with asyncio.timeout(40):
        while (found := (await watching.query(Reprotect.view)).found) is None or not found.whole:
            await asyncio.sleep(0.05)
    assert found.wanted == len(found.there) > 0


async def test_without_the_policys_word_nobody_is_ordered_to_rejoin(stage: Setting) -> None:
    on = await stage()
    guardian = await on.start_guardian()
    await until(guardian, all_healthy)
    with pytest.raises(RPCError, match="not found"):
        await on.client.get_workflow_handle(reprotect_id(on.world.cluster.cluster_id)).describe()
    assert (await guardian.query(Guardian.view)).own_run is None
