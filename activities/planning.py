"""Deciding, recorded: planner and simulator run here so that a run's history holds what they answered.

They compute in a thread: watches in the same process must not stand still for it.
"""

from __future__ import annotations

import asyncio

from temporalio import activity

from qnwis.continuity.assessment import assess
from qnwis.continuity.evidence import ClusterEvidence
from qnwis.continuity.model import Model
from qnwis.continuity.plan import Plan
from qnwis.continuity.policy import Policy
from qnwis.continuity.run import Assessment, FailoverRequest
from qnwis.continuity.simulate import Rehearsal, rehearse
from qnwis.continuity.topology import Cluster


class AssessRequest(Model):
    request: FailoverRequest
    cluster: Cluster
    policy: Policy
    evidence: ClusterEvidence


class RehearseRequest(Model):
    plan: Plan
    cluster: Cluster
    policy: Policy
    evidence: ClusterEvidence


class Planning:
    @activity.defn
    async def assess(self, asked: AssessRequest) -> Assessment:
        """The plan for this request on this evidence, or the rule that refuses it."""
        return await asyncio.to_thread(assess, asked.request, asked.cluster, asked.policy, asked.evidence)

    @activity.defn
    async def rehearse(self, asked: RehearseRequest) -> Rehearsal:
        """Play the plan against the model of this evidence before it is played for real."""
        return await asyncio.to_thread(rehearse, asked.plan, asked.cluster, asked.policy, asked.evidence)
