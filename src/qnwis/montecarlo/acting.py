"""What is made of a primary that vantages call failed: the guardian's look at the evidence, the run's, the
approval, and the steps until clients write again. Arrays of failures, seconds from the failure on.

The rules are those of `detection.judge_node` and `detection.contradiction`: votes of a majority count, and
nothing is done to a primary whose agent answers, or that a standby heard within `LIVE_STREAM_S`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qnwis.continuity.access import ApprovalWorkflow
from qnwis.continuity.detection import LIVE_STREAM_S
from qnwis.continuity.guardian_rules import RETRY_FIRST
from qnwis.continuity.policy import Policy, Strategy
from qnwis.continuity.simulate import ESTIMATE_FACTORS
from qnwis.continuity.topology import Cluster, ReplicationMode, majority
from qnwis.providers.evidence import STATE_TIMEOUT_S

from .draws import Draws, Flags, Floats
from .watching import Silent
from .world import Finds, Spread, World

PROMISE_TIMEOUT_S = 0.8
"""What a run waits for a member that does not promise (`activities.fencing`)."""
MOST_ASKS = 12
"""So often people are asked of one failure; who does not answer then is not waited for any more."""


@dataclass(frozen=True)
class Acted:
    """What came of each failure; infinite where it did not come to that."""

    detected_s: Floats
    """A majority of the vantages calls the primary failed."""
    acted_s: Floats
    """The run's first action began: a failover, and no way of knowing better."""
    served_s: Floats
    """The new primary acknowledges writes."""
    done_s: Floats
    """The service's name leads to it; the plan has but to be verified."""
    clients_s: Floats
    """The last of the clients writes again."""
    run_s: Floats
    """What the run took, without waiting for people."""

    @property
    def moved(self) -> Flags:
        return np.isfinite(self.acted_s)


def act(
    cluster: Cluster,
    policy: Policy,
    world: World,
    silent: Silent,
    failed_s: Floats,
    heard: Flags,
    approval: ApprovalWorkflow,
    draws: Draws,
) -> Acted:
    """`failed_s` by failure and vantage, `heard`: a standby goes on hearing the primary."""
    count = len(silent)
    votes_s = np.sort(failed_s, axis=1)[:, majority(len(cluster.vantages)) - 1 :]
    detected_s = votes_s[:, 0]
    # A node that refuses answers the question at once; one that is silent keeps it until its timeout.
    asking_s = np.where(silent.refused | silent.told, 0.0, STATE_TIMEOUT_S)
    reports_s = _ms(draws, "report", world.control.report_ms, count)
    judged_s = _judged(votes_s + reports_s[:, None], silent, heard, asking_s)
    assessed_s = judged_s + _ms(draws, "assess", world.control.assess_ms, count)
    assessed_s = _unless_back(assessed_s, silent, asking_s)
    agreed_s = assessed_s + _people(policy, world, approval, draws, count)
    if policy.strategy is Strategy.MANUAL:
        # After the last approval the evidence is taken again.
        agreed_s = _unless_back(agreed_s, silent, asking_s)
    acted_s = agreed_s + _ms(draws, "prepare", world.control.prepare_ms, count)

    steps = _steps(policy, world, draws, count)
    promised_s = acted_s + steps["fence_primary"] + np.where(asking_s > 0, PROMISE_TIMEOUT_S, 0.0)
    renewed_ago_s = draws.uniform("renewed", count) * world.lease.renew_every_s
    expired_s = np.where(silent.told, 0.0, world.lease.duration_s - renewed_ago_s)
    promoted_s = np.maximum(promised_s, expired_s) + steps["promote_target"]
    followed_s = promoted_s + steps["repoint_standbys"]
    synchronous = cluster.replication.mode is ReplicationMode.SYNCHRONOUS
    served_s = followed_s if synchronous else promoted_s
    done_s = followed_s if cluster.dns is None else followed_s + steps["flip_dns"]
    return Acted(
        detected_s=detected_s,
        acted_s=acted_s,
        served_s=served_s,
        done_s=done_s,
        clients_s=_clients(cluster, world, served_s, done_s, draws),
        # What was waited for people is none of the run's own time.
        run_s=np.where(np.isfinite(done_s), _less(done_s, judged_s) - _less(agreed_s, assessed_s), np.inf),
    )


def _less(later_s: Floats, earlier_s: Floats) -> Floats:
    """The difference, 0 where neither came."""
    with np.errstate(invalid="ignore"):
        return np.where(np.isfinite(later_s), later_s - earlier_s, 0.0)


def _judged(looks_s: Floats, silent: Silent, heard: Flags, asking_s: Floats) -> Floats:
    """When the guardian's verdict is `failed`: it looks when a majority votes so, with each vote after that,
    and once more after a while, because what a standby heard grows old."""
    judged_s = np.full(len(silent), np.inf)
    last = np.maximum.accumulate(looks_s, axis=1)
    again_s = np.where(np.isfinite(last), last, -np.inf).max(axis=1) + asking_s + RETRY_FIRST.total_seconds()
    again_s = np.where(np.isfinite(looks_s[:, 0]), again_s, np.inf)
    for look_s in (*looks_s.T, again_s):
        hears = heard | (~(silent.refused | silent.told) & (look_s <= LIVE_STREAM_S))
        counts = ~hears & ~_answers(look_s, silent, asking_s) & np.isinf(judged_s)
        judged_s = np.where(counts, look_s + asking_s, judged_s)
    return judged_s


def _answers(at_s: Floats, silent: Silent, asking_s: Floats) -> Flags:
    """Whether the agent says that all is well, when it is asked then."""
    return silent.lasts_s - asking_s < at_s


def _unless_back(at_s: Floats, silent: Silent, asking_s: Floats) -> Floats:
    """The evidence, taken anew: who answers is left alone."""
    return np.where(_answers(at_s, silent, asking_s), np.inf, at_s + asking_s)


def _people(policy: Policy, world: World, approval: ApprovalWorkflow, draws: Draws, count: int) -> Floats:
    """Until enough people have agreed. Who does not within the window is asked again after the cooldown."""
    waited_s = np.zeros(count)
    if policy.strategy is not Strategy.MANUAL:
        return waited_s
    waits = np.ones(count, dtype=np.bool_)
    for ask in range(MOST_ASKS):
        answers = draws.spread(f"people {ask}", world.people.answer_s, count, approval.required_approvers)
        agreed_s = answers.max(axis=1)
        agrees = waits & (agreed_s <= approval.timeout_sec)
        waited_s = np.where(agrees, waited_s + agreed_s, waited_s)
        waits &= ~agrees
        waited_s = np.where(waits, waited_s + approval.timeout_sec + policy.cooldown_s, waited_s)
    return waited_s


def _steps(policy: Policy, world: World, draws: Draws, count: int) -> dict[str, Floats]:
    """What each action takes, seconds."""
    names = ("fence_primary", "promote_target", "repoint_standbys", "flip_dns")
    if world.steps_ms is not None:
        return {name: _ms(draws, name, getattr(world.steps_ms, name), count) for name in names}
    least, most = ESTIMATE_FACTORS
    return {
        name: getattr(policy.estimates_ms, name)
        / 1000
        * (least + (most - least) * draws.uniform(name, count))
        for name in names
    }


def _clients(cluster: Cluster, world: World, served_s: Floats, done_s: Floats, draws: Draws) -> Floats:
    """The last of the clients: what it still holds of the name's record, and its next try."""
    clients = world.clients
    count = len(served_s)
    latest = draws.uniform("retry", count) ** (1 / clients.count)
    retry_s = clients.retry_ms / 1000 * latest
    if clients.finds is Finds.HOSTS or cluster.dns is None:
        return served_s + retry_s
    holds = draws.uniform("holds", count) ** (1 / clients.count)
    return done_s + holds * cluster.dns.ttl_s + retry_s


def _ms(draws: Draws, name: str, spread: Spread, count: int) -> Floats:
    return draws.spread(name, spread, count) / 1000
