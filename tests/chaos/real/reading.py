"""Reading from the real lab what happened, besides the clients' history: the facts that the checker takes."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path

from temporalio.client import WorkflowFailureError
from temporalio.service import RPCError

from qnwis.agent.journal import Line
from qnwis.continuity.evidence import NodeState
from qnwis.continuity.orders import PromoteOrder
from qnwis.continuity.run import RunResult
from qnwis.lab.cluster import Lab
from qnwis.lab.errors import LabError
from qnwis.lab.history import History, Kind
from qnwis.lab.temporal_server import Say
from qnwis.providers.errors import Refused, Unreachable
from qnwis.providers.nodes import HttpNodes
from tests.chaos.facts import Facts, PlayedRun, Promotion, Thaw
from tests.chaos.story import Story
from workflows.guardian import Guardian
from workflows.names import failover_id
from workflows.primary_failure import PrimaryFailure

from .stage import Stage

QUERY_WITHIN = timedelta(seconds=2)
DNS_AFTER_RUN_S = 2.0
"""A run's last change of DNS may be noted so much later than the run's end, by clocks of two processes."""
_RULE = re.compile(r"\[([a-z_]+)\]")
_TIMELINE = re.compile(r"on timeline (\d+)")
_BRANCH = re.compile(r"^(\d+)\s+([0-9A-F]+)/([0-9A-F]+)", re.MULTILINE)


def facts_of(
    story: Story,
    lab: Lab,
    history: History,
    *,
    runs: Iterable[RunResult],
    held_by: Iterable[str],
    thawed: Iterable[Thaw],
    serves: str | None,
    writable: bool,
    rows: frozenset[tuple[str, int]] | None,
) -> Facts:
    """Put together what was read. `serves` is the writable node, where there is one."""
    runs = sorted(runs, key=lambda run: run.ended_at)
    promotions = _promotions(lab, history)
    last = promotions[-1].node_id if promotions else lab.primary.node_id
    policy = story.cluster.policy
    return Facts(
        replication=story.cluster.replication,
        max_lag_bytes=_registered_max_lag(lab) if policy.max_lag_bytes is None else policy.max_lag_bytes,
        first_primary=lab.primary.node_id,
        primary_at_end=serves or last,
        writable_at_end=writable,
        promotions=promotions,
        rows=rows,
        effects=(*_orders_done(lab), *_dns_changes(lab, runs)),
        runs=tuple(
            PlayedRun(
                run_id=run.run_id,
                outcome=run.outcome,
                rule=None if run.refusal is None else run.refusal.rule,
            )
            for run in runs
        ),
        held_by=tuple(held_by),
        thawed=tuple(thawed),
    )


# --- From the control plane ---------------------------------------------------------------------------------


async def ended_runs(stage: Stage) -> tuple[list[RunResult], bool]:
    """The results of the runs that ended, and whether one is still open. Raises RPCError."""
    workflow_id = failover_id(stage.lab.cluster.cluster_id)
    results, still_open = [], False
    async for found in stage.control.client.list_workflows(f"WorkflowId = '{workflow_id}'"):
        handle = stage.control.client.get_workflow_handle_for(
            PrimaryFailure.run, workflow_id, run_id=found.run_id
        )
        described = await handle.describe(rpc_timeout=QUERY_WITHIN)
        if described.close_time is None:
            still_open = True
            continue
        try:
            results.append(await handle.result(follow_runs=False, rpc_timeout=QUERY_WITHIN))
        except WorkflowFailureError:
            continue  # terminated by somebody: it has no result of its own
    return results, still_open


async def watch_guardian(stage: Stage, held_by: list[str], say: Say) -> None:
    """Note each rule by which the guardian holds a failover back, while it does, and tell what it sees. Runs
    until cancelled."""
    said = ""
    while True:
        try:
            view = await stage.control.guardian.query(Guardian.view, rpc_timeout=QUERY_WITHIN)
        except RPCError:
            view = None  # nobody answers just now
        if view is not None:
            for rule in _rules(view.holding):
                if held_by[-1:] != [rule]:
                    held_by.append(rule)
            statuses = ", ".join(f"{node} {status}" for node, status in sorted(view.statuses.items()))
            says = f"guardian: primary {view.primary_node_id}; {statuses}; holding: {view.holding}"
            says += "".join(
                f"; {vantage} abstains: {why}" for vantage, why in sorted(view.abstaining.items())
            )
            if says != said:
                say(said := says)
        await asyncio.sleep(0.5)


def _rules(holding: str | None) -> list[str]:
    if holding is None:
        return []
    if holding.startswith("strategy manual"):
        return ["strategy_manual"]
    return _RULE.findall(holding)


# --- From the nodes -----------------------------------------------------------------------------------------


async def serving(lab: Lab) -> NodeState | None:
    """The node that accepts writes; of several the one on the newest timeline."""
    async with HttpNodes(lab.certificates.transport) as nodes:
        answers = await asyncio.gather(
            *(nodes.state(node, timeout_s=1.5) for node in lab.data_nodes), return_exceptions=True
        )
    states = []
    for answer in answers:
        if isinstance(answer, NodeState):
            states.append(answer)
        elif not isinstance(answer, Unreachable | Refused):
            raise answer
    writable = [state for state in states if state.writable]
    return max(writable, key=lambda state: state.timeline or 0, default=None)


async def rows_of(lab: Lab, node_id: str) -> frozenset[tuple[str, int]] | None:
    try:
        return frozenset(await lab.rows(node_id))
    except LabError:
        return None


def _orders_done(lab: Lab) -> list[str]:
    """Each change that a node made on an order, by its journal. One order may go to several nodes."""
    return [
        f"{node.node_id}/{line.receipt.effect_id}"
        for node in lab.cluster.nodes
        for line in _journal(lab, node.node_id)
        if line.receipt is not None and line.receipt.changed
    ]


def _journal(lab: Lab, node_id: str) -> list[Line]:
    lines = _whole_lines(lab.machine(node_id).state_dir / "journal.jsonl")
    return [Line.model_validate_json(line) for line in lines]


def _promotions(lab: Lab, history: History) -> tuple[Promotion, ...]:
    """By the history files of PostgreSQL, in which each timeline names where it left the one before."""
    began: dict[tuple[int, int], None] = {}
    for node in lab.data_nodes:
        for path in sorted((lab.machine(node.node_id).data_dir / "pg_wal").glob("????????.history")):
            branches = _BRANCH.findall(path.read_text())
            if branches:
                _, high, low = branches[-1]
                began[int(path.stem, 16), (int(high, 16) << 32) + int(low, 16)] = None
    who = _who_began(lab, history)
    return tuple(
        Promotion(node_id=who.get(timeline, "unknown"), timeline=timeline, lsn=lsn)
        for timeline, lsn in sorted(began)
    )


def _who_began(lab: Lab, history: History) -> dict[int, str]:
    """By what the journals say of promotions, else by who acknowledged the first write of a timeline."""
    who: dict[int, str] = {}
    for event in history:
        if event.kind is Kind.ACKNOWLEDGED and event.timeline is not None and event.server is not None:
            who.setdefault(event.timeline, event.server)
    for node in lab.data_nodes:
        for line in _journal(lab, node.node_id):
            if isinstance(line.order, PromoteOrder) and line.receipt is not None:
                for timeline in _TIMELINE.findall(line.receipt.detail):
                    who[int(timeline)] = node.node_id
    return who


def _dns_changes(lab: Lab, runs: Iterable[RunResult]) -> list[str]:
    """Each change of the zone's addresses; the same change by the same run is the same effect."""
    found = []
    for number, text in enumerate(_whole_lines(lab.folder.dns_journal)):
        line = json.loads(text)
        at = datetime.fromisoformat(line["at"])
        late = timedelta(seconds=DNS_AFTER_RUN_S)
        by = [run.run_id for run in runs if run.started_at <= at <= run.ended_at + late]
        found += [
            f"dns/{by[0] if by else number}/{change['name']}:{change['before']}->{change['after']}"
            for change in line["changes"]
            if change["type"] == "A"
        ]
    return found


def _whole_lines(path: Path) -> list[str]:
    if not path.exists():
        return []
    return path.read_text()[: path.read_text().rfind("\n") + 1].splitlines()


def _registered_max_lag(lab: Lab) -> int:
    from qnwis.config.registry import Registry

    return Registry(lab.folder.config).load(lab.cluster.cluster_id).policy.max_lag_bytes
