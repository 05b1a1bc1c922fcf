"""The active/active part of the demonstration: what only the lost region had, and what became of it."""

from __future__ import annotations

import asyncio

from qnwis.config.registry import Registry
from qnwis.continuity.conflicts import Conflict
from qnwis.continuity.model import Model

from .acks import WriteReport, analyse
from .cluster import Lab
from .temporal_server import Say

CUT_BEFORE_S = 1.0
"""So long before a region is lost nothing of it reaches the others any more: the network often goes first,
and without that hardly a write would be missing."""
CONTESTED = -1
"""An item that no client writes. Both regions do, apart from each other: a conflict that has to be found."""


class NotYetElsewhere(Model):
    """What a lost region had acknowledged, and no other one had received."""

    unsent_bytes: int
    """Of its log, when it was lost."""
    allowed_bytes: int
    """By the policy, `max_lag_bytes`."""
    writes: int
    """Acknowledged writes that were in no other region while it was away."""


class ActiveReport(Model):
    """How an active/active cluster's clients and regions fared."""

    cluster_id: str
    writes: WriteReport
    """Lost: acknowledged, and missing in one region at least at the end."""
    not_yet: NotYetElsewhere
    conflicts: tuple[Conflict, ...]
    """Found since the beginning, each resolved the same way in all regions."""
    differing_rows: int
    """At the end, between the regions."""
    timelines_before: dict[str, int]
    timelines_after: dict[str, int]
    """By region; a promotion begins another timeline."""

    @property
    def promoted(self) -> bool:
        return self.timelines_before != self.timelines_after

    @property
    def contested_is_reported(self) -> bool:
        return any(one.table == "public.items" and one.key == {"id": CONTESTED} for one in self.conflicts)

    @property
    def verified(self) -> bool:
        """Nothing was lost or promoted, all regions agree, the known conflict is on record, and what was not
        replicated was within policy."""
        within = self.not_yet.unsent_bytes <= self.not_yet.allowed_bytes
        good = within and self.contested_is_reported
        return good and not (self.writes.lost or self.promoted or self.differing_rows)


async def hold_back(lab: Lab, region: str, say: Say) -> int:
    """Let nothing of the region reach the others for a while. Of its log the bytes that they lack then."""
    say(f"what {region} writes to {lab.cluster.cluster_id} does not reach the others any more")
    await lab.active.hold_back(region)
    await lab.active.write_item(region, CONTESTED, f"{region}, before it is lost")
    await asyncio.sleep(CUT_BEFORE_S)
    return await lab.active.unsent_bytes(region)


async def not_yet_elsewhere(lab: Lab, region: str, unsent_bytes: int, say: Say) -> NotYetElsewhere:
    """What only the lost region has."""
    # The log of the clients first: what they are told meanwhile is in a region that lives.
    acknowledged = {(ack.client, ack.n) for ack in lab.ack_log().acks}
    others = [other for other in lab.active.regions if other != region]
    await lab.active.write_item(others[0], CONTESTED, f"{others[0]}, while {region} is away")
    rows = set.union(*[await lab.active.rows(other) for other in others])
    policy = Registry(lab.folder.config).load(lab.cluster.cluster_id).policy
    found = NotYetElsewhere(
        unsent_bytes=unsent_bytes,
        allowed_bytes=policy.max_lag_bytes,
        writes=len(acknowledged - rows),
    )
    say(
        f"not yet replicated: {found.writes} acknowledged writes of {lab.cluster.cluster_id} are in {region}"
        f" alone ({unsent_bytes} bytes of its log; the policy allows {found.allowed_bytes})"
    )
    return found


async def active_report(lab: Lab, not_yet: NotYetElsewhere, timelines: dict[str, int]) -> ActiveReport:
    """At the end, once all that was written has arrived everywhere. Raises LabError when it does not."""
    regions = lab.active
    await regions.until_caught_up()
    everywhere = set.intersection(*[await regions.rows(each) for each in regions.regions])
    return ActiveReport(
        cluster_id=lab.cluster.cluster_id,
        writes=analyse(lab.ack_log(), everywhere),
        not_yet=not_yet,
        conflicts=await regions.conflicts(),
        differing_rows=await regions.differing(),
        timelines_before=timelines,
        timelines_after=await regions.timelines(),
    )
