"""`plan`: topology, policy and evidence to a plan, offline on the file's statuses or live on the world's."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from qnwis.cluster_status import live_evidence
from qnwis.config.load import load_cluster, load_policy
from qnwis.continuity.evidence import evidence_from_file
from qnwis.continuity.http_actions import HttpDemote, HttpFence, HttpPromote
from qnwis.continuity.patroni_actions import (
    PatroniDemoteCluster,
    PatroniFailover,
    PatroniFenceCluster,
    PatroniPromoteCluster,
    PatroniSwitchover,
)
from qnwis.continuity.plan import (
    Action,
    FencePrimary,
    FlipDns,
    ForceMembership,
    LowerTtl,
    PlanFile,
    PrepareNodes,
    PromoteTarget,
    RejoinOldPrimary,
    ReleasePrimary,
    RepointStandbys,
    RestoreTtl,
    VerifyService,
)
from qnwis.continuity.planner import Planning, make_plan
from qnwis.transport import transport_beside

from .files import write_output
from .giving_up import AttestOff, Lost, Override, given_up
from .output import AsJson, Exit, clear_errors, fail, out, print_json, refuse, styled
from .past_runs import earlier_ones_took
from .settings import OptionalStateDir
from .signing import By, KeyFile, me


def plan(
    cluster: Annotated[Path, typer.Option(help="Topology, cluster.yaml.")],
    policy: Annotated[Path, typer.Option(help="Policy, policy.yaml.")],
    output: Annotated[Path | None, typer.Option(help="Write the plan here as JSON.")] = None,
    override: Override = False,
    lost: Lost = None,
    attest_off: AttestOff = False,
    by: By = "",
    key: KeyFile = None,
    live: Annotated[bool, typer.Option("--live", help="Ask the nodes' agents instead of the file.")] = False,
    reason: Annotated[str, typer.Option(help="Why; becomes part of the plan.")] = "manual",
    state_dir: OptionalStateDir = None,
    as_json: AsJson = False,
) -> None:
    """Make a failover plan. Changes nothing."""
    if lost and not live:
        fail(Exit.USAGE, "--lost goes with --live: a file does not say which nodes answer")
    with clear_errors(as_json=as_json):
        topology, rules = load_cluster(cluster), load_policy(policy)
        evidence = (
            asyncio.run(live_evidence(topology, transport_beside(cluster, os.environ)))
            if live
            else evidence_from_file(topology)
        )
        planning = make_plan(
            topology,
            rules,
            evidence,
            trigger_reason=reason,
            override=override,
            give_up=given_up(lost, attest_off, me(key, by).name, override=override),
        )
        if planning.plan is None:
            assert planning.refusal is not None
            refuse(planning.refusal, as_json=as_json)
        made = planning.plan
        file = PlanFile(
            plan_id=made.plan_id,
            digest=made.digest,
            plan=made,
            estimated_total_ms=made.estimated_total_ms,
            action_count=len(made.actions),
            evidence=evidence,
        )
        if output is not None:
            write_output(output, file)
        if as_json:
            print_json(file)
        else:
            _show(file, planning)
            if (took := earlier_ones_took(state_dir, made.cluster_id)) is not None:
                out.print(took, markup=False)
            if output is not None:
                out.print(f"written to {output}", markup=False)


def describe(action: Action) -> str:
    """One action as a sentence."""
    match action:
        case FencePrimary():
            return f"fence {action.node_id}"
        case ForceMembership():
            gone = "silent" if action.attested_by is None else f"off, states {action.attested_by}"
            return f"give up {', '.join(action.lost)} ({gone}): members are {', '.join(action.members)}"
        case LowerTtl():
            return f"TTL of {action.record}: {action.from_ttl_s} s → {action.to_ttl_s} s; wait one old TTL"
        case PrepareNodes():
            return f"write checkpoints on {' and '.join(action.node_ids)}"
        case ReleasePrimary():
            return f"stop writes on {action.node_id}, let {action.target} catch up, stop it (demotion token)"
        case RejoinOldPrimary():
            return f"let {action.node_id} come back as a standby of {action.upstream}"
        case RestoreTtl():
            return f"TTL of {action.record}: {action.to_ttl_s} s again"
        case PromoteTarget():
            return f"promote {action.node_id}  (point of no return)"
        case RepointStandbys():
            return f"let {', '.join(action.node_ids) or 'no other standby'} follow {action.upstream}"
        case FlipDns():
            where = action.record or "no DNS service configured"
            return f"flip DNS: {where}: {action.from_address} → {action.to_address}"
        case PatroniSwitchover():
            return f"have Patroni switch over from {action.leader} to {action.node_id}  (point of no return)"
        case PatroniFailover():
            return f"have Patroni fail over from {action.leader} to {action.node_id}  (point of no return)"
        case PatroniDemoteCluster():
            members, at = ", ".join(action.node_ids), f"{action.upstream_host}:{action.upstream_port}"
            return f"make {members} a standby cluster of {action.target} ({at}), and see it read-only"
        case PatroniFenceCluster():
            who, members = action.attested_by, ", ".join(action.node_ids)
            return f"switch off {members}" if who is None else f"take {members} for off, as {who} states"
        case PatroniPromoteCluster():
            return f"make the standby cluster of {action.node_id} a primary one  (point of no return)"
        case HttpDemote():
            return f"have the application on {action.node_id} demote itself, and see that it does not write"
        case HttpFence():
            who, node = action.attested_by, action.node_id
            return f"switch off {node}" if who is None else f"take {node} for off, as {who} states"
        case HttpPromote():
            return f"have the application on {action.node_id} accept writes  (point of no return)"
        case VerifyService():
            return f"verify that {action.node_id} serves"


def _show(file: PlanFile, planning: Planning) -> None:
    made = file.plan
    out.print(styled(file.plan_id, "bold"), f" {made.primary_node_id} → {made.failover_target_id}")
    out.print(f"digest {file.digest}", markup=False)
    table = Table("action", "what", "estimate", box=None, pad_edge=False)
    for action in made.actions:
        table.add_row(action.action_id, describe(action), f"{action.estimate_ms} ms")
    table.add_row("", "in all", f"{file.estimated_total_ms} ms", style="bold")
    out.print(table)
    loss = planning.predicted_loss_bytes
    known = "not known (no log positions)" if loss is None else f"{loss} bytes of write-ahead log"
    out.print(f"evidence: {planning.basis.value}; predicted loss: {known}", markup=False)
    for note in planning.notes:
        out.print(f"  ! {note}", markup=False)
    for candidate in planning.candidates:
        out.print(f"  {candidate.node_id}: {candidate.reason or 'eligible'}", markup=False)
