"""`status`: the cluster as its agents see it now; every fact with its age and its source."""

from __future__ import annotations

import asyncio
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from qnwis.cluster_status import Said, Status, guardian_view, live_evidence, look_at
from qnwis.config.load import load_cluster
from qnwis.continuity.detection import Finding
from qnwis.continuity.evidence import NodeEvidence
from qnwis.continuity.quorum import ClusterState
from qnwis.continuity.topology import Cluster
from qnwis.providers.key_store import KeyStoreError
from qnwis.temporal import NoServer, connect
from qnwis.transport import Transport, transport_beside
from workflows.guardian_words import in_words

from .output import AsJson, Exit, clear_errors, out, print_json, styled

STYLES = {
    ClusterState.HEALTHY: "bold green",
    ClusterState.DEGRADED: "bold yellow",
    ClusterState.CRITICAL: "bold red",
}


def status(
    cluster: Annotated[Path, typer.Option(help="Topology, cluster.yaml.")],
    address: Annotated[str | None, typer.Option(help="Temporal server, host:port.")] = None,
    as_json: AsJson = False,
) -> None:
    """Ask every agent and the guardian what they see now."""
    with clear_errors(as_json=as_json):
        now = asyncio.run(read_status(load_cluster(cluster), transport_beside(cluster, os.environ), address))
    if as_json:
        print_json(now)
    else:
        _show(now)
    raise typer.Exit(Exit.OK if now.serves else Exit.NOT_DONE)


async def read_status(cluster: Cluster, transport: Transport, address: str | None) -> Status:
    """What the agents and the guardian say; without a Temporal server, why the guardian says nothing."""
    return await look_at(
        cluster, live_evidence(cluster, transport), _ask_guardian(cluster.cluster_id, address)
    )


async def _ask_guardian(cluster_id: str, address: str | None) -> Said:
    try:
        return await guardian_view(await connect(address), cluster_id)
    except (NoServer, KeyStoreError) as error:
        return None, str(error)


def _show(now: Status) -> None:
    if now.regions:
        _show_regions(now)
    else:
        _show_quorum(now)
    _show_nodes(now)


def _show_regions(now: Status) -> None:
    out.print(
        styled(now.cluster_id, "bold"),
        styled(f" {now.state.value}", STYLES[now.state]),
        f" active/active, {now.healthy_nodes} of {now.total_nodes} nodes healthy",
    )
    table = Table(
        "region", "traffic", "state", "primary", "epoch", "quorum", "group", box=None, pad_edge=False
    )
    for view in now.regions:
        table.add_row(
            view.region,
            "not known" if view.weight is None else f"{view.weight} %",
            styled(view.state.value, STYLES[view.state]),
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
        styled(now.cluster_id, "bold"),
        styled(f" {now.state.value}", STYLES[now.state]),
        f" {now.healthy_nodes} of {now.total_nodes} nodes healthy, quorum {now.quorum_size}"
        f" {'reached' if now.has_quorum else 'NOT reached'}, primary {now.primary_node_id or 'unknown'}",
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
    for one in now.protection:
        out.print(f"standbys: {one.in_words}", markup=False)
        for missing in one.missing:
            out.print(f"  {missing.node_id}: {missing.remedy}", markup=False)
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
