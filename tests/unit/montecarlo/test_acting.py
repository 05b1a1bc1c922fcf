"""What the guardian and the planner make of many failures at once is what the real rules make of each."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from random import Random

import numpy as np
import pytest

from activities.fencing import ANSWER_WITHIN_S
from qnwis.continuity.detection import Finding, judge_node
from qnwis.continuity.evidence import ClusterEvidence, NodeEvidence, NodeState
from qnwis.continuity.guardian_rules import RETRY_FIRST, Start, decide
from qnwis.continuity.planner import make_plan
from qnwis.continuity.policy import Policy, Strategy
from qnwis.continuity.scenarios import at_rest
from qnwis.continuity.topology import NodeRole, NodeStatus
from qnwis.montecarlo import acting
from qnwis.montecarlo.acting import act
from qnwis.montecarlo.draws import Draws, Flags, Floats
from qnwis.montecarlo.losing import chosen_target
from qnwis.montecarlo.study import candidates
from qnwis.montecarlo.watching import Silent
from qnwis.montecarlo.world import Clients, Finds, Spread, World, load_world
from qnwis.providers.evidence import STATE_TIMEOUT_S

from .parts import APPROVAL, POLICY, cluster, settings

AT = datetime(2000, 1, 1, tzinfo=UTC)
NOTHING = Spread(median=0, p99=0)


def immediate(**changed: object) -> World:
    """A world in which the control plane and its steps take no time."""
    cloud = load_world("cloud")
    control = cloud.control.model_copy(
        update={"report_ms": NOTHING, "assess_ms": NOTHING, "prepare_ms": NOTHING}
    )
    return cloud.model_copy(update={"control": control, **changed})


def test_the_promise_of_a_dead_node_is_awaited_for_as_long_as_a_run_does() -> None:
    assert acting.PROMISE_TIMEOUT_S == ANSWER_WITHIN_S


def primary(silent: Silent, index: int, at_s: float) -> NodeState | None:
    """What its agent says to who asks then."""
    told, refused = bool(silent.told[index]), bool(silent.refused[index])
    state = NodeState(node_id="node-1", role=NodeRole.PRIMARY, database_up=True, epoch=1)
    if told:
        return state.model_copy(update={"database_up": False, "database_ended": True})
    if refused or silent.lasts_s[index] - STATE_TIMEOUT_S >= at_s:
        return None
    return state


def really_judged_s(silent: Silent, heard: bool, index: int, failed_s: Floats) -> float:
    """Look by look, with the real verdict and the real decision."""
    topology = cluster()
    order = sorted(float(one) for one in failed_s[index])
    broken = bool(silent.told[index] or silent.refused[index])
    asking_s = 0.0 if broken else STATE_TIMEOUT_S
    looks = [one for one in order[1:] if math.isfinite(one)]
    if looks:
        looks.append(looks[-1] + asking_s + RETRY_FIRST.total_seconds())
    for look_s in looks:
        votes = {
            vantage: {"node-1": NodeStatus.FAILED}
            for vantage, at_s in zip(topology.vantages, failed_s[index], strict=True)
            if at_s <= look_s
        }
        standby = NodeState(
            node_id="node-2",
            role=NodeRole.SECONDARY,
            database_up=True,
            in_recovery=True,
            upstream="node-1",
            streaming=not broken,
            last_message_age_s=0.1 if heard else look_s,
            epoch=1,
        )
        states = {"node-1": primary(silent, index, look_s), "node-2": standby, "node-3": None}
        evidence = ClusterEvidence(
            cluster_id="c",
            nodes=tuple(
                NodeEvidence(
                    node_id=node_id,
                    status=NodeStatus.UNKNOWN if state is None else NodeStatus.HEALTHY,
                    source="agent",
                    observed_at=AT,
                    state=state,
                    error="no answer" if state is None else None,
                )
                for node_id, state in states.items()
            ),
            taken_at=AT,
        )
        verdict = judge_node(topology, topology.node("node-1"), votes, evidence)
        decision = decide(
            policy=POLICY,
            primary=verdict,
            history=(),
            pause=None,
            watching_since=AT - timedelta(days=1),
            changed_at=AT,
            now=AT,
        )
        assert isinstance(decision, Start) == (verdict.finding is Finding.FAILED)
        if isinstance(decision, Start):
            return look_s + asking_s
    return math.inf


def some_failures(seed: int, count: int) -> tuple[Silent, Flags, Floats]:
    draws = Draws(seed, "test")
    kind = draws.choice("kind", [1, 1, 1, 3], count)
    silent = Silent(
        lasts_s=np.where(kind == 3, draws.uniform("lasts", count) * 8, np.inf),
        refused=kind == 0,
        told=kind == 1,
    )
    failed_s = draws.uniform("failed", count, 3) * 6
    failed_s = np.where(draws.uniform("never", count, 3) < 0.2, np.inf, failed_s)
    heard = (kind == 3) & (draws.uniform("heard", count) < 0.3)
    return silent, heard, failed_s


def test_thousands_of_failures_are_judged_as_by_the_real_rules() -> None:
    count = 1500
    silent, heard, failed_s = some_failures(3, count)
    found = act(cluster(), POLICY, immediate(), silent, failed_s, heard, APPROVAL, Draws(3, "act"))
    started = 0
    for index in range(count):
        judged_s = really_judged_s(silent, bool(heard[index]), index, failed_s)
        # Then the run asks once more: who answers is left alone.
        expected_s = judged_s
        if math.isfinite(judged_s):
            broken = bool(silent.refused[index] or silent.told[index])
            state = primary(silent, index, judged_s)
            back = state is not None and state.database_up
            expected_s = math.inf if back else judged_s + (0.0 if broken else STATE_TIMEOUT_S)
        assert found.acted_s[index] == expected_s, index
        started += math.isfinite(expected_s)
    assert 500 < started < 1250


def test_nobody_is_promoted_before_the_lease_has_run_out_and_a_released_one_is_not_waited_for() -> None:
    never = np.zeros(500, dtype=np.bool_)
    world = immediate()
    world = world.model_copy(update={"lease": world.lease.model_copy(update={"duration_s": 100.0})})
    at_once = np.ones((500, 3))
    forever = np.full(500, np.inf)
    for told in (False, True):
        silent = Silent(forever, refused=~never if not told else never, told=np.full(500, told))
        found = act(cluster(), POLICY, world, silent, at_once, never, APPROVAL, Draws(1, "x"))
        assert (found.served_s > 100 - world.lease.renew_every_s).all() != told


def test_clients_by_name_wait_for_what_they_hold_of_the_record_and_those_by_hosts_do_not() -> None:
    never, forever, at_once = np.zeros(2000, dtype=np.bool_), np.full(2000, np.inf), np.ones((2000, 3))
    silent = Silent(forever, refused=~never, told=never)
    ended = {}
    for finds in Finds:
        world = immediate(clients=Clients(finds=finds, retry_ms=0, source="test"))
        ended[finds] = act(cluster(), POLICY, world, silent, at_once, never, APPROVAL, Draws(1, "x"))
    by_name, by_hosts = ended[Finds.NAME], ended[Finds.HOSTS]
    held_s = by_name.clients_s - by_name.done_s
    assert 0 <= held_s.min() < 0.1 and 9.9 < held_s.max() < 10  # the record's TTL
    assert (by_hosts.clients_s == by_hosts.served_s).all()


def test_people_are_waited_for_within_their_window_and_asked_again_after_the_cooldown() -> None:
    never, forever, at_once = np.zeros(3000, dtype=np.bool_), np.full(3000, np.inf), np.ones((3000, 3))
    silent = Silent(forever, refused=~never, told=never)
    manual = POLICY.model_copy(update={"strategy": Strategy.MANUAL})
    took = {
        policy.strategy: act(
            cluster(), policy, immediate(), silent, at_once, never, APPROVAL, Draws(1, "x")
        ).acted_s
        for policy in (POLICY, manual)
    }
    waited_s = took[Strategy.MANUAL] - took[Strategy.AUTOMATIC]
    first = waited_s <= APPROVAL.timeout_sec
    assert 0.7 < first.mean() < 0.95
    assert waited_s[~first].min() > APPROVAL.timeout_sec + manual.cooldown_s


def test_the_standby_that_takes_over_is_the_planners() -> None:
    topology, random = cluster(data_nodes=5), Random(5)
    policy = Policy(policy_id="p", name="P", region_priority=("r-2", "r-1"), max_lag_bytes=1000)
    order = candidates(settings(cluster=topology, policy=policy))
    assert isinstance(order, tuple) and set(order) == {"node-2", "node-3", "node-4", "node-5"}
    chosen = set()
    for _ in range(300):
        lags = [random.choice([0, 400, 900, 1001, 5000]) for _ in order]
        world = at_rest(topology, policy, Random(0))
        world.lose({"node-1"})
        for node_id, lag in zip(order, lags, strict=True):
            at = {"receive_lsn": 10**9 - lag, "replay_lsn": 10**9 - lag}
            world.states[node_id] = world.states[node_id].model_copy(update=at)
        planned = make_plan(topology, policy, world.evidence(AT), trigger_reason="test")
        assert planned.plan is not None
        (index,) = chosen_target(np.asarray([lags], dtype=np.float64), policy.max_lag_bytes)
        assert order[index] == planned.plan.failover_target_id
        chosen.add(order[index])
    assert len(chosen) > 2


@pytest.mark.parametrize("name", ["cloud", "wan", "lab"])
def test_every_figure_of_a_shipped_world_has_a_source(name: str) -> None:
    world = load_world(name)
    assert world.name == name and all(len(text) > 5 for text in world.sources().values())
