"""Undoing a lowered TTL, a released primary, a demoted region and a demoted application: asked for again, and
not for ever."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from temporalio.testing import ActivityEnvironment

from activities import dns, http_application, patroni_regions
from activities.dns import DnsRecords, RetimeRequest
from activities.fencing import Fencing
from activities.http_application import ApplicationMoves, DemoteRequest
from activities.patroni_regions import DemoteClusterRequest, PatroniRegions, PromoteClusterRequest
from activities.switchover import ReleaseRequest, Switchover
from qnwis.continuity.evidence import NodeState
from qnwis.continuity.executor import LEFT_TO_DO, Outcome, OutcomeStatus
from qnwis.continuity.http_actions import HttpDemote
from qnwis.continuity.lease_messages import Withdrawal
from qnwis.continuity.orders import AnyOrder, Receipt
from qnwis.continuity.patroni_actions import PatroniDemoteCluster, PatroniPromoteCluster
from qnwis.continuity.plan import LowerTtl, Plan, ReleasePrimary
from qnwis.continuity.policy import Policy
from qnwis.continuity.readiness_facts import RecordAnswer
from qnwis.continuity.refusal import Refusal
from qnwis.continuity.run import Maintenance
from qnwis.continuity.switchover import make_switchover
from qnwis.continuity.topology import Cluster, DnsService, Node
from qnwis.providers.dns import DnsChange, KeyFileError
from qnwis.providers.errors import Refused, Unreachable
from tests.unit.continuity import application_scenes
from tests.unit.continuity.patroni_scenes import EAST, WELL, by_patroni, follows, leads, said, word
from tests.unit.continuity.scenes import SPEC_CLUSTER, SPEC_POLICY, with_dns
from tests.unit.test_power import asked_so_long_ago, attempted

NO = Refused(Refusal(rule="no", message="-", remedy="-"))
POLICY = Policy(policy_id="p", name="p")


def given_up(outcome: Outcome) -> bool:
    """Whether the undo has ended, and people are told what it has left to them."""
    return outcome.status is OutcomeStatus.UNDONE and outcome.facts.get(LEFT_TO_DO) == outcome.detail


# A lowered TTL


@dataclass
class Zone:
    """A record on two servers, the first of which takes updates."""

    ttl_s: int = 1
    silent: frozenset[int] = frozenset()
    fails: Exception | None = None
    """What an update meets."""
    updates: int = 0

    async def record(self, service: DnsService) -> tuple[RecordAnswer, ...]:
        return tuple(
            RecordAnswer(server=server, addresses=None, reason=f"{server}: no answer")
            if number in self.silent
            else RecordAnswer(server=server, addresses=("10.0.1.10",), ttl_s=self.ttl_s)
            for number, server in enumerate(service.servers)
        )

    async def swap(
        self, service: DnsService, *, from_address: str, to_address: str, ttl_s: int | None = None
    ) -> DnsChange:
        self.updates += 1
        if self.fails is not None:
            raise self.fails
        self.ttl_s = service.ttl_s if ttl_s is None else ttl_s
        if self.silent:
            raise Unreachable("it is not answered everywhere")
        return DnsChange(changed=False, before=(from_address,), after=(to_address,))


def lowered() -> RetimeRequest:
    action = LowerTtl(action_id="1-lower-ttl", record="db", from_ttl_s=300, to_ttl_s=1, estimate_ms=1)
    topology = with_dns(SPEC_CLUSTER, ttl_s=300, servers=("ns1:53", "ns2:53"))
    return RetimeRequest(run_id="run", epoch=4, cluster=topology, action=action)


async def ttl_back(zone: Zone, *, after_s: float = 0.0) -> Outcome:
    undo = DnsRecords(cast(Any, zone)).retime_back
    outcome: Outcome = await asked_so_long_ago(after_s).run(undo, lowered())
    return outcome


async def test_a_server_that_gets_the_zone_and_is_silent_does_not_hold_up_the_ordinary_ttl() -> None:
    zone = Zone(silent=frozenset({1}))
    with pytest.raises(Unreachable, match="not answered everywhere"):
        await ttl_back(zone)
    undone = await ttl_back(zone, after_s=5)
    assert undone.status is OutcomeStatus.UNDONE and zone.ttl_s == 300 and not given_up(undone)


async def test_a_ttl_that_was_never_lowered_is_not_restored() -> None:
    zone = Zone(ttl_s=300, silent=frozenset({1}), fails=KeyFileError("/etc/no.key: cannot be read"))
    undone = await ttl_back(zone)
    assert (undone.status, undone.changed) == (OutcomeStatus.UNDONE, False)
    assert zone.updates == 0 and not given_up(undone)


@pytest.mark.parametrize(
    "zone",
    [
        Zone(silent=frozenset({0})),
        Zone(fails=NO),
        Zone(fails=KeyFileError("/etc/no.key: cannot be read")),
    ],
    ids=["silent", "refuses", "no key"],
)
async def test_a_ttl_that_stays_low_is_left_to_people_after_a_minute(zone: Zone) -> None:
    """And never taken for one that was not lowered: a refusal is no outcome of an undo."""
    with pytest.raises((Unreachable, KeyFileError)):
        await ttl_back(zone, after_s=dns.TTL_BACK_WITHIN_S - 10)
    left = await ttl_back(zone, after_s=dns.TTL_BACK_WITHIN_S)
    assert given_up(left) and "the TTL of db may still be 1 s" in left.detail, left


async def test_a_ttl_is_asked_for_as_long_though_no_worker_was_there_at_first() -> None:
    undo = DnsRecords(cast(Any, Zone(fails=NO))).retime_back
    told: list[object] = []
    first = attempted(1, scheduled_s=3 * dns.TTL_BACK_WITHIN_S)
    first.on_heartbeat = lambda *details: told.extend(details)
    with pytest.raises(Unreachable):
        await first.run(undo, lowered())
    assert told[:1] == [first.info.started_time.isoformat()], "it tells the next attempt since when"
    with pytest.raises(Unreachable):
        await attempted(2, scheduled_s=3 * dns.TTL_BACK_WITHIN_S, first_s=1).run(undo, lowered())
    untold = await attempted(3, scheduled_s=3 * dns.TTL_BACK_WITHIN_S).run(undo, lowered())
    assert given_up(untold), "else an undo whose heartbeats are lost would never end"


async def test_an_answer_that_does_not_come_is_not_waited_for_beyond_the_attempt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Temporal would end the attempt, and nobody would say what came of it, again and again."""
    monkeypatch.setattr(dns, "TTL_BACK_ATTEMPT_S", 0.05)

    class Hangs(Zone):
        async def record(self, service: DnsService) -> tuple[RecordAnswer, ...]:
            await asyncio.Event().wait()
            raise AssertionError

    left = await ttl_back(Hangs(), after_s=dns.TTL_BACK_WITHIN_S)
    assert given_up(left) and "no answer within 0.05 s" in left.detail


# A demoted region


@dataclass
class Members:
    """What members of Patroni clusters say, and what they are told."""

    states: dict[str, NodeState]
    refuses: bool = False
    told: list[str] = field(default_factory=list)

    async def state(self, node: Node, *, timeout_s: float) -> NodeState:
        if node.node_id not in self.states:
            raise Unreachable(f"{node.node_id}: no answer")
        return self.states[node.node_id]

    async def stand_alone(self, node: Node, *, timeout_s: float) -> None:
        if node.node_id not in self.states:
            raise Unreachable(f"{node.node_id}: no answer")
        self.told.append(node.node_id)
        if self.refuses:
            raise NO
        self.say(leads(node.node_id, patroni=word(node.node_id, node.node_id, standby_of=None)))

    def say(self, *states: NodeState) -> None:
        self.states |= {state.node_id: state for state in states}


TWO_REGIONS = by_patroni()


def members(*states: NodeState) -> Members:
    return Members({state.node_id: state for state in states})


def moved_west() -> Plan:
    wanted = Maintenance(target_node_id="w1")
    evidence = said(TWO_REGIONS, *WELL)
    plan = make_switchover(TWO_REGIONS, POLICY, evidence, wanted, trigger_reason="test").plan
    assert plan is not None
    return plan


def demoted() -> DemoteClusterRequest:
    (action,) = (action for action in moved_west().actions if isinstance(action, PatroniDemoteCluster))
    return DemoteClusterRequest(
        run_id="run", epoch=4, cluster=TWO_REGIONS, plan=moved_west(), policy=POLICY, action=action
    )


async def region_back(there: Members, *, after_s: float = 0.0) -> Outcome:
    undo = PatroniRegions(cast(Any, there), cast(Any, there)).take_cluster_back
    outcome: Outcome = await asked_so_long_ago(after_s).run(undo, demoted())
    return outcome


FOLLOWING = [follows(node_id, patroni=word(node_id, standby_of="10.0.0.3:5432")) for node_id in EAST]
"""The old region, demoted."""
WEST_STANDS_BY = [follows("w1"), follows("w2")]


async def test_a_region_that_answers_has_a_primary_again() -> None:
    there = members(*FOLLOWING, *WEST_STANDS_BY)
    undone = await region_back(there)
    assert undone.detail == "e1 accepts writes again" and there.told == ["e1"]
    assert not given_up(undone)


@pytest.mark.parametrize(
    ("west", "why"),
    [
        (leads("w1", patroni=word("w1", standby_of=None)), "w1 accepts writes"),
        (follows("w1", patroni=word("w1", standby_of=None)), "west is no standby cluster any more"),
    ],
)
async def test_a_region_is_not_taken_back_where_a_person_has_promoted_another(
    west: NodeState, why: str
) -> None:
    """Both would write; the second is about to, at the next round of its Patroni."""
    there = members(*FOLLOWING, west)
    undone = await region_back(there)
    assert (undone.status, undone.changed) == (OutcomeStatus.UNDONE, False)
    assert there.told == [] and why in undone.detail, undone


async def test_a_region_that_is_lost_is_left_to_people_in_the_end() -> None:
    there = members(*WEST_STANDS_BY)
    with pytest.raises(Unreachable):
        await region_back(there, after_s=patroni_regions.BACK_WITHIN_S - 60)
    left = await region_back(there, after_s=patroni_regions.BACK_WITHIN_S)
    assert given_up(left) and "east may still be a standby cluster" in left.detail, left
    # Its hosts may be booting, and what was told be stored: who promotes west by hand reads that first.
    first, *_ = left.detail.split(". ")
    assert "east was told to lead and may begin any moment: before another is promoted" in first, left
    assert "a standby cluster of 10.0.0.3:5432 again" in first and "switch it off" in first, left


@pytest.mark.parametrize("again", [False, True])
async def test_a_region_that_may_be_promoted_by_an_earlier_request_did_not_refuse_it(again: bool) -> None:
    """That it has had no effect would have the other region taken back, and two would write."""
    there = members(*FOLLOWING, *WEST_STANDS_BY)
    there.refuses = True
    (action,) = (action for action in moved_west().actions if isinstance(action, PatroniPromoteCluster))
    request = PromoteClusterRequest(
        run_id="run",
        epoch=4,
        cluster=TWO_REGIONS,
        plan=moved_west(),
        policy=POLICY,
        action=action,
        again=again,
    )
    promote = PatroniRegions(cast(Any, there), cast(Any, there)).promote_cluster
    if again:
        with pytest.raises(Unreachable, match="may be about to be promoted"):
            await ActivityEnvironment().run(promote, request)
    else:
        refused: Outcome = await ActivityEnvironment().run(promote, request)
        assert refused.status is OutcomeStatus.FAILED and there.told == ["w1"]


# A released primary


@dataclass
class Released:
    """A primary that was handed over, and how it answers when it is to accept writes again."""

    says: Exception

    async def withdraw(self, node: Node, withdrawal: Withdrawal, *, timeout_s: float) -> None:
        pass

    async def state(self, node: Node, *, timeout_s: float) -> NodeState:
        return NodeState(node_id=node.node_id, role=node.role, database_up=False, epoch=4)

    async def order(self, node: Node, order: AnyOrder, *, timeout_s: float) -> Receipt:
        raise self.says


@pytest.mark.parametrize(
    ("says", "is_for_people", "told"),
    [
        (Refused(Refusal(rule="another_held_since", message="no", remedy="Rejoin")), True, "Rejoin"),
        (Unreachable("no answer"), False, "If it lives it does by itself"),
    ],
    ids=["refuses", "silent"],
)
async def test_a_primary_that_refuses_to_come_back_is_left_to_people_and_one_that_is_silent_to_its_guardian(
    says: Exception, is_for_people: bool, told: str
) -> None:
    nodes = cast(Any, Released(says))
    moves = Switchover(nodes, Fencing(nodes, cast(Any, None)))
    action = ReleasePrimary(
        action_id="2-release", node_id="node-1", target="node-2", drain_s=1, estimate_ms=1
    )
    request = ReleaseRequest(
        run_id="run", epoch=4, cluster=SPEC_CLUSTER, action=action, plan=moved_west(), policy=SPEC_POLICY
    )
    with pytest.raises(Unreachable):
        await asked_so_long_ago(15).run(moves.take_back, request)
    left: Outcome = await asked_so_long_ago(60).run(moves.take_back, request)
    assert left.status is OutcomeStatus.UNDONE and told in left.detail
    assert (LEFT_TO_DO in left.facts) is is_for_people


# A demoted application


@dataclass
class Lost:
    """The old node of an application is gone, after it was demoted."""

    topology: Cluster = field(default_factory=application_scenes.by_http)

    async def state(self, node: Node, *, timeout_s: float) -> NodeState:
        if node.node_id == "t1":
            raise Unreachable("t1: no answer")
        return application_scenes.says(node.node_id, writable=False)

    async def change(self, node: Node, what: str, *, effect_id: str) -> str:
        raise Unreachable(f"{node.node_id}: no answer")


async def test_an_application_that_is_lost_is_left_to_people_in_the_end() -> None:
    there, nobody = Lost(), cast(Any, None)
    moves = ApplicationMoves(cast(Any, there), cast(Any, there), nobody)
    action = HttpDemote(action_id="2-demote-t1", node_id="t1", target="t2", estimate_ms=1)
    request = DemoteRequest(
        run_id="run", epoch=4, cluster=there.topology, action=action, plan=moved_west(), policy=SPEC_POLICY
    )
    with pytest.raises(Unreachable):
        await asked_so_long_ago(http_application.BACK_WITHIN_S - 60).run(moves.http_take_back, request)
    left: Outcome = await asked_so_long_ago(http_application.BACK_WITHIN_S).run(moves.http_take_back, request)
    assert given_up(left) and "t1 may not accept writes" in left.detail
    first, *_ = left.detail.split(". ")
    assert "t1 was told to accept writes and may begin any moment: before another node is promoted" in first
    assert "demote it again or switch it off" in first, left
