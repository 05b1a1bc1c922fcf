"""What a run knows apart from its steps: the world, the plan made for it, and what it did before.

All of it comes from activities, so a replay knows the same.
"""

from __future__ import annotations

from datetime import datetime

from temporalio import workflow

from . import options
from .approval import Stop, prove
from .ended import Ended, end_if_refused
from .names import REGION_PREFIX, guardian_id
from .progress import Progress
from .takeover import Takeover

with workflow.unsafe.imports_passed_through():
    from activities.evidence import ClusterName, Evidence
    from activities.planning import AssessRequest, Planning, RehearseRequest
    from qnwis.config.registry import Registered
    from qnwis.continuity.access import OVERRIDE_CONSTRAINTS, Deed
    from qnwis.continuity.evidence import ClusterEvidence
    from qnwis.continuity.hooks_file import Declared
    from qnwis.continuity.plan import Plan
    from qnwis.continuity.policy import Policy
    from qnwis.continuity.refusal import Refusal
    from qnwis.continuity.run import Assessment, FailoverRequest, Maintenance, RunKind, RunOutcome
    from qnwis.continuity.tokens import Expected
    from qnwis.continuity.topology import Cluster

DRILLS_GO_BACK = "a drill by failover is begun by a round trip alone"
"""Patch: before, a person could start one by hand."""


class Known:
    """Filled step by step. What a step reads is there, because the steps before it have seen to it."""

    def __init__(
        self, kind: RunKind, request: FailoverRequest, maintenance: Maintenance | None, progress: Progress
    ) -> None:
        self._kind = kind
        self._request = request
        self._maintenance = maintenance
        self._progress = progress
        self.takeover = Takeover(request)
        self.registered: Registered | None = None
        self.initiator_roles: tuple[str, ...] = ()
        """What whoever started it proved to be; none for the guardian and where no proof is asked for."""
        self.before: ClusterEvidence | None = None
        self.looked_at: datetime | None = None
        """When that was taken."""
        self.after: ClusterEvidence | None = None
        self.assessment = Assessment()
        self._may_run = False
        """Whether whoever started it has proved that they may."""

    @property
    def cluster(self) -> Cluster:
        return self._loaded.cluster

    @property
    def policy(self) -> Policy:
        return self._loaded.policy

    @property
    def limits(self) -> Policy:
        """The policy, or what is left of it under an override."""
        return self.policy.without_limits() if self.takeover.request.override else self.policy

    @property
    def declared(self) -> Declared:
        """Hooks and probes of this run: none before it is known that it may run, so that nobody has them
        called who may not start it."""
        return self._loaded.declared if self._may_run else Declared()

    @property
    def evidence(self) -> ClusterEvidence:
        """Of the world before anything is changed."""
        assert self.before is not None, "the first step looks"
        return self.before

    @property
    def plan(self) -> Plan:
        assert self.assessment.plan is not None, "a run without a plan has ended"
        return self.assessment.plan

    async def load(self) -> None:
        """The registered topology and policy."""
        self.registered = await workflow.execute_activity_method(
            Evidence.load_cluster,
            ClusterName(cluster_id=self._request.cluster_id, kind=self._kind),
            **options.read("registered topology and policy"),
        )

    async def look(self) -> None:
        """What every agent sees now."""
        self.before = await workflow.execute_activity_method(
            Evidence.collect, self.cluster, **options.read("ask every agent")
        )
        self.looked_at = workflow.now()

    async def make_plan(self) -> None:
        """The plan for what was seen. Raises Ended with the rule that refuses it."""
        self.assessment = await workflow.execute_activity_method(
            Planning.assess,
            AssessRequest(
                request=self._request.model_copy(update={"maintenance": self._maintenance}),
                cluster=self.cluster,
                policy=self.policy,
                evidence=self.evidence,
            ),
            **options.read("quorum, policy, target, plan"),
        )
        refusal, plan = self.assessment.refusal, self.assessment.plan
        if refusal is not None or plan is None:
            reason = str(refusal) if refusal is not None else "no plan was made"
            self._progress.say(reason)
            raise Ended(RunOutcome.REFUSED, reason, refusal=refusal)
        self._progress.plan_digest = plan.digest

    async def rehearse(self) -> None:
        """Play the plan on paper. Raises Ended where it does not end verified there."""
        rehearsal = await workflow.execute_activity_method(
            Planning.rehearse,
            RehearseRequest(plan=self.plan, cluster=self.cluster, policy=self.limits, evidence=self.evidence),
            **options.read("play the plan against the model"),
        )
        self._progress.note("simulation", rehearsal.summary)
        end_if_refused(rehearsal.refusal)

    async def prove_initiator(self, stop: Stop) -> None:
        """A person who starts a run proves it, where the policy asks for that; a dry run changes nothing."""
        request, parent = self._request, workflow.info().parent
        returns = request.maintenance is not None and request.maintenance.returns is not None
        if parent is None and returns:
            raise Ended(RunOutcome.REFUSED, "only a round trip may say that a run is its way back")
        by_hand = parent is None and not request.dry_run
        if by_hand and _is_a_drill_by_failover(self._kind, request) and workflow.patched(DRILLS_GO_BACK):
            raise Ended(RunOutcome.REFUSED, "only a round trip, which goes back, may fail over as a drill")
        if request.automatic and not request.dry_run and not _is_the_guardian(parent, request.cluster_id):
            raise Ended(RunOutcome.REFUSED, "only the cluster's guardian may start a run as automatic")
        if request.agreed_with is not None and not _is_part_of_an_evacuation(parent):
            raise Ended(RunOutcome.REFUSED, "only the evacuation of a region may say that it was agreed to")
        agreed = returns or request.agreed_with is not None
        if request.initiator_roles and not agreed:
            raise Ended(RunOutcome.REFUSED, "only a run of which it is a part may say who began it")
        trusted = agreed or (not self.policy.approvals and not request.override)
        if request.automatic or request.dry_run or trusted:
            self._may_run, self.initiator_roles = True, request.initiator_roles
            return
        deed = Deed.OVERRIDE if request.override else Deed.START
        if parent is not None and request.token is not None and not request.override:
            # What a schedule starts was signed when that was made, and for that alone. An override is never
            # signed ahead: it is for what is there now.
            deed = Deed.SCHEDULE if request.token.claim.deed is Deed.SCHEDULE else deed
        found = await prove(
            request.token,
            Expected(deed=deed, cluster_id=request.cluster_id, digest=request.digest),
            claimed=request.initiated_by,
            used_by=self.takeover.run_id,
            needs=(OVERRIDE_CONSTRAINTS,) if _past_a_healthy_primary(self._kind, request) else (),
            # One that was reset may have acted; asked each time, because what is replayed was not.
            stop=lambda: None if self.takeover.is_reset else stop(),
        )
        if isinstance(found, Refusal):
            raise Ended(RunOutcome.REFUSED, str(found), refusal=found)
        self._may_run, self.initiator_roles = True, found.roles

    async def taken_over(self) -> bool:
        """Whether the run had begun before this execution. After a reset that is asked again."""
        if self.takeover.forgot and not self._request.dry_run:
            end_if_refused(await self.takeover.look_back())
        remains = self.takeover.remains
        if remains is None:
            return False
        self.before, self.assessment = remains.before, remains.assessment
        self._progress.plan_digest = self.plan.digest
        return True

    @property
    def _loaded(self) -> Registered:
        assert self.registered is not None, "the first step loads it"
        return self.registered


def _is_the_guardian(parent: workflow.ParentInfo | None, cluster_id: str) -> bool:
    return parent is not None and parent.workflow_id == guardian_id(cluster_id)


def _is_part_of_an_evacuation(parent: workflow.ParentInfo | None) -> bool:
    return parent is not None and parent.workflow_id.startswith(REGION_PREFIX)


def _is_a_drill_by_failover(kind: RunKind, request: FailoverRequest) -> bool:
    return kind is RunKind.PRIMARY_FAILURE and request.maintenance is not None and request.maintenance.drill


def _past_a_healthy_primary(kind: RunKind, request: FailoverRequest) -> bool:
    """By the runbook, and not by what the request says of maintenance, which a failover does not heed.
    Planned work moves away from a healthy primary by its nature, and so does a drill, as part of a round
    trip; an override has a deed of its own."""
    planned = kind is RunKind.PLANNED_MAINTENANCE or _is_a_drill_by_failover(kind, request)
    return request.even_if_healthy and not planned and not request.override
