"""`status`: the cluster as its agents see it now; every fact with its age and its source."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Annotated

import typer
from rich.table import Table
from temporalio.service import RPCError

from qnwis.config.load import load_cluster
from qnwis.continuity.detection import Finding
from qnwis.continuity.evidence import ClusterEvidence, NodeEvidence, current_primary
from qnwis.continuity.model import Model
from qnwis.continuity.quorum import ClusterState, assess
from qnwis.continuity.region_groups import GroupView, group_views, state_of
from qnwis.continuity.topology import Cluster
from qnwis.continuity.weights import Weights
from qnwis.providers.errors import Refused, Unreachable
from qnwis.providers.region_weights import DnsWeights
from qnwis.temporal import NoServer, connect
from workflows.guardian import Guardian
from workflows.guardian_state import GuardianView
from workflows.guardian_words import in_words
from workflows.names import guardian_id

from .output import AsJson, Exit, clear_errors, out, print_json
from .plan import live_evidence

STYLES = {
    ClusterState.HEALTHY: "bold green",
    ClusterState.DEGRADED: "bold yellow",
    ClusterState.CRITICAL: "bold red",
}


class Status(Model):
    """The cluster now. The first seven fields are the specification's."""

    cluster_id: str
    total_nodes: int
    healthy_nodes: int
    quorum_size: int
    has_quorum: bool
    primary_node_id: str | None
    timings_ms: dict[str, float]
    state: ClusterState
    evidence: ClusterEvidence
    guardian: GuardianView | None
    guardian_note: str | None
    """Why there is nothing from the guardian."""
    regions: tuple[GroupView, ...] = ()
    """Of an active/active cluster, which has a primary in each: `primary_node_id` is none of them."""
    weights_note: str | None = None
    """Why the weights of the regions are not known."""

    @property
    def serves(self) -> bool:
        """A primary takes writes, with a quorum; in each region that clients are sent to."""
        if self.regions:
            return self.state is not ClusterState.CRITICAL
        return self.has_quorum and self.primary_node_id is not None


def status(
    cluster: Annotated[Path, typer.Option(help="Topology, cluster.yaml.")],
    address: Annotated[str | None, typer.Option(help="Temporal server, host:port.")] = None,
    as_json: AsJson = False,
) -> None:
    """Ask every agent and the guardian what they see now."""
    with clear_errors(as_json=as_json):
        now = asyncio.run(read_status(load_cluster(cluster), address))
    if as_json:
        print_json(now)
    else:
        _show(now)
    raise typer.Exit(Exit.OK if now.serves else Exit.NOT_DONE)


async def read_status(cluster: Cluster, address: str | None) -> Status:
    """Nodes and guardian, asked side by side; of an active/active cluster the weights in DNS, too."""
    started = monotonic()
    if cluster.is_active_active:
        return await _read_regions(cluster, address, started)
    evidence, (guardian, note) = await asyncio.gather(
        live_evidence(cluster), _ask_guardian(cluster.cluster_id, address)
    )
    quorum = assess(cluster, evidence)
    answered = any(node.state is not None for node in evidence.nodes)
    return Status(
        cluster_id=cluster.cluster_id,
        total_nodes=quorum.total_nodes,
        healthy_nodes=quorum.healthy_nodes,
        quorum_size=quorum.quorum_size,
        has_quorum=quorum.has_quorum,
        # The file's own word would be no news: without an answer the primary is not known.
        primary_node_id=current_primary(cluster, evidence) if answered else None,
        timings_ms={"total": round((monotonic() - started) * 1000, 1)},
        state=quorum.state,
        evidence=evidence,
        guardian=guardian,
        guardian_note=note,
    )


async def _read_regions(cluster: Cluster, address: str | None, started: float) -> Status:
    evidence, (guardian, note), (weights, weights_note) = await asyncio.gather(
        live_evidence(cluster), _ask_guardian(cluster.cluster_id, address), _ask_weights(cluster)
    )
    regions = group_views(cluster, evidence, weights)
    return Status(
        cluster_id=cluster.cluster_id,
        total_nodes=sum(view.total_nodes for view in regions),
        healthy_nodes=sum(view.healthy_nodes for view in regions),
        quorum_size=sum(view.quorum_size for view in regions),
        has_quorum=all(view.has_quorum for view in regions if view.is_needed),
        primary_node_id=None,
        timings_ms={"total": round((monotonic() - started) * 1000, 1)},
        state=state_of(regions),
        evidence=evidence,
        guardian=guardian,
        guardian_note=note,
        regions=regions,
        weights_note=weights_note,
    )


async def _ask_weights(cluster: Cluster) -> tuple[Weights | None, str | None]:
    try:
        return await DnsWeights().in_force(cluster), None
    except (Refused, Unreachable) as error:
        return None, str(error)


async def _ask_guardian(cluster_id: str, address: str | None) -> tuple[GuardianView | None, str | None]:
    try:
        client = await connect(address)
        handle = client.get_workflow_handle_for(Guardian.run, guardian_id(cluster_id))
        return await handle.query(Guardian.view), None
    except NoServer as error:
        return None, str(error)
    except RPCError as error:
        return None, f"{guardian_id(cluster_id)} does not answer: {error.message}"


def _show(now: Status) -> None:
    if now.regions:
        _show_regions(now)
    else:
        _show_quorum(now)
    _show_nodes(now)


def _show_regions(now: Status) -> None:
    out.print(
        f"[bold]{now.cluster_id}[/bold]  [{STYLES[now.state]}]{now.state.value}[/]"
        f"  active/active, {now.healthy_nodes} of {now.total_nodes} nodes healthy"
    )
    table = Table(
        "region", "traffic", "state", "primary", "epoch", "quorum", "group", box=None, pad_edge=False
    )
    for view in now.regions:
        table.add_row(
            view.region,
            "not known" if view.weight is None else f"{view.weight} %",
            f"[{STYLES[view.state]}]{view.state.value}[/]",
            view.primary_node_id or "none takes writes",
            "" if view.epoch is None else str(view.epoch),
            f"{view.quorum_size} of {view.total_nodes} {'reached' if view.has_quorum else 'NOT reached'}",
            view.cluster_id,
        )
    out.print(table)
    if now.weights_note is not None:
        out.print(f"weights: {now.weights_note}", markup=False)


def _show_quorum(now: Status) -> None:
    out.print(
        f"[bold]{now.cluster_id}[/bold]  [{STYLES[now.state]}]{now.state.value}[/]"
        f"  {now.healthy_nodes} of {now.total_nodes} nodes healthy, quorum {now.quorum_size}"
        f" {'reached' if now.has_quorum else 'NOT reached'}, primary {now.primary_node_id or 'unknown'}"
    )


def _show_nodes(now: Status) -> None:
    table = Table("node", "status", "role", "timeline", "position", "epoch", "age", box=None, pad_edge=False)
    table.add_column("source", overflow="fold")
    for node in now.evidence.nodes:
        table.add_row(*_row(node))
    out.print(table)
    for node in now.evidence.nodes:
        why = node.error or (node.state.why_down if node.state is not None else None)
        if why:
            out.print(f"{node.node_id}: {why}", markup=False)
    if now.guardian is None:
        out.print(f"guardian: {now.guardian_note}", markup=False)
        return
    guardian = now.guardian
    doing = guardian.holding or (f"paused by {guardian.pause.by}" if guardian.pause else "watching")
    out.print(f"guardian: {doing}", markup=False)
    if any(verdict.finding is not Finding.HEALTHY for verdict in guardian.verdicts.values()):
        for line in in_words(guardian):
            out.print(f"  {line}", markup=False)
    if guardian.last_result is not None:
        last = guardian.last_result
        ago = (datetime.now(UTC) - last.ended_at).total_seconds()
        out.print(f"last run: {last.outcome.value} {ago:.0f} s ago, audit {last.audit_id}", markup=False)


def _row(node: NodeEvidence) -> tuple[str, ...]:
    age = (
        "" if node.observed_at is None else f"{(datetime.now(UTC) - node.observed_at).total_seconds():.1f} s"
    )
    state = node.state
    if state is None:
        return node.node_id, node.status.value, "", "", "", "", age, node.source
    role = (
        "primary"
        if state.writable
        else f"standby of {state.upstream}"
        if state.in_recovery
        else "no database"
    )
    position = state.write_lsn if state.writable else state.receive_lsn
    return (
        node.node_id,
        node.status.value,
        role,
        str(state.timeline or ""),
        "" if position is None else f"{position >> 32:X}/{position & 0xFFFFFFFF:X}",
        str(state.epoch),
        age,
        node.source,
    )
