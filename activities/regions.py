"""Looking at every cluster that has nodes in a region, and planning how the region is left."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from time import monotonic

from temporalio import activity
from temporalio.client import Client, WorkflowFailureError, WorkflowQueryFailedError
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode

from qnwis.config.problem import ConfigError
from qnwis.config.regions import region_rules
from qnwis.config.registry import Registered, Registry
from qnwis.continuity.evidence import ClusterEvidence
from qnwis.continuity.leaving import answering_in, come_back, leave, unmoved
from qnwis.continuity.managers import automatic_refusal
from qnwis.continuity.model import Identifier, Model
from qnwis.continuity.policy import Strategy
from qnwis.continuity.refusal import Refusal
from qnwis.continuity.region_decision import region_answers, stays_manual
from qnwis.continuity.region_plan import Direction, RegionPlan, Unmovable
from qnwis.continuity.region_sight import ClusterInRegion
from qnwis.continuity.regions import Candidate, RegionRules, make_region_plan, region_refusal
from qnwis.continuity.shifting import WeightMove, shift_back, shift_out, unshifted
from qnwis.continuity.topology import Cluster, majority
from qnwis.providers.errors import Refused, Unreachable
from qnwis.providers.evidence import collect_evidence
from qnwis.providers.nodes import Nodes
from qnwis.providers.region_weights import RegionWeights

from .effect import heartbeating
from .guardian_views import GuardianEnded, GuardianViews

LOOK_EVERY_S = 2.0
"""How often the guardians are looked at."""
REST, LONGEST_REST_S = 9, 4.0
"""The pause after a look is so many times as long as it took, within these bounds: a look at hundreds takes a
while, and must not be all that this process and its server do. No longer, since a cluster listens for
`region_listen_s` whether its region is lost, and the word comes from here."""
LOOKS = 3
"""How often most of a cluster must have been silent to be taken for silent."""
SETTLE_S, SETTLE_PAUSE_S = 8.0, 0.5
"""How long a cluster that was moved may take to be found there."""


class RegionName(Model):
    region: str
    direction: Direction = Direction.OUT
    reason: str = ""
    clusters: tuple[Identifier, ...] = ()
    """Only these; empty for every cluster that is registered."""
    automatic: bool = False
    """Nobody asked for it but the region's guardian: then no agent in the region may answer, and clusters
    whose policy leaves it to people stay where they are."""


class RegionAssessment(Model):
    """Exactly one of plan and refusal; and what could not be looked at."""

    plan: RegionPlan | None = None
    refusal: Refusal | None = None
    inside: tuple[str, ...] = ()
    """cluster_ids that the direction concerns; those of whose primary nobody knows where it is, too."""
    approvals: bool = True
    """Whether people must agree: the policy of one cluster that would move asks for it."""
    unread: tuple[str, ...] = ()
    """Clusters whose files cannot be read, a sentence each; they are not part of the plan."""


class WhereRequest(Model):
    region: str
    direction: Direction
    clusters: tuple[Identifier, ...]


class Where(Model):
    unmoved: dict[str, str]
    """By cluster_id: why it is not known to serve where it was to go. Clusters that do are not in it."""


class AwaitRun(Model):
    workflow_id: str


class RegionReport(Model):
    """What the guardians of the clusters hold of their nodes in one region."""

    clusters: tuple[ClusterInRegion, ...] = ()
    silent: Mapping[str, str] = {}
    """By cluster_id: why nothing is known of it. It counts for nothing, neither as lost nor as alive."""
    rules: RegionRules = RegionRules()
    hears: bool = False
    """Whether `heard` and `seen_from` of the clusters were looked at; an older version's worker does not."""


class WatchRegion(Model):
    region: str
    guardian: str
    """Workflow id of a cluster's guardian, with `{cluster_id}` in it."""
    seen: RegionReport | None = None
    """What was reported last."""


class Regions:
    def __init__(self, registry: Registry, nodes: Nodes, weights: RegionWeights, client: Client) -> None:
        self._registry = registry
        self._nodes = nodes
        self._weights = weights
        self._client = client
        self._views = GuardianViews(client)

    @activity.defn
    async def assess_region(self, asked: RegionName) -> RegionAssessment:
        """The plan by which all clusters leave the region or come back, or why none can."""
        try:
            rules = region_rules(self._registry.directory)
            cluster_ids = asked.clusters or tuple(self._registry.cluster_ids())
        except ConfigError as error:
            raise ApplicationError(str(error), type="regions_not_loaded", non_retryable=True) from error
        registered, unread = self._load(cluster_ids)
        if (refusal := region_refusal(asked.region, (one.cluster for one in registered))) is not None:
            return RegionAssessment(refusal=refusal, unread=tuple(unread))
        found = await asyncio.gather(*(self._candidate(one, asked) for one in registered))
        candidates = [candidate for candidate, _ in found if candidate is not None]
        alive = [name for _, answering in found for name in answering]
        if asked.automatic and (refusal := region_answers(asked.region, alive)) is not None:
            return RegionAssessment(refusal=refusal, unread=tuple(unread))
        policies = {one.cluster.cluster_id: one.policy for one in registered}
        shifts = [one for one in await asyncio.gather(*(self._shift(r, asked) for r in registered)) if one]
        made = make_region_plan(asked.region, asked.reason, candidates, rules, asked.direction, shifts)
        inside = [*(one.cluster_id for one in shifts), *(one.cluster_id for one in candidates)]
        return RegionAssessment(
            plan=made if isinstance(made, RegionPlan) else None,
            refusal=made if isinstance(made, Refusal) else None,
            inside=tuple(inside),
            approvals=any(policies[cluster_id].approvals for cluster_id in inside),
            unread=tuple(unread),
        )

    @activity.defn
    async def unmoved(self, asked: WhereRequest) -> Where:
        """Which of these clusters do not serve where they were to go. Silence is no proof that one does: what
        does not answer yet is asked again for a while."""
        registered, unread = self._load(asked.clusters)
        told = await asyncio.gather(*(self._settled(one, asked) for one in registered))
        found = {one.cluster.cluster_id: reason for one, reason in zip(registered, told, strict=True)}
        why = {cluster_id: reason for cluster_id, reason in found.items() if reason is not None}
        return Where(unmoved={**why, **dict(line.split(": ", 1) for line in unread)})

    @activity.defn
    async def await_run(self, asked: AwaitRun) -> None:
        """Return when the run of this id has ended, however."""
        async with heartbeating():
            try:
                await self._client.get_workflow_handle(asked.workflow_id).result()
            except WorkflowFailureError:
                pass
            except RPCError as error:
                if error.status is not RPCStatusCode.NOT_FOUND:  # kept no longer: it has ended
                    raise

    @activity.defn
    async def watch_region(self, asked: WatchRegion) -> RegionReport:
        """Return when the guardians hold something else than was reported last, or the rules have changed."""
        async with heartbeating():
            while True:
                began = monotonic()
                report = await self._report(asked)
                if report != asked.seen:
                    return report
                await asyncio.sleep(rest_s(monotonic() - began))

    async def _report(self, asked: WatchRegion) -> RegionReport:
        try:
            rules, cluster_ids = region_rules(self._registry.directory), self._registry.cluster_ids()
        except ConfigError as error:
            raise ApplicationError(str(error), type="regions_not_loaded") from error
        registered, unread = self._load(tuple(cluster_ids))
        here = [one for one in registered if asked.region in one.cluster.regions]
        held = await asyncio.gather(*(self._held(one, asked) for one in here))
        silent = dict(line.split(": ", 1) for line in unread)
        silent |= {one.cluster.cluster_id: h for one, h in zip(here, held, strict=True) if isinstance(h, str)}
        clusters = tuple(one for one in held if isinstance(one, ClusterInRegion))
        return RegionReport(clusters=clusters, silent=silent, rules=rules, hears=True)

    async def _held(self, registered: Registered, asked: WatchRegion) -> ClusterInRegion | str:
        """What the cluster's guardian holds now; why that is not known, where it does not answer."""
        cluster = registered.cluster
        try:
            view = await self._views.of(asked.guardian.format(cluster_id=cluster.cluster_id))
        except (RPCError, WorkflowQueryFailedError, GuardianEnded) as error:
            return f"its guardian does not answer: {error}"
        return view.of_region(cluster, asked.region, registered.policy, datetime.now(UTC))

    async def _candidate(
        self, registered: Registered, asked: RegionName
    ) -> tuple[Candidate | None, tuple[str, ...]]:
        """The cluster's move, and which of its nodes in the region answer. An active/active one does not
        move: see `_shift`."""
        cluster, policy = registered.cluster, registered.policy
        if asked.region not in cluster.regions or (cluster.is_active_active and not asked.automatic):
            return None, ()
        evidence = await self._heard(cluster)
        if cluster.is_active_active:
            return None, answering_in(cluster, evidence, asked.region)
        move = leave if asked.direction is Direction.OUT else come_back
        candidate = move(cluster, policy, evidence, asked.region, reason=asked.reason)
        by_people = automatic_refusal(cluster)
        if by_people is None and policy.region_strategy is Strategy.MANUAL:
            by_people = stays_manual(asked.region, cluster.cluster_id)
        if candidate is not None and asked.automatic and by_people is not None:
            candidate = candidate.model_copy(update={"plan": None, "refusal": by_people})
        return candidate, answering_in(cluster, evidence, asked.region)

    async def _heard(self, cluster: Cluster) -> ClusterEvidence:
        """What the nodes say. That most of a cluster are silent may be this worker's doing, which asks many
        clusters at once and works for their runs meanwhile: so they are asked again."""
        for _ in range(LOOKS - 1):
            evidence = await collect_evidence(self._nodes, cluster)
            if sum(one.state is not None for one in evidence.nodes) >= majority(len(cluster.nodes)):
                return evidence
        return await collect_evidence(self._nodes, cluster)

    async def _shift(self, registered: Registered, asked: RegionName) -> WeightMove | Unmovable | None:
        """Of an active/active cluster the shift of its weights, or why they cannot be shifted."""
        cluster, policy = registered.cluster, registered.policy
        if asked.region not in cluster.regions or not cluster.is_active_active:
            return None
        if asked.automatic and policy.region_strategy is Strategy.MANUAL:
            refusal = stays_manual(asked.region, cluster.cluster_id)
            return Unmovable(cluster_id=cluster.cluster_id, refusal=refusal)
        try:
            in_force = await self._weights.in_force(cluster)
        except (Refused, Unreachable) as error:
            return Unmovable(cluster_id=cluster.cluster_id, refusal=_not_read(cluster, error))
        if asked.direction is Direction.OUT:
            made = shift_out(cluster, in_force, asked.region)
        else:
            made = shift_back(cluster, in_force, asked.region, policy.return_steps_percent)
        if isinstance(made, Refusal):
            return Unmovable(cluster_id=cluster.cluster_id, refusal=made)
        return made

    async def _settled(self, registered: Registered, asked: WhereRequest) -> str | None:
        until = monotonic() + SETTLE_S
        while True:
            why = await self._unmoved(registered, asked)
            if why is None or monotonic() > until:
                return why
            await asyncio.sleep(SETTLE_PAUSE_S)

    async def _unmoved(self, registered: Registered, asked: WhereRequest) -> str | None:
        cluster = registered.cluster
        if not cluster.is_active_active:
            evidence = await collect_evidence(self._nodes, cluster)
            return unmoved(cluster, evidence, asked.region, asked.direction)
        try:
            in_force = await self._weights.in_force(cluster)
        except (Refused, Unreachable) as error:
            return f"its weights are not known: {error}"
        return unshifted(cluster, in_force, asked.region, asked.direction)

    def _load(self, cluster_ids: tuple[str, ...]) -> tuple[list[Registered], list[str]]:
        loaded: list[Registered] = []
        unread: list[str] = []
        for cluster_id in cluster_ids:
            try:
                loaded.append(self._registry.load(cluster_id))
            except ConfigError as error:
                unread.append(f"{cluster_id}: {error}")
        return loaded, unread


def rest_s(look_s: float) -> float:
    """How long to rest after a look that took `look_s`, seconds."""
    return max(LOOK_EVERY_S, min(REST * look_s, LONGEST_REST_S))


def _not_read(cluster: Cluster, error: Refused | Unreachable) -> Refusal:
    if isinstance(error, Refused):
        return error.refusal
    return Refusal(
        rule="weights_unknown",
        message=f"The weights in force for {cluster.cluster_id} are not known: {error}",
        values={"cluster_id": cluster.cluster_id},
        remedy="Bring back whoever holds its DNS record, or the way to it.",
    )
