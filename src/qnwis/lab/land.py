"""A land: several labs under one control plane, all with a primary in the same region.

The first lab hosts what they share: the Temporal server, the worker, the vantages, the people and their keys.
One of the others may be active/active: it has a primary in each region.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from temporalio.client import WorkflowHandle
from temporalio.service import RPCError

from qnwis.continuity.access import Deed
from qnwis.continuity.refusal import Refusal
from qnwis.continuity.region_plan import Direction
from qnwis.continuity.region_run import EvacuateRequest, RegionResult
from qnwis.continuity.regions import RegionFinding
from qnwis.continuity.rejoining import rejoin_order
from qnwis.providers.errors import Refused
from qnwis.providers.evidence import collect_evidence
from qnwis.providers.nodes import HttpNodes
from qnwis.starting import pending_approval, start_evacuation, start_region_guardian, vote
from workflows.guardian import Guardian
from workflows.names import guardian_id, region_id
from workflows.region_failure import RegionFailure
from workflows.region_guardian import RegionGuardian, RegionView
from workflows.shifting import STEP_MARK

from .cluster import Lab
from .control_plane import ControlPlane, watched
from .errors import LabError
from .layout import default_directory
from .people import token_of, vote_of
from .postgres import SUPERUSER
from .shape import Shape
from .temporal_server import Say
from .waiting import not_streaming, until_none

HOME = "region-1"
SHAPE = Shape(regions=(HOME, "region-2", "region-2"), power_switch=False)
"""One node at home and two away: without the home region the rest is a majority, and one standby confirms."""
ACTIVE_ACTIVE = Shape(
    data_nodes=2,
    witnesses=4,
    asynchronous=True,
    regions=(HOME, "region-2"),
    weights=(60, 40),
    power_switch=False,
)
"""In each region a primary that takes writes, and two witnesses that grant its lease with it. A commit waits
for nobody: there is no standby, and the other region receives what is committed."""
RULES = {"dwell_s": 5, "settle_s": 2, "wave_size": 2}
"""Of the region: shorter than anybody's, so that a demonstration need not last minutes."""
WITHIN_S = 120.0
LOOK_EVERY_S = 0.5
"""How often a workflow is asked: each question is work for the one worker that everything waits for."""

RegionHandle = WorkflowHandle[RegionFailure, RegionResult]


@dataclass(frozen=True)
class Land:
    """Several clusters that share a control plane and a home region."""

    labs: tuple[Lab, ...]
    control: ControlPlane
    guardian: WorkflowHandle[RegionGuardian, None]

    async def lose_home(self) -> int:
        """SIGKILL every node at home; how many processes that were."""
        nodes = [(lab, node.node_id) for lab in self.labs for node in lab.cluster.in_region(HOME)]
        return sum(await asyncio.gather(*(lab.kill_node(node_id) for lab, node_id in nodes)))

    @property
    def nodes_at_home(self) -> int:
        return sum(len(lab.cluster.in_region(HOME)) for lab in self.labs)

    @property
    def active(self) -> Lab:
        """The lab that is active/active. Raises StopIteration where there is none."""
        return next(lab for lab in self.labs if lab.cluster.is_active_active)

    @property
    def moving(self) -> tuple[Lab, ...]:
        """Those whose one primary moves."""
        return tuple(lab for lab in self.labs if not lab.cluster.is_active_active)

    async def bring_home_back(self) -> None:
        """Start the nodes at home again, and have each follow its cluster's present primary. Of an
        active/active cluster the region takes its lease up again by itself, and receives what it missed."""
        async with HttpNodes(self.control.lab.certificates.transport) as nodes:
            await asyncio.gather(*(self._bring_back(lab, nodes) for lab in self.labs))

    async def _bring_back(self, lab: Lab, nodes: HttpNodes) -> None:
        if lab.cluster.is_active_active:
            group = lab.cluster.lease_group(HOME)
            agents = [await asyncio.to_thread(lab.machine(n.node_id).start) for n in group.nodes]
            await until_none(lambda: not_streaming(nodes, group), group.cluster_id, agents)
            await lab.active.until_caught_up()
            return
        home = lab.primary
        agent = await asyncio.to_thread(lab.machine(home.node_id).start)

        async def silent() -> str | None:
            return (await collect_evidence(nodes, lab.cluster)).of(home.node_id).error

        await until_none(silent, f"the agent of {home.node_id}", [agent])
        evidence = await collect_evidence(nodes, lab.cluster)
        order = rejoin_order(lab.cluster, evidence, home.node_id, by="demo")
        if isinstance(order, Refusal):
            raise LabError(f"{home.node_id} of {lab.cluster.cluster_id} cannot rejoin: {order}")
        await nodes.order(home, order, timeout_s=WITHIN_S)
        await until_none(lambda: not_streaming(nodes, lab.cluster), lab.cluster.cluster_id, [agent])

    async def guardian_says(self, cluster_id: str) -> str | None:
        """Why a cluster's guardian does not act on a failed primary."""
        handle = self.control.client.get_workflow_handle_for(Guardian.run, guardian_id(cluster_id))
        return (await handle.query(Guardian.view)).holding

    async def until_home_is(self, finding: RegionFinding) -> RegionView:
        """Return once the region's guardian says so. Raises LabError."""
        seen: RegionView | None = None
        try:
            async with asyncio.timeout(WITHIN_S):
                while seen is None or seen.verdict is None or seen.verdict.finding is not finding:
                    seen = await self.guardian.query(RegionGuardian.view)
                    await asyncio.sleep(LOOK_EVERY_S)
        except TimeoutError:
            raise LabError(f"{HOME} is not {finding} within {WITHIN_S:g} s: {seen}") from None
        return seen

    async def move(self, direction: Direction, reason: str, say: Say) -> RegionResult:
        """Have all clusters leave home or come back to it, as bob asks and ann agrees."""
        request = EvacuateRequest(region=HOME, direction=direction, initiated_by="bob", reason=reason)
        token = self._token("bob", Deed.START, digest=request.digest, reason=reason)
        handle = await start_evacuation(self.control.client, request.model_copy(update={"token": token}))
        say(f"bob has started it; it waits for an approval ({self.url(handle)})")
        aside = [asyncio.create_task(self._approve(say)), asyncio.create_task(self._watch(handle, say))]
        try:
            return await handle.result()
        finally:
            for task in aside:
                task.cancel()

    async def _watch(self, handle: RegionHandle, say: Say) -> None:
        """Say how the weights go. End an evacuation that holds itself because too many clusters did not move,
        or because a region does not pass its check: nobody is there to look at them."""
        said: set[str] = set()
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            with contextlib.suppress(RPCError):
                seen = await handle.query(RegionFailure.progress_view)
                for line in (line for step in seen.steps for line in step.remarks if STEP_MARK in line):
                    if line not in said:
                        said.add(line)
                        say(line)
                if seen.paused is not None:
                    say(f"held: {seen.paused}")
                    await handle.cancel()
                    return

    async def _approve(self, say: Say) -> None:
        workflow_id = region_id(HOME)
        while True:
            try:
                pending = await pending_approval(self.control.client, workflow_id)
            except Refused:
                await asyncio.sleep(LOOK_EVERY_S)
                continue
            agreed = vote_of(self.control.lab.folder, HOME, "ann", pending, "agreed")
            await vote(self.control.client, workflow_id, agreed, approve=True)
            say(f"ann approves {pending.window.digest}, which covers the plan of every cluster")
            return

    def _token(self, person: str, deed: Deed, **claim: str) -> Any:
        return token_of(self.control.lab.folder, HOME, person, deed, **claim)

    def url(self, handle: RegionHandle) -> str:
        """The Temporal UI's page of the run, or its id where the server has no UI."""
        ui = self.control.server.ui_url
        if ui is None:
            return f"workflow {handle.id}"
        return f"{ui}/namespaces/{self.control.server.namespace}/workflows/{handle.id}"


@asynccontextmanager
async def new_land(
    shapes: Mapping[str, Shape], *, directory: Path | None, pg_bin: Path | None, say: Say
) -> AsyncIterator[Land]:
    """A land of clusters with these ids and shapes, the first with one primary; stopped at the end. Raises
    LabError."""
    root = (directory or default_directory()).absolute()
    labs: list[Lab] = []
    try:
        for name, shape in shapes.items():
            say(f"starting the cluster {name}: {_parts(shape)}")
            labs.append(
                await Lab.create(
                    root if not labs else root.with_name(f"{root.name}-{name}"),
                    shape=shape,
                    cluster_id=name,
                    cache=labs[0].folder.cache if labs else None,
                    pg_bin=pg_bin,
                    certificates=labs[0].certificates if labs else None,
                )
            )
        host = labs[0]
        for lab in labs[1:]:
            _register(lab, host)
        (host.folder.config / "regions.yaml").write_text(yaml.safe_dump(RULES))
        active = next((lab for lab in labs if lab.cluster.is_active_active), None)
        control = await ControlPlane.start(host, say, env={} if active is None else _account(active))
        await asyncio.gather(*(watched(control.client, lab.cluster) for lab in labs[1:]))
        say(f"Temporal at {control.server.address}; the guardians see every node of all clusters healthy")
        guardian = await start_region_guardian(control.client, HOME)
        yield Land(tuple(labs), control, guardian)
    finally:
        # All at once: a second Ctrl-C must not leave the rest of them running.
        await asyncio.gather(*(lab.stop() for lab in labs))


def _parts(shape: Shape) -> str:
    if not shape.weights:
        return "three PostgreSQL nodes with their agents, and a DNS server"
    primaries = ", ".join(f"{r} {weight}" for r, weight in zip(shape.regions, shape.weights, strict=True))
    return (
        f"active/active, a primary in each region (weights {primaries}), with two witnesses that grant its"
        " lease; logical replication both ways"
    )


def _account(lab: Lab) -> dict[str, str]:
    """With what a worker looks into the databases of this active/active lab."""
    return {"PGUSER": SUPERUSER, "PGPASSFILE": str(lab.folder.passfile)}


def _register(lab: Lab, host: Lab) -> None:
    """Let the host's worker know the lab's cluster."""
    folder = host.folder.config / "clusters" / lab.cluster.cluster_id
    folder.mkdir(parents=True)
    for name in ("cluster.yaml", "policy.yaml"):
        shutil.copy(lab.folder.config / name, folder / name)
