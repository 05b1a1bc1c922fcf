"""Having Patroni hand its leader over: what is certain to have had no effect, and what may still have one."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from temporalio.testing import ActivityEnvironment

from activities.patroni import HandOverRequest, PatroniMoves
from qnwis.continuity.evidence import NodeState
from qnwis.continuity.executor import Outcome, OutcomeStatus
from qnwis.continuity.patroni_actions import PatroniFailover, PatroniSwitchover
from qnwis.continuity.policy import Policy
from qnwis.continuity.refusal import Refusal
from qnwis.continuity.run import Maintenance
from qnwis.continuity.switchover import make_switchover
from qnwis.continuity.topology import Node
from qnwis.providers.errors import Refused, Unreachable
from tests.unit.continuity.patroni_scenes import by_patroni, follows, leads, member, said, word
from tests.unit.continuity.scenes import node

EAST = ("e1", "e2", "e3")
THIRD = node(
    "e3", region="east", database={"host": "10.0.0.9", "port": 5432}, patroni={"url": "http://e3:8008"}
)
CLUSTER = by_patroni(nodes=(member("e1", "primary"), member("e2"), THIRD, member("w1"), member("w2")))
POLICY = Policy(policy_id="p", name="p")


def quick(state: NodeState, leader: str | None = "e1") -> NodeState:
    """As said by a Patroni whose rounds take no time."""
    of_east = {"leader": leader, "members": EAST, "standby_of": None} if state.node_id in EAST else {}
    said_so = word(state.node_id).model_copy(update={"loop_wait_s": 0.0, **of_east})
    return state.model_copy(update={"patroni": said_so})


STOPPING = quick(leads("e1", writable=False, database_up=False, in_recovery=None, write_lsn=None))
"""The old leader writes its last checkpoint, and holds the leader lock so long."""
REST = [quick(follows("w1")), quick(follows("w2"))]
STANDBYS = [quick(follows("e2")), quick(follows("e3", upstream="e1"))]
UNLED = [quick(follows("e2"), leader=None), quick(follows("e3"), leader=None)]


@dataclass
class Region:
    """What its members say; what it is asked is refused."""

    states: dict[str, NodeState]
    asked: list[str] = field(default_factory=list)

    async def state(self, node: Node, *, timeout_s: float) -> NodeState:
        if node.node_id not in self.states:
            raise Unreachable(f"{node.node_id}: no answer")
        return self.states[node.node_id]

    async def switchover(self, node: Node, *, leader: str, candidate: str, timeout_s: float) -> str:
        return await self.failover(node, candidate=candidate, timeout_s=timeout_s)

    async def failover(self, node: Node, *, candidate: str, timeout_s: float) -> str:
        self.asked.append(candidate)
        raise Refused(Refusal(rule="patroni_refused", message="412: no", remedy="-"))


async def handed_over(
    *states: NodeState, attempt: int, action: PatroniSwitchover | PatroniFailover | None = None
) -> Outcome:
    evidence = said(CLUSTER, quick(leads("e1")), *STANDBYS, *REST)
    wanted = Maintenance(target_node_id="e2")
    plan = make_switchover(CLUSTER, POLICY, evidence, wanted, trigger_reason="test").plan
    assert plan is not None
    request = HandOverRequest(
        run_id="run",
        epoch=4,
        cluster=CLUSTER,
        plan=plan,
        policy=POLICY,
        action=action
        or PatroniSwitchover(action_id="1-switchover", leader="e1", node_id="e2", estimate_ms=1),
    )
    there = cast(Any, Region({state.node_id: state for state in states}))
    environment = ActivityEnvironment()
    environment.info = dataclasses.replace(environment.info, attempt=attempt)
    outcome: Outcome = await environment.run(PatroniMoves(there, there).hand_over, request)
    return outcome


async def test_a_switchover_that_is_on_its_way_is_not_called_failed() -> None:
    """Its worker was killed when it had asked; nobody leads just now, which forbids to begin."""
    with pytest.raises(Unreachable, match="e2 may be about to lead, and now: "):
        await handed_over(STOPPING, *STANDBYS, *REST, attempt=2)


async def test_what_forbids_to_begin_is_final_where_nothing_was_asked() -> None:
    refused = await handed_over(STOPPING, *STANDBYS, *REST, attempt=1)
    assert (refused.status, refused.facts["rule"]) == (OutcomeStatus.FAILED, "primary_not_serving")


@pytest.mark.parametrize(
    ("states", "rule"),
    [
        ([quick(leads("e1")), quick(follows("e3"))], "no_suitable_target"),
        (
            [
                quick(leads("e3"), leader="e3"),
                quick(follows("e1", upstream="e3"), leader="e3"),
                quick(follows("e2", upstream="e3"), leader="e3"),
            ],
            "primary_moved",
        ),
    ],
    ids=["the old leader", "another"],
)
async def test_where_somebody_else_leads_a_refusal_is_final(states: list[NodeState], rule: str) -> None:
    """The target does not answer, or it was passed over: Patroni has dropped what it was asked."""
    refused = await handed_over(*states, *REST, attempt=2)
    assert (refused.status, refused.facts["rule"]) == (OutcomeStatus.FAILED, rule), refused


@pytest.mark.parametrize("attempt", [1, 2])
async def test_a_failover_that_may_be_on_its_way_is_not_refused_by_patroni(attempt: int) -> None:
    action = PatroniFailover(action_id="1-failover", leader="e1", node_id="e2", estimate_ms=1)
    if attempt == 1:
        refused = await handed_over(*UNLED, *REST, attempt=1, action=action)
        assert refused.status is OutcomeStatus.FAILED and "412" in refused.detail, refused
    else:
        with pytest.raises(Unreachable, match="412"):
            await handed_over(*UNLED, *REST, attempt=2, action=action)
