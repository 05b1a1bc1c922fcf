"""Clusters that a real Patroni manages are moved through its REST API: within a region, across, and back.

One etcd and three members; the tests follow each other on them, each from where the one before left off.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import pytest
from temporalio.client import Client
from temporalio.testing import ActivityEnvironment

from activities import patroni as patroni_moves
from activities.patroni import HandOverRequest, PatroniMoves
from activities.patroni_regions import DemoteClusterRequest, PatroniRegions
from activities.rejoining import BringBack, Rejoining
from qnwis.config.registry import Registry
from qnwis.continuity.executor import OutcomeStatus
from qnwis.continuity.orders import FencingEvidenceType
from qnwis.continuity.patroni_actions import PatroniDemoteCluster, PatroniSwitchover
from qnwis.continuity.policy import Policy
from qnwis.continuity.region_plan import Direction
from qnwis.continuity.region_run import EvacuateRequest
from qnwis.continuity.run import FailoverRequest, Maintenance, RunOutcome, RunResult
from qnwis.continuity.switchover import make_switchover
from qnwis.continuity.topology import Cluster, FencingHook
from qnwis.providers.all_nodes import AllNodes
from qnwis.providers.audit_store import SqliteAuditStore
from qnwis.providers.dns import Rfc2136Dns
from qnwis.providers.dns_by_holder import DnsByHolder
from qnwis.providers.errors import Refused, Unreachable
from qnwis.providers.evidence import collect_evidence
from qnwis.providers.fencing import HookAnswer
from qnwis.providers.notifier import LogNotifier
from qnwis.providers.patroni import HttpPatroni
from qnwis.transport import Transport
from tests.looking import Looks
from workers.settings import WorkerSettings
from workers.wiring import Providers, workers_for
from workflows import run as run_of_a_runbook
from workflows.names import failover_id, region_id
from workflows.planned_maintenance import PlannedMaintenance
from workflows.primary_failure import PrimaryFailure
from workflows.region_failure import RegionFailure

from .dns_lab import dns_lab
from .patroni_lab import (
    API_PASSWORD,
    API_USER,
    EAST,
    REGIONS,
    WEST,
    WITHIN_S,
    PatroniLab,
    missing,
    patroni_lab,
)
from .world import write_registry

MISSING = missing()
pytestmark = [
    pytest.mark.skipif(MISSING is not None, reason=MISSING or ""),
    pytest.mark.timeout(180),
]


@dataclass
class Power:
    """The power switch of the lab."""

    lab: PatroniLab
    switched: list[tuple[str, str]] = field(default_factory=list)

    async def switch(
        self, hook: FencingHook, node_id: str, state: Literal["off", "on"], effect_id: str
    ) -> HookAnswer:
        self.switched.append((node_id, state))
        if state == "off":
            await self.lab.power_off(node_id)
        return HookAnswer(changed=True, detail=f"{node_id} is {state}")


@dataclass
class Service:
    """The two clusters as one service, registered, with a worker that serves it."""

    client: Client
    lab: PatroniLab
    cluster: Cluster
    providers: Providers
    power: Power
    queue: str
    rows: int = 0

    async def run(self, **request: object) -> RunResult:
        asked = FailoverRequest.model_validate(
            {"cluster_id": self.cluster.cluster_id, "initiated_by": "ann", "reason": "test", **request}
        )
        run = PlannedMaintenance.run if asked.maintenance is not None else PrimaryFailure.run
        return await self.client.execute_workflow(
            run,
            asked,
            id=failover_id(self.cluster.cluster_id, dry_run=asked.dry_run),
            task_queue=self.queue,
            result_type=RunResult,
        )

    async def write(self, node_id: str) -> None:
        self.rows += 1
        await self.lab.sql(node_id, f"INSERT INTO rows VALUES ({self.rows})")

    async def serves_all(self, node_id: str) -> None:
        """It has every row that was written, and the service's name leads to it. It takes one more row, and
        no other member takes any."""
        found = await self.lab.sql(node_id, "SELECT n FROM rows ORDER BY n")
        assert [n for (n,) in found] == list(range(1, self.rows + 1))
        await self.write(node_id)
        assert await self.writable() == [node_id]
        assert await self.named() == self.lab.host(node_id)

    async def named(self) -> str:
        """Which member a client reaches that asks for the service by name."""
        assert self.cluster.dns is not None
        ((address,),) = (await Rfc2136Dns().read(self.cluster.dns)).values()
        ((host,),) = await self.lab.sql_at(address, "SELECT host(inet_server_addr())")
        return str(host)

    async def settled(self) -> None:
        """Return once every member but the primary streams, and all are on one timeline."""
        async with asyncio.timeout(WITHIN_S):
            looks = Looks()
            while True:
                evidence = await collect_evidence(self.providers.nodes, self.cluster)
                states = [node.state for node in evidence.nodes]
                one_timeline = len({s.timeline for s in states if s is not None}) == 1
                streams = [s is not None and (s.writable or (s.streaming and s.upstream)) for s in states]
                if all(streams) and one_timeline:
                    return
                await looks.again()

    async def writable(self) -> list[str]:
        evidence = await collect_evidence(self.providers.nodes, self.cluster)
        return [n.node_id for n in evidence.nodes if n.state is not None and n.state.writable]


@pytest.fixture(scope="module")
async def service(client: Client, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Service]:
    home, patch = tmp_path_factory.mktemp("patroni"), pytest.MonkeyPatch()
    patch.setenv("QNWIS_TEST_PATRONI", f"{API_USER}:{API_PASSWORD}")
    patroni = HttpPatroni(Transport())
    (home / "dns").mkdir()
    async with (
        patroni_lab() as lab,
        dns_lab(home / "dns", REGIONS["east"]) as names,
        AllNodes(Transport(), patroni) as nodes,
    ):
        cluster_id = f"p{uuid.uuid4().hex[:8]}"
        hook = {"url": "http://power.test/{node_id}/{state}"}
        cluster = lab.topology(cluster_id, fencing=hook, vantages=(f"{cluster_id}-1",), dns=names.service)
        power = Power(lab)
        providers = Providers(
            registry=Registry(
                write_registry(home / "config", cluster, max_failover_time_s=120, min_healthy_nodes=1)
            ),
            nodes=nodes,
            patroni=patroni,
            dns=DnsByHolder(),
            hook=power,
            audit=SqliteAuditStore(home / "audit.sqlite", home / "key.pem"),
            notifier=LogNotifier(),
        )
        settings = WorkerSettings(
            config_dir=home / "config",
            state_dir=home,
            vantages=cluster.vantages,
            task_queue=f"runbooks-{cluster_id}",
        )
        made = Service(client, lab, cluster, providers, power, settings.task_queue)
        await lab.sql("e1", "CREATE TABLE rows (n int PRIMARY KEY)")
        await made.write("e1")
        runbooks, *_ = workers_for(client, settings, providers)
        async with runbooks:
            yield made
    patch.undo()


@pytest.fixture(autouse=True)
async def settled(service: Service) -> None:
    await service.settled()


def statuses(result: RunResult) -> dict[str, OutcomeStatus]:
    return {outcome.action_id: outcome.status for outcome in result.outcomes}


async def test_a_dry_run_changes_nothing(service: Service) -> None:
    result = await service.run(dry_run=True, maintenance=Maintenance(target_node_id="w1"))
    told = " ".join(outcome.detail for outcome in result.outcomes)
    assert result.outcome.value == "previewed" and "would send PATCH /config to Patroni of e1" in told
    assert await service.writable() == ["e1"]


async def test_planned_maintenance_has_patroni_switch_over(service: Service) -> None:
    result = await service.run(maintenance=Maintenance(target_node_id="e2"))
    assert result.verified, (result.reason, service.lab.logs())
    assert result.fencing is not None and result.fencing.holder == "e1"
    assert "leader lock is e2's" in result.fencing.detail
    assert "Successfully switched over" in result.outcomes[0].detail
    await service.serves_all("e2")


async def test_a_failover_is_asked_of_patroni_too(service: Service) -> None:
    result = await service.run(even_if_healthy=True)
    assert result.verified and result.new_primary == "e1", (result.reason, service.lab.logs())
    await service.serves_all("e1")


async def test_what_patroni_refuses_is_refused_in_its_words(service: Service) -> None:
    """The same request again: the leader that it names is one no more."""
    api = HttpPatroni(Transport())
    with pytest.raises(Refused) as refused:
        await api.switchover(service.cluster.node("e2"), leader="e2", candidate="e1", timeout_s=30)
    assert refused.value.refusal.values["status"] == 412
    assert "leader name does not match" in refused.value.refusal.message
    without = service.cluster.node("e2")
    assert without.patroni is not None
    nobody = without.model_copy(update={"patroni": without.patroni.model_copy(update={"credentials": None})})
    with pytest.raises(Refused, match=r"restapi\.authentication"):
        await api.stand_alone(nobody, timeout_s=5)
    await api.aclose()


async def test_a_switchover_of_which_patroni_never_says_what_came_is_left_to_people(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run lets its lock go, and nobody is told that the target leads."""

    async def never(*_: object, **__: object) -> str:
        raise Unreachable("Switchover status unknown")

    monkeypatch.setattr(service.providers.patroni, "switchover", never)
    monkeypatch.setattr(patroni_moves, "HANDED_OVER_WITHIN_S", 0.0)
    monkeypatch.setattr(run_of_a_runbook, "PATRONI_SETTLES_S", 0.1)
    (serving,) = await service.writable()
    result = await service.run(maintenance=Maintenance())
    assert result.outcome is RunOutcome.INCOMPLETE and result.new_primary is None
    assert result.reason.startswith("LEFT TO DO: whether Patroni makes "), result.reason
    assert "Switchover status unknown" in result.reason
    assert await service.writable() == [serving]
    await service.serves_all(serving)


async def test_a_switchover_that_is_done_is_not_done_again(service: Service) -> None:
    evidence = await collect_evidence(service.providers.nodes, service.cluster)
    policy = Policy(policy_id="p", name="p")
    made = make_switchover(service.cluster, policy, evidence, Maintenance(), trigger_reason="test")
    assert made.plan is not None
    moves = PatroniMoves(service.providers.nodes, service.providers.patroni)
    outcome = await ActivityEnvironment().run(
        moves.hand_over,
        HandOverRequest(
            run_id="r",
            epoch=1,
            cluster=service.cluster,
            plan=made.plan,
            policy=policy,
            action=PatroniSwitchover(action_id="a", leader="e2", node_id="e1", estimate_ms=1),
        ),
    )
    assert outcome.status is OutcomeStatus.SUCCEEDED and outcome.changed is False
    assert await service.writable() == ["e1"]
    back = Rejoining(service.providers.registry, service.providers.nodes, service.power).bring_back
    asked = BringBack(cluster_id=service.cluster.cluster_id, node_id="e2", by="ann")
    assert (await ActivityEnvironment().run(back, asked)).detail.startswith("e2 follows e1")


async def test_a_region_that_was_demoted_is_taken_back(service: Service) -> None:
    evidence = await collect_evidence(service.providers.nodes, service.cluster)
    policy = Policy(policy_id="p", name="p")
    made = make_switchover(
        service.cluster, policy, evidence, Maintenance(target_node_id="w1"), trigger_reason="test"
    )
    assert made.plan is not None, made.refusal
    action = made.plan.actions[0]
    assert isinstance(action, PatroniDemoteCluster)
    regions = PatroniRegions(service.providers.nodes, service.providers.patroni)
    request = DemoteClusterRequest(
        run_id="r", epoch=9, cluster=service.cluster, plan=made.plan, policy=policy, action=action
    )
    demoted = await ActivityEnvironment().run(regions.demote_cluster, request)
    assert demoted.status is OutcomeStatus.SUCCEEDED, demoted
    assert await service.writable() == [], "nobody writes between the two regions"
    again = await ActivityEnvironment().run(regions.demote_cluster, request)
    assert again.status is OutcomeStatus.SUCCEEDED and again.changed is False
    undone = await ActivityEnvironment().run(regions.take_cluster_back, request)
    assert undone.status is OutcomeStatus.UNDONE
    (serving,) = await service.writable()
    assert serving in EAST
    await service.serves_all(serving)


async def test_a_region_is_evacuated_and_come_back_to(service: Service) -> None:
    for direction, there in ((Direction.OUT, WEST), (Direction.BACK, EAST)):
        await service.settled()
        request = EvacuateRequest(
            region="east", direction=direction, initiated_by="ann", reason="test", clusters=()
        )
        result = await service.client.execute_workflow(
            RegionFailure.run, request, id=region_id("east"), task_queue=service.queue
        )
        assert result.verified, (result.reason, service.lab.logs())
        (serving,) = await service.writable()
        assert serving in there
        await service.serves_all(serving)


async def test_a_region_that_is_lost_is_fenced_and_left_and_comes_back_as_a_standby_cluster(
    service: Service,
) -> None:
    lab = service.lab
    await seen_by(service, "w1")
    await lab.power_off(*EAST)
    result = await service.run()
    assert result.verified, (result.reason, lab.logs())
    assert statuses(result)["1-fence-east"] is OutcomeStatus.SUCCEEDED
    assert sorted(service.power.switched) == [("e1", "off"), ("e2", "off")]
    assert result.fencing is not None and result.fencing.type is FencingEvidenceType.HOOK
    # Which of a silent region's members led it, nobody says any more; all of them are off.
    assert result.old_primary in EAST and result.new_primary is not None
    await service.serves_all(result.new_primary)

    west = REGIONS["west"]
    lab.edit_config("e1", standby_cluster__host=west, standby_cluster__port=lab.port)
    for name in EAST:
        lab.start_member(name)
    for name in EAST:
        await lab.until(name, state="running", replication_state="streaming")
    assert await service.writable() == [result.new_primary]
    wanted = [(service.rows,)]
    for name in EAST:
        looks = Looks()
        while await lab.sql(name, "SELECT count(*) FROM rows") != wanted:
            await looks.again()


async def seen_by(service: Service, node_id: str) -> None:
    """Return once all that was written has been replayed there: what is asynchronous may be lost else."""
    wanted: Sequence[tuple[int]] = [(service.rows,)]
    looks = Looks()
    while await service.lab.sql(node_id, "SELECT max(n) FROM rows") != wanted:
        await looks.again()
