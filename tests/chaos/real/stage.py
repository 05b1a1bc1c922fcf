"""What a story is played on: a network, the lab in it, its control plane, and the clients that write."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from qnwis.config.regions import FILE as REGIONS
from qnwis.continuity.regions import RegionRules
from qnwis.continuity.topology import ReplicationMode
from qnwis.lab.clocks import with_clock
from qnwis.lab.cluster import Lab
from qnwis.lab.control_plane import READY_WITHIN_S, ControlPlane
from qnwis.lab.layout import Block
from qnwis.lab.network import Network, addresses
from qnwis.lab.places import CONTROL
from qnwis.lab.procfs import kill_inside
from qnwis.lab.shape import Shape
from qnwis.lab.temporal_server import Say
from qnwis.starting import start_region_guardian
from tests.chaos.parties import CONTROL as CONTROL_PARTIES
from tests.chaos.parties import VANTAGES
from tests.chaos.story import WATCHED_REGION, ClockJump, Disk, Story
from workflows.guardian import Guardian

CLIENTS, CLIENT_PAUSE_MS = 4, 10.0
"""Few enough writes a second that the machine is not busy with them."""
PINNED_PAUSE_MS = 50.0


@dataclass(frozen=True)
class Stage:
    """A cluster that runs, healthy and written to, with everything that can be done to it."""

    network: Network
    lab: Lab
    control: ControlPlane

    def clock(self, party: str) -> Path:
        return _clock_file(self.lab.folder.root, host(party))


def host(party: str) -> str:
    """The namespace in which a story's party lives: Temporal, the worker and a vantage share one."""
    return CONTROL if party in CONTROL_PARTIES else party


def shape_of(story: Story, *, agent_module: str = "qnwis.agent") -> Shape:
    """The lab that the story asks for."""
    cluster = story.cluster
    disks = {(op.what.party, op.what.disk): None for op in story.operations if isinstance(op.what, Disk)}
    return Shape(
        data_nodes=cluster.data_nodes,
        witnesses=cluster.witnesses,
        asynchronous=cluster.replication is ReplicationMode.ASYNCHRONOUS,
        required_acks=cluster.required_acks,
        # Who may start a run is no story's question.
        policy={"approvals": False, **cluster.policy.model_dump(mode="json", exclude_none=True)},
        small_disks=tuple(disks),
        power_switch=False,
        agent_module=agent_module,
    )


@asynccontextmanager
async def staged(
    story: Story, root: Path, say: Say, *, agent_module: str = "qnwis.agent"
) -> AsyncIterator[Stage]:
    """Make the story's lab in the folder, start everything, and kill it all in the end. Raises LabError."""
    network = await asyncio.to_thread(Network.build, addresses(story.cluster.nodes, VANTAGES[1:]))
    clocks = {host(op.what.party) for op in story.operations if isinstance(op.what, ClockJump)}

    @contextmanager
    def ground(members: int) -> Iterator[Block]:
        with network.ground(members) as block:
            places = {party: with_clock(block.place(party), _clock_file(root, party)) for party in clocks}
            yield block.model_copy(update={"places": {**block.places, **places}})

    try:
        lab = await Lab.create(root, shape=shape_of(story, agent_module=agent_module), ground=ground)
        say("the lab runs")
        control = await ControlPlane.start(lab, say)
        say("the guardian sees every node healthy")
        if story.cluster.region_guardian is not None:
            await _watch_region(lab, control, story.cluster.region_guardian)
            say("the region is watched")
        lab.start_pinned_clients(pause_ms=PINNED_PAUSE_MS)
        await lab.start_clients(CLIENTS, pause_ms=CLIENT_PAUSE_MS)
        yield Stage(network, lab, control)
    finally:
        # Nothing is asked to stop: what is frozen would not, and the enclosure ends anyway.
        await asyncio.to_thread(kill_inside, root)


async def _watch_region(lab: Lab, control: ControlPlane, rules: RegionRules) -> None:
    """Start the guardian of the first region; returns when the cluster's guardian has heard of it."""
    (lab.folder.config / REGIONS).write_text(yaml.safe_dump(rules.model_dump(mode="json")))
    await start_region_guardian(control.client, WATCHED_REGION)
    async with asyncio.timeout(READY_WITHIN_S):
        while WATCHED_REGION not in (await control.guardian.query(Guardian.view)).regions:
            await asyncio.sleep(0.1)


def _clock_file(root: Path, party: str) -> Path:
    return root / f"clock-{party}"
