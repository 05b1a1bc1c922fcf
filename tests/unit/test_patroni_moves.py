"""Having Patroni hand its leader over: what is certain to have had no effect, and what may still have one."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, cast

import pytest

from activities import patroni
from activities.patroni import ATTEMPT_S, HANDED_OVER_WITHIN_S, HandOverRequest, PatroniMoves
from qnwis.continuity.evidence import NodeState
from qnwis.continuity.executor import LEFT_TO_DO, Outcome, OutcomeStatus
from qnwis.continuity.patroni_actions import PatroniFailover, PatroniSwitchover
from qnwis.continuity.policy import Policy
from qnwis.continuity.refusal import Refusal
from qnwis.continuity.run import Maintenance
from qnwis.continuity.switchover import make_switchover
from qnwis.continuity.topology import Node
from qnwis.providers.errors import Refused, Unreachable
from qnwis.providers.patroni import Tried
from tests.unit.continuity.patroni_scenes import by_patroni, follows, leads, member, said, word
from tests.unit.continuity.scenes import node
from tests.unit.test_power import attempted
from workflows import options

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
MOVED = [
    quick(leads("e2"), leader="e2"),
    quick(follows("e1", upstream="e2"), leader="e2"),
    quick(follows("e3", upstream="e2"), leader="e2"),
]
UNLED = [quick(follows("e2"), leader=None), quick(follows("e3"), leader=None)]


NO = Refused(Refusal(rule="patroni_refused", message="412: no", remedy="-"))


@dataclass
class Region:
    """What its members say, and what Patroni answers to what it is asked."""

    states: dict[str, NodeState]
    answer: Exception | None = NO
    """None: it does what it is asked."""
    asked: list[str] = field(default_factory=list)

    async def state(self, node: Node, *, timeout_s: float) -> NodeState:
        if node.node_id not in self.states:
            raise Unreachable(f"{node.node_id}: no answer")
        return self.states[node.node_id]

    async def switchover(self, node: Node, *, leader: str, candidate: str, timeout_s: float) -> str:
        return await self.failover(node, candidate=candidate, timeout_s=timeout_s)

    async def failover(self, node: Node, *, candidate: str, timeout_s: float) -> str:
        self.asked.append(candidate)
        if self.answer is not None:
            raise self.answer
        self.states |= {state.node_id: state for state in MOVED}
        return "Successfully switched over"


SWITCHOVER = PatroniSwitchover(action_id="1-switchover", leader="e1", node_id="e2", estimate_ms=1)
FAILOVER = PatroniFailover(action_id="1-failover", leader="e1", node_id="e2", estimate_ms=1)


async def handed_over(
    *states: NodeState,
    attempt: int = 2,
    action: PatroniSwitchover | PatroniFailover = SWITCHOVER,
    after_s: float = 0.0,
) -> Outcome:
    there = Region({state.node_id: state for state in states})
    return await asked_of(there, attempt=attempt, action=action, after_s=after_s)


async def asked_of(
    there: Region,
    *,
    attempt: int = 2,
    action: PatroniSwitchover | PatroniFailover = SWITCHOVER,
    after_s: float = 0.0,
) -> Outcome:
    """`after_s`: since the first attempt began."""
    evidence = said(CLUSTER, quick(leads("e1")), *STANDBYS, *REST)
    wanted = Maintenance(target_node_id="e2")
    plan = make_switchover(CLUSTER, POLICY, evidence, wanted, trigger_reason="test").plan
    assert plan is not None
    request = HandOverRequest(run_id="run", epoch=4, cluster=CLUSTER, plan=plan, policy=POLICY, action=action)
    environment = attempted(attempt, scheduled_s=after_s, first_s=after_s)
    nodes = cast(Any, there)
    outcome: Outcome = await environment.run(PatroniMoves(nodes, nodes).hand_over, request)
    return outcome


async def test_a_switchover_that_is_on_its_way_is_not_called_failed() -> None:
    """Its worker was killed when it had asked; nobody leads just now, which forbids to begin."""
    with pytest.raises(Unreachable, match="e2 may be about to lead, and now: "):
        await handed_over(STOPPING, *STANDBYS, *REST, attempt=2)


async def test_what_forbids_to_begin_is_final_where_nothing_was_asked() -> None:
    refused = await handed_over(STOPPING, *STANDBYS, *REST, attempt=1)
    assert (refused.status, refused.facts["rule"]) == (OutcomeStatus.FAILED, "primary_not_serving")


async def test_where_a_third_one_leads_a_refusal_is_final() -> None:
    """The target was passed over: Patroni has dropped what it was asked."""
    states = [
        quick(leads("e3"), leader="e3"),
        quick(follows("e1", upstream="e3"), leader="e3"),
        quick(follows("e2", upstream="e3"), leader="e3"),
    ]
    refused = await handed_over(*states, *REST)
    assert (refused.status, refused.facts["rule"]) == (OutcomeStatus.FAILED, "primary_moved"), refused


CHECKPOINTING = [quick(leads("e1")), quick(follows("e3")), *REST]
"""The old leader writes a checkpoint before it stops, as a primary that leads and takes writes; the target
does not answer meanwhile."""


async def test_while_the_old_leader_may_be_at_it_what_forbids_to_begin_ends_no_switchover() -> None:
    there = Region({state.node_id: state for state in CHECKPOINTING})
    with pytest.raises(Unreachable, match="e2 may be about to lead, and now: "):
        await asked_of(there)
    assert there.asked == ["e2"], "only Patroni tells whether it still is at it"
    there.answer = None
    assert (await asked_of(there)).status is OutcomeStatus.SUCCEEDED


async def test_a_switchover_that_patroni_says_has_failed_has_failed() -> None:
    there = Region({state.node_id: state for state in CHECKPOINTING}, answer=Tried("Switchover failed"))
    refused = await asked_of(there)
    assert (refused.status, refused.facts["rule"]) == (OutcomeStatus.FAILED, "patroni_failed")


async def test_a_failover_is_not_asked_for_again_to_a_target_that_became_unfit() -> None:
    """Patroni would carry it out whatever it lost."""
    there = Region({state.node_id: state for state in CHECKPOINTING}, answer=None)
    with pytest.raises(Unreachable, match="e2 may be about to lead, and now: "):
        await asked_of(there, action=FAILOVER)
    assert there.asked == []


@pytest.mark.parametrize("action", [SWITCHOVER, FAILOVER], ids=["switchover", "failover"])
@pytest.mark.parametrize(
    "states", [[STOPPING, *STANDBYS, *REST], CHECKPOINTING], ids=["nobody leads", "the old leader"]
)
async def test_what_comes_of_a_hand_over_is_left_to_people_in_the_end(
    action: PatroniSwitchover | PatroniFailover, states: list[NodeState]
) -> None:
    """The run holds its cluster's lock meanwhile, and nothing after it in the plan moves anything."""
    with pytest.raises(Unreachable):
        await handed_over(*states, action=action, after_s=HANDED_OVER_WITHIN_S - 60)
    left = await handed_over(*states, action=action, after_s=HANDED_OVER_WITHIN_S)
    assert left.status is OutcomeStatus.UNKNOWN
    assert "whether Patroni makes e2 the leader is not known" in str(left.facts[LEFT_TO_DO])


async def test_an_attempt_that_hangs_is_left_to_people_in_the_end_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    @dataclass
    class Hanging(Region):
        async def failover(self, node: Node, *, candidate: str, timeout_s: float) -> str:
            await asyncio.Event().wait()
            raise AssertionError

    monkeypatch.setattr(patroni, "ATTEMPT_S", 0.05)
    there = Hanging({state.node_id: state for state in CHECKPOINTING})
    with pytest.raises(TimeoutError):
        await asked_of(there)
    left = await asked_of(there, after_s=HANDED_OVER_WITHIN_S)
    assert left.status is OutcomeStatus.UNKNOWN and "no answer within 0.05 s" in left.detail


def test_temporal_gives_a_hand_over_no_sooner_up_than_its_activity_does() -> None:
    config = options.hand_over("-")
    attempt, in_all = config["start_to_close_timeout"], config["schedule_to_close_timeout"]
    assert attempt is not None and in_all is not None
    assert attempt.total_seconds() > ATTEMPT_S
    assert in_all >= timedelta(seconds=HANDED_OVER_WITHIN_S) + 2 * attempt


@pytest.mark.parametrize("attempt", [1, 2])
async def test_a_failover_that_may_be_on_its_way_is_not_refused_by_patroni(attempt: int) -> None:
    if attempt == 1:
        refused = await handed_over(*UNLED, *REST, attempt=1, action=FAILOVER)
        assert refused.status is OutcomeStatus.FAILED and "412" in refused.detail, refused
    else:
        with pytest.raises(Unreachable, match="412"):
            await handed_over(*UNLED, *REST, attempt=2, action=FAILOVER)
