"""A planned switchover as a plain script: the same calls as `workflows/planned_maintenance.py`, one after the
other, with nothing in between that would survive a crash."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from temporalio.testing import ActivityEnvironment

from activities.audit import Audit
from activities.dns import DnsRecords
from activities.evidence import ClusterName, Evidence
from activities.fencing import Fencing
from activities.planning import AssessRequest, Planning, RehearseRequest
from activities.promotion import Promotion
from activities.switchover import Switchover
from activities.verification import Verification, VerifyRequest
from qnwis.config.registry import Registered
from qnwis.continuity.evidence import ClusterEvidence
from qnwis.continuity.executor import Do, Outcome, advance
from qnwis.continuity.orders import DemotionToken
from qnwis.continuity.plan import Action, LowerTtl, Plan, PromoteTarget, ReleasePrimary, VerifyService
from qnwis.continuity.run import (
    Assessment,
    FailoverRequest,
    RunArtefacts,
    RunKind,
    RunOutcome,
    RunResult,
)
from qnwis.continuity.simulate import Rehearsal
from qnwis.lab.errors import LabError
from workers.wiring import Providers
from workflows.ways import WAYS

OUTSIDE = replace(ActivityEnvironment.default_info(), workflow_id=None)
"""Of no workflow: there is no history that a record's bundle could have."""


@dataclass
class Script:
    """One switchover. What is called outside of a worker finds itself in the SDK's own test environment, in
    which a heartbeat goes nowhere."""

    providers: Providers
    calls: list[str] = field(default_factory=list)
    """Names of the activities that were called, in this order."""

    async def switch_over(self, request: FailoverRequest) -> float:
        """How long it took, seconds. Raises LabError unless it was verified, as a run would be."""
        p, began, started_at = self.providers, time.perf_counter(), datetime.now(UTC)
        evidence, planning, run_id = Evidence(p.registry, p.nodes), Planning(), str(uuid.uuid4())
        registered: Registered = await self._call(
            evidence.load_cluster,
            ClusterName(cluster_id=request.cluster_id, kind=RunKind.PLANNED_MAINTENANCE),
        )
        cluster, policy = registered.cluster, registered.policy
        before: ClusterEvidence = await self._call(evidence.collect, cluster)
        assessment: Assessment = await self._call(
            planning.assess,
            AssessRequest(request=request, cluster=cluster, policy=policy, evidence=before),
        )
        plan = assessment.plan
        if plan is None:
            raise LabError(f"the script made no plan: {assessment.refusal}")
        rehearsal: Rehearsal = await self._call(
            planning.rehearse,
            RehearseRequest(plan=plan, cluster=cluster, policy=policy, evidence=before),
        )
        if rehearsal.refusal is not None:
            raise LabError(f"the script's plan was refused: {rehearsal.refusal}")
        acting_since = time.perf_counter()
        world = {"run_id": run_id, "epoch": assessment.epoch, "cluster": cluster}
        log = await self._carried_out(registered, plan, world)
        verified = await self._call(
            Verification(p.nodes, p.dns).verify,
            VerifyRequest(
                plan=plan,
                cluster=cluster,
                policy=policy,
                before=before,
                fencing=next((o.fencing for o in log if o.fencing is not None), None),
                epoch=assessment.epoch,
                elapsed_ms=1000 * (time.perf_counter() - acting_since),
            ),
        )
        if not verified.report.passed:
            raise LabError(f"the script's switchover was not verified: {verified.report}")
        result = RunResult(
            kind=RunKind.PLANNED_MAINTENANCE,
            outcome=RunOutcome.COMPLETED,
            reason="by a script",
            cluster_id=cluster.cluster_id,
            run_id=run_id,
            epoch=assessment.epoch,
            old_primary=plan.primary_node_id,
            new_primary=plan.failover_target_id,
            plan=plan,
            plan_digest=plan.digest,
            outcomes=tuple(log),
            verification=verified.report,
            started_at=started_at,
            ended_at=datetime.now(UTC),
        )
        await self._call(
            Audit(p.audit, bundles=p.bundles, witnesses=p.witnesses).record,
            RunArtefacts(
                request=request, evidence_before=before, evidence_after=verified.after, result=result
            ),
        )
        return time.perf_counter() - began

    async def _carried_out(self, registered: Registered, plan: Plan, world: dict[str, Any]) -> list[Outcome]:
        """The outcomes of the plan's actions, once the verification is due. Raises LabError."""
        log: list[Outcome] = []
        while True:
            match advance(plan, log):
                case Do(action=VerifyService()):
                    return log
                case Do(action=action):
                    way = WAYS[type(action)]
                    request = way.asked_with(
                        action=action, **_besides(action, plan, registered, log), **world
                    )
                    log.append(await self._call(self._effect(way.do), request))
                    if isinstance(action, LowerTtl):
                        await asyncio.sleep(action.from_ttl_s)
                case _:
                    raise LabError(f"the script's switchover failed: {log[-1].action_id}: {log[-1].detail}")

    def _effect(self, activity: Callable[..., Any]) -> Callable[..., Any]:
        """The activity of that name, with this script's providers."""
        p = self.providers
        fencing = Fencing(p.nodes, p.hook)
        homes = (DnsRecords(p.dns), Promotion(p.nodes), Switchover(p.nodes, fencing))
        home = next(home for home in homes if hasattr(home, activity.__name__))
        effect: Callable[..., Any] = getattr(home, activity.__name__)
        return effect

    async def _call(self, call: Callable[..., Any], *arguments: Any) -> Any:
        self.calls.append(call.__name__)
        environment = ActivityEnvironment()
        environment.info = OUTSIDE
        answer = environment.run(call, *arguments)
        return await answer if asyncio.iscoroutine(answer) else answer


def _besides(action: Action, plan: Plan, registered: Registered, log: list[Outcome]) -> dict[str, object]:
    """What the requests of these actions carry besides the run, its epoch and the cluster."""
    match action:
        case ReleasePrimary():
            return {"plan": plan, "policy": registered.policy}
        case PromoteTarget():
            tokens = [o.facts["token"] for o in log if o.facts.get("token") is not None]
            at = DemotionToken.model_validate(tokens[0])
            return {"plan": plan, "policy": registered.policy, "at": at}
    return {}
