"""POST /plan, /execute, /status and /simulate: the specification's four endpoints."""

from __future__ import annotations

import asyncio
from time import monotonic

from fastapi import APIRouter, Response

from qnwis.cluster_status import guardian_view, look_at
from qnwis.config.registry import Registered
from qnwis.continuity.assessment import assess
from qnwis.continuity.evidence import evidence_from_file
from qnwis.continuity.identity import Permission
from qnwis.continuity.managers import agents_only_refusal
from qnwis.continuity.plan import Plan
from qnwis.continuity.planner import make_plan, topology_digest
from qnwis.continuity.policy import Policy
from qnwis.continuity.refusal import Refusal
from qnwis.continuity.run import FailoverRequest, RunResult
from qnwis.continuity.simulate import simulate as play
from qnwis.continuity.simulate import too_long_refusal
from qnwis.continuity.topology import Cluster
from qnwis.providers.errors import Refused
from qnwis.providers.evidence import collect_evidence
from qnwis.providers.request_store import Begun
from qnwis.signing import signed_start
from qnwis.starting import RunHandle, start_failover
from workflows.names import failover_id

from .asking import Asking, acts, answer, reads
from .bodies import (
    Accepted,
    ExecuteRequest,
    ExecuteResponse,
    NamedCluster,
    NamedPlan,
    PlanRequest,
    PlanResponse,
    SimulateRequest,
    SimulateResponse,
    StatusRequest,
    StatusResponse,
    executed,
)
from .paths import Prefer
from .texts import WholeCharacters
from .waiting import accepted_run, begun_before, ended_or_accepted, wait_s

router = APIRouter(route_class=WholeCharacters)


@router.post("/plan", response_model=PlanResponse)
async def plan(body: PlanRequest, asking: Asking = reads(Permission.GENERATE_PLAN)) -> Response:
    """Make a failover plan. Changes nothing; the plan is kept under its id."""
    if body.override:
        asking.need(Permission.OVERRIDE_CONSTRAINTS)
    started = monotonic()
    cluster, policy = _given(asking, body.cluster, body.policy)
    if body.live:
        cluster = (await asyncio.to_thread(registered_as_given, asking, body.cluster)).cluster
        evidence = await collect_evidence(asking.parts.nodes, cluster)
    else:
        evidence = evidence_from_file(cluster)
    began = monotonic()
    planning = await asyncio.to_thread(
        make_plan, cluster, policy, evidence, trigger_reason=body.trigger_reason, override=body.override
    )
    if planning.plan is None:
        assert planning.refusal is not None
        raise Refused(planning.refusal)
    made, planning_ms = planning.plan, (monotonic() - began) * 1000
    await asking.parts.store.keep_plan(made, asking.who.name, asking.parts.now())
    return answer(
        PlanResponse(
            request_id=asking.request_id,
            plan_id=made.plan_id,
            cluster_id=made.cluster_id,
            policy_id=made.policy_id,
            primary_node_id=made.primary_node_id,
            failover_target_id=made.failover_target_id,
            estimated_total_ms=made.estimated_total_ms,
            action_count=len(made.actions),
            timings_ms={"total": _ms_since(started), "planning": round(planning_ms, 1)},
            digest=made.digest,
            plan=made,
            notes=planning.notes,
        )
    )


@router.post("/execute", response_model=ExecuteResponse, responses={202: {"model": Accepted}})
async def execute(
    body: ExecuteRequest,
    prefer: Prefer = None,
    asking: Asking = acts(Permission.TRIGGER),
) -> Response:
    """Execute a plan. It is derived again from what the nodes say now; where that gives another digest,
    nothing is done."""
    if body.even_if_healthy or body.override:
        asking.need(Permission.OVERRIDE_CONSTRAINTS)
    if body.override:
        asking.need(Permission.EMERGENCY_OVERRIDE)
    return await asking.once(
        lambda begun: _execute(body, wait_s(prefer, dry_run=body.dry_run), asking, begun)
    )


async def _execute(body: ExecuteRequest, longest_s: float, asking: Asking, begun: Begun) -> Response:
    started = monotonic()
    made = await _plan_of(body.plan, asking)
    workflow_id = failover_id(made.cluster_id, dry_run=body.dry_run)
    handle = await begun_before(asking, begun, workflow_id, RunResult)
    if handle is None:
        handle = await _started(made, body, asking, begun)

    def ended(result: RunResult) -> Response:
        total_ms = (monotonic() - started) * 1000
        return answer(executed(result, made.plan_id, asking.request_id, total_ms))

    accepted = accepted_run(asking, handle, made.cluster_id, made.plan_id, longest_s)
    return await ended_or_accepted(asking, handle, longest_s, accepted=accepted, ended=ended)


async def _started(made: Plan, body: ExecuteRequest, asking: Asking, begun: Begun) -> RunHandle:
    parts = asking.parts
    registered = parts.registered(made.cluster_id)
    request = FailoverRequest(
        cluster_id=made.cluster_id,
        initiated_by=asking.who.name,
        reason=body.reason or made.trigger_reason or "manual",
        dry_run=body.dry_run,
        even_if_healthy=body.even_if_healthy,
        override=body.override,
        plan=made,
    )
    evidence = await collect_evidence(parts.nodes, registered.cluster)
    # The run does the same with evidence of its own; here whoever asks is told at once.
    assessed = await asyncio.to_thread(assess, request, registered.cluster, registered.policy, evidence)
    if assessed.refusal is not None:
        raise Refused(assessed.refusal)
    signed = signed_start(asking.signer, request)
    return await start_failover(parts.client, signed, parts.task_queue, deed_id=begun.deed_id)


@router.post("/status", response_model=StatusResponse)
async def status(body: StatusRequest, asking: Asking = reads(Permission.READ_STATUS)) -> Response:
    """Ask every registered node of the cluster, and its guardian, what they see now."""
    cluster = (await asyncio.to_thread(registered_as_given, asking, body.cluster)).cluster
    parts = asking.parts
    now = await look_at(
        cluster,
        collect_evidence(parts.nodes, cluster),
        guardian_view(parts.client, cluster.cluster_id),
    )
    return answer(StatusResponse.of(now, asking.request_id))


@router.post("/simulate", response_model=SimulateResponse)
async def simulate(body: SimulateRequest, asking: Asking = reads(Permission.SIMULATE)) -> Response:
    """Simulate a failure and what this policy makes of it. Touches nothing; same seed, same result."""
    started = monotonic()
    cluster, policy = _given(asking, body.cluster, body.policy)
    refusal = agents_only_refusal(cluster, "simulate") or too_long_refusal(cluster)
    if refusal is not None:
        raise Refused(refusal)
    began = monotonic()
    result = await asyncio.to_thread(play, cluster, policy, body.scenario, body.seed)
    timings = {"total": _ms_since(started), "simulation": _ms_since(began)}
    return answer({"request_id": asking.request_id, **result.model_dump(mode="json"), "timings_ms": timings})


def _given(asking: Asking, cluster: Cluster | NamedCluster, policy: Policy | None) -> tuple[Cluster, Policy]:
    """What is reckoned with; of what only has a name, what is registered. Raises Refused."""
    if isinstance(cluster, Cluster) and policy is not None:
        return cluster, policy
    registered = asking.parts.registered(cluster.cluster_id)
    return (
        registered.cluster if isinstance(cluster, NamedCluster) else cluster,
        policy or registered.policy,
    )


def registered_as_given(asking: Asking, cluster: Cluster | NamedCluster) -> Registered:
    """The registered cluster, whose nodes may be contacted. A topology in a body is data: one that differs is
    refused, so that nobody has an address of their own asked, or takes the answer for one about theirs."""
    registered = asking.parts.registered(cluster.cluster_id)
    if isinstance(cluster, NamedCluster) or topology_digest(cluster) == topology_digest(registered.cluster):
        return registered
    given, known = cluster.model_dump(mode="json"), registered.cluster.model_dump(mode="json")
    differing = [name for name in known if name != "nodes" and given[name] != known[name]]
    places, registered_places = _places(cluster), _places(registered.cluster)
    differing += [
        f"nodes.{node_id}"
        for node_id in sorted({*places, *registered_places})
        if places.get(node_id) != registered_places.get(node_id)
    ]
    raise Refused(
        Refusal(
            rule="cluster_differs",
            message=f"The topology of {cluster.cluster_id} is not the registered one: {', '.join(differing)}",
            values={"differing": [*differing]},
            remedy="Send the registered topology, or its cluster_id alone.",
        )
    )


def _places(cluster: Cluster) -> dict[str, object]:
    """By node_id, where each node is and what it is for."""
    return {node.node_id: node.model_dump(exclude={"status"}) for node in cluster.nodes}


async def _plan_of(plan: Plan | NamedPlan, asking: Asking) -> Plan:
    if isinstance(plan, Plan):
        return plan
    found = await asking.parts.store.plans(limit=1, plan_id=plan.plan_id)
    if found:
        return found[0].plan
    raise Refused(no_plan(plan.plan_id))


def no_plan(plan_id: str) -> Refusal:
    return Refusal(
        rule="no_plan",
        message=f"No plan {plan_id} is kept",
        values={"plan_id": plan_id},
        remedy="Make it anew: POST /api/v1/continuity/plan.",
    )


def _ms_since(started: float) -> float:
    return round((monotonic() - started) * 1000, 1)
