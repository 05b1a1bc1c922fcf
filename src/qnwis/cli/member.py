"""`member`: which agents' grants count, and how that set changes, one node at a time."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from rich.table import Table

from qnwis.config.load import load_cluster
from qnwis.continuity.evidence import NodeState
from qnwis.continuity.lease_messages import Membership
from qnwis.continuity.membership import AddMember, AnyChange, MembershipView, Peer, RemoveMember
from qnwis.continuity.orders import RejoinOrder
from qnwis.continuity.topology import Cluster, Node
from qnwis.providers.errors import Unreachable
from qnwis.providers.nodes import HttpNodes
from qnwis.transport import transport_beside

from .output import AsJson, Exit, clear_errors, fail, out, print_json, refuse_without_agents
from .rejoin import REJOIN_TIMEOUT_S

app = typer.Typer(help="List, add, remove and replace the members of a cluster.", no_args_is_help=True)

ANSWER_WITHIN_S = 2.0
CHANGE_WITHIN_S = 30.0
CAUGHT_UP_WITHIN_S = 60.0

NodeId = Annotated[str, typer.Argument(help="node_id as in cluster.yaml.")]
ClusterFile = Annotated[Path, typer.Option("--cluster", help="Topology, cluster.yaml.")]
T = TypeVar("T")


@app.command(name="list")
def list_members(cluster: ClusterFile, as_json: AsJson = False) -> None:
    """What each agent knows of the membership."""
    with clear_errors(as_json=as_json):
        topology = load_cluster(cluster)
        refuse_without_agents(topology, "member list", as_json=as_json)
        views = asyncio.run(_with_nodes(cluster, lambda nodes: _views(nodes, topology)))
    if as_json:
        print_json({node_id: view and view.model_dump(mode="json") for node_id, view in views.items()})
        return
    table = Table("node", "version", "members", box=None, pad_edge=False)
    for node_id, view in views.items():
        known = ("", "does not answer") if view is None else _told(view.membership)
        table.add_row(node_id, *known)
    out.print(table)


@app.command()
def add(node_id: NodeId, cluster: ClusterFile, as_json: AsJson = False) -> None:
    """Make a node a member; one that holds data then gets a copy and streams.

    Before: list it in cluster.yaml, so that plans count on its answer, and start its agent, which lists the
    others as its peers.
    """
    _carry_out(cluster, node_id, _added, as_json=as_json)


@app.command()
def remove(node_id: NodeId, cluster: ClusterFile, as_json: AsJson = False) -> None:
    """Let a node be no member any more; its agent then takes no part.

    Afterwards remove it from cluster.yaml: until then plans count on its answer.
    """
    _carry_out(cluster, node_id, _removed, as_json=as_json)


@app.command()
def replace(node_id: NodeId, cluster: ClusterFile, as_json: AsJson = False) -> None:
    """Take a node that lost its disk back, as a new member of the same name."""
    _carry_out(cluster, node_id, _replaced, as_json=as_json)


Change = Callable[[HttpNodes, Cluster, Node], Awaitable[MembershipView]]


def _carry_out(path: Path, node_id: str, change: Change, *, as_json: bool) -> None:
    with clear_errors(as_json=as_json):
        topology = load_cluster(path)
        refuse_without_agents(topology, "member", as_json=as_json)
        if node_id not in {node.node_id for node in topology.nodes}:
            fail(Exit.USAGE, f"{path}: no node {node_id!r} in {topology.cluster_id}")
        view = asyncio.run(_with_nodes(path, lambda nodes: change(nodes, topology, topology.node(node_id))))
    if as_json:
        print_json(view)
    else:
        version, members = _told(view.membership)
        out.print(f"membership {version}: {members}", markup=False)


async def _added(nodes: HttpNodes, cluster: Cluster, node: Node) -> MembershipView:
    fresh = await nodes.membership(node, timeout_s=ANSWER_WITHIN_S)
    peer = Peer(node_id=node.node_id, agent_url=node.agent_url, database=node.database)
    view = await _change(nodes, cluster, AddMember(peer=peer, disk_id=fresh.disk_id))
    if (await nodes.membership(node, timeout_s=ANSWER_WITHIN_S)).membership.version < view.membership.version:
        raise Unreachable(f"{node.node_id} is a member and has not heard of it; see that the others reach it")
    if node.holds_data:
        await _let_stream(nodes, cluster, node)
    return view


async def _removed(nodes: HttpNodes, cluster: Cluster, node: Node) -> MembershipView:
    view = await _change(nodes, cluster, RemoveMember(node_id=node.node_id))
    await _until_caught_up(nodes, cluster, node, view.membership)
    return view


async def _replaced(nodes: HttpNodes, cluster: Cluster, node: Node) -> MembershipView:
    await _removed(nodes, cluster, node)
    return await _added(nodes, cluster, node)


async def _change(nodes: HttpNodes, cluster: Cluster, wanted: AnyChange) -> MembershipView:
    """Let the primary carry the change through. Raises Refused or Unreachable."""
    holder, _ = await _primary(nodes, cluster)
    return await nodes.change_membership(holder, wanted, timeout_s=CHANGE_WITHIN_S)


async def _let_stream(nodes: HttpNodes, cluster: Cluster, node: Node) -> None:
    """Order a copy of the primary's data, unless the node streams by itself. Raises Unreachable for one that
    does not stream afterwards."""
    primary, state = await _primary(nodes, cluster)
    if (await nodes.state(node, timeout_s=ANSWER_WITHIN_S)).streaming:
        return
    unique = uuid.uuid4().hex[:12]
    order = RejoinOrder(
        effect_id=f"join-{node.node_id}-{unique}",
        run_id=f"cli-{unique}",
        epoch=state.epoch,
        upstream=primary.node_id,
    )
    receipt = await nodes.order(node, order, timeout_s=REJOIN_TIMEOUT_S)
    if not (await nodes.state(node, timeout_s=ANSWER_WITHIN_S)).streaming:
        raise Unreachable(f"{node.node_id} is a member now; {receipt.detail}")


async def _until_caught_up(nodes: HttpNodes, cluster: Cluster, gone: Node, membership: Membership) -> None:
    """Return once enough of the standbys that are left have all that was ever acknowledged.

    A write that only the removed one had confirmed would otherwise be on no standby that counts.
    """
    left = {node.node_id for node in cluster.nodes if node.holds_data} & set(membership.members)
    needed = min(cluster.replication.required_acks, len(left) - 1)
    wanted_lsn: int | None = None
    try:
        async with asyncio.timeout(CAUGHT_UP_WITHIN_S):
            while True:
                _, state = await _primary(nodes, cluster)
                if wanted_lsn is None and not _counts(state, gone.node_id):
                    wanted_lsn = state.write_lsn
                if wanted_lsn is not None and len(_confirmed(state, wanted_lsn) & left) >= needed:
                    return
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise Unreachable(
            f"the change is made, but fewer than {needed} of the standbys left have all of the primary's log;"
            f" keep {gone.node_id} in cluster.yaml until they do"
        ) from None


def _counts(state: NodeState, node_id: str) -> bool:
    """Whether the primary still counts this standby's confirmations."""
    return any(s.application_name == node_id and s.sync_state in ("sync", "quorum") for s in state.standbys)


def _confirmed(state: NodeState, lsn: int) -> set[str]:
    """The standbys that have flushed the primary's log up to there."""
    assert state.write_lsn is not None
    return {
        standby.application_name
        for standby in state.standbys
        if standby.flush_lag_bytes is not None and state.write_lsn - standby.flush_lag_bytes >= lsn
    }


async def _primary(nodes: HttpNodes, cluster: Cluster) -> tuple[Node, NodeState]:
    """The node that accepts writes. Raises Unreachable when there is none."""
    for node in cluster.nodes:
        try:
            state = await nodes.state(node, timeout_s=ANSWER_WITHIN_S)
        except Unreachable:
            continue
        if state.writable:
            return node, state
    raise Unreachable(f"no primary of {cluster.cluster_id} accepts writes; only it can change the membership")


async def _views(nodes: HttpNodes, cluster: Cluster) -> dict[str, MembershipView | None]:
    async def view(node: Node) -> MembershipView | None:
        try:
            return await nodes.membership(node, timeout_s=ANSWER_WITHIN_S)
        except Unreachable:
            return None

    found = await asyncio.gather(*(view(node) for node in cluster.nodes))
    return {node.node_id: one for node, one in zip(cluster.nodes, found, strict=True)}


def _told(membership: Membership) -> tuple[str, str]:
    return str(membership.version), ", ".join(membership.members) or "(none: not a member)"


async def _with_nodes(cluster_file: Path, work: Callable[[HttpNodes], Awaitable[T]]) -> T:
    async with HttpNodes(transport_beside(cluster_file, os.environ)) as nodes:
        return await work(nodes)
