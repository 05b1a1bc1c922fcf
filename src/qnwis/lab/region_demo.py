"""The demonstration of a region's loss: every cluster leaves it, and comes back when it is well.

Each would fail over by itself; while the loss of the region is suspected it waits for the region's guardian.
Of the active/active one nothing is promoted: the region's weight goes to the others, and comes back in steps.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path

from qnwis.continuity.model import Model
from qnwis.continuity.region_plan import Direction
from qnwis.continuity.region_run import RegionResult
from qnwis.continuity.regions import RegionFinding

from .acks import WriteReport, analyse
from .active_demo import ActiveReport, active_report, hold_back, not_yet_elsewhere
from .cluster import Lab
from .demonstration import WRITE_BEFORE_S, start_writing
from .land import ACTIVE_ACTIVE, HOME, SHAPE, Land, new_land
from .shape import Shape
from .temporal_server import Say

CLUSTERS = {"orders": 30, "stock": 20, "mail": 10}
"""By id, who leaves first: the higher number."""
SHOP = "shop"
"""The active/active one."""
CLIENTS_EACH, PAUSE_MS = 2, 25.0
"""Two cores bear fifteen nodes and what moves them, but not clients that write as fast as they can too."""
SHOP_CLIENTS, SHOP_PAUSE_MS = 4, 50.0
"""So many that both regions are written in, by their weights."""


class ClusterReport(Model):
    """How one cluster's clients fared. Times in milliseconds."""

    cluster_id: str
    writes: WriteReport
    """From the first write to the last, both ways."""
    gap_back_ms: float
    """The longest time that any one client had no write acknowledged on the way back."""


class RegionDemoReport(Model):
    """What the demonstration measured."""

    out: RegionResult
    back: RegionResult | None
    """None where not all left: then nothing is brought back either."""
    clusters: tuple[ClusterReport, ...]
    active: ActiveReport | None = None
    """Of the active/active cluster, once all is over."""

    @property
    def verified(self) -> bool:
        """All left, all came back, and no acknowledged write was lost."""
        lost = any(one.writes.lost for one in self.clusters)
        moved = self.out.verified and self.back is not None and self.back.verified
        return moved and not lost and self.active is not None and self.active.verified


def shapes() -> dict[str, Shape]:
    """Of the demonstration's clusters, by their ids."""
    moving = {
        name: SHAPE.model_copy(update={"policy": {"evacuation_priority": priority}})
        for name, priority in CLUSTERS.items()
    }
    return {**moving, SHOP: ACTIVE_ACTIVE}


async def run_region_demo(directory: Path | None, *, pg_bin: Path | None, say: Say) -> RegionDemoReport:
    """The whole demonstration on new labs, which are stopped afterwards. Raises LabError."""
    async with new_land(shapes(), directory=directory, pg_bin=pg_bin, say=say) as land:
        return await play_region(land, say)


async def play_region(land: Land, say: Say) -> RegionDemoReport:
    """Lose the home region under a write load, leave it, bring it back, and return."""
    for lab in land.moving:
        await start_writing(lab, CLIENTS_EACH, say, pause_ms=PAUSE_MS)
    shop = land.active
    await start_writing(shop, SHOP_CLIENTS, say, pause_ms=SHOP_PAUSE_MS)
    timelines = await shop.active.timelines()

    unsent = await hold_back(shop, HOME, say)
    killed = await land.lose_home()
    say(f"{HOME} is lost: {killed} processes of {land.nodes_at_home} nodes are killed")
    seen = await land.until_home_is(RegionFinding.LOST)
    say(f"the region's guardian holds it for lost: {seen.verdict.why if seen.verdict else ''}")
    say(f"the guardian of {SHOP} starts nothing: {await land.guardian_says(SHOP)}")

    out = await land.move(Direction.OUT, "the region is lost", say)
    if not out.verified:
        return RegionDemoReport(out=out, back=None, clusters=())
    await asyncio.sleep(WRITE_BEFORE_S)
    missing = await not_yet_elsewhere(shop, HOME, unsent, say)
    say(f"{HOME} comes back; its nodes follow the new primaries, and {SHOP} receives there what it missed")
    await land.bring_home_back()
    await land.until_home_is(RegionFinding.WELL)

    began_back = time.monotonic()
    back = await land.move(Direction.BACK, "the region is well", say)
    await asyncio.sleep(WRITE_BEFORE_S)
    await asyncio.gather(*(lab.stop_clients() for lab in land.labs))
    clusters = [await _report(lab, began_back) for lab in land.moving]
    active = await active_report(shop, missing, timelines)
    return RegionDemoReport(out=out, back=back, clusters=tuple(clusters), active=active)


async def _report(lab: Lab, began_back: float) -> ClusterReport:
    log, rows = lab.ack_log(), await lab.rows(lab.primary.node_id)
    after = replace(log, acks=tuple(ack for ack in log.acks if ack.at >= began_back))
    return ClusterReport(
        cluster_id=lab.cluster.cluster_id,
        writes=analyse(log, rows),
        gap_back_ms=analyse(after, rows).gap_ms,
    )
