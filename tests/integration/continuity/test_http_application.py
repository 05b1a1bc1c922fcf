"""A service whose application brings its own promote and demote is moved, and failed over by a fencing hook:
two real processes, real runs. The tests follow each other on them."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Literal

import pytest
from temporalio.client import Client

from qnwis.config.registry import Registry
from qnwis.continuity.executor import OutcomeStatus
from qnwis.continuity.orders import FencingEvidenceType
from qnwis.continuity.run import FailoverRequest, Maintenance, RunOutcome, RunResult
from qnwis.continuity.topology import Cluster, FencingHook, NodeStatus
from qnwis.providers.all_nodes import AllNodes
from qnwis.providers.audit_store import SqliteAuditStore
from qnwis.providers.dns import Rfc2136Dns
from qnwis.providers.dns_by_holder import DnsByHolder
from qnwis.providers.fencing import HookAnswer
from qnwis.providers.http_application import HttpApplications
from qnwis.providers.notifier import LogNotifier
from qnwis.transport import Transport
from workers.settings import WorkerSettings
from workers.wiring import Providers, workers_for
from workflows.guardian import Guardian
from workflows.guardian_state import GuardianState, PauseRequest, ResumeRequest
from workflows.names import failover_id, guardian_id
from workflows.planned_maintenance import PlannedMaintenance
from workflows.primary_failure import PrimaryFailure

from .application import HOSTS, TOKEN, ApplicationLab, application_lab
from .dns_lab import dns_lab
from .test_guardian import until
from .world import write_registry


@dataclass
class Power:
    """The power switch of the lab."""

    lab: ApplicationLab
    switched: list[tuple[str, str]] = field(default_factory=list)

    async def switch(
        self, hook: FencingHook, node_id: str, state: Literal["off", "on"], effect_id: str
    ) -> HookAnswer:
        self.switched.append((node_id, state))
        if state == "off":
            self.lab.kill(node_id)
        return HookAnswer(changed=True, detail=f"{node_id} is {state}")


@dataclass
class Service:
    """The two nodes, registered with and without a fencing hook, with a worker that serves both."""

    client: Client
    lab: ApplicationLab
    cluster: Cluster
    without_hook: Cluster
    power: Power
    queue: str
    rows: int = 0

    async def run(self, cluster: Cluster | None = None, **request: object) -> RunResult:
        cluster_id = (cluster or self.cluster).cluster_id
        asked = FailoverRequest.model_validate(
            {"cluster_id": cluster_id, "initiated_by": "ann", "reason": "test", **request}
        )
        run = PlannedMaintenance.run if asked.maintenance is not None else PrimaryFailure.run
        return await self.client.execute_workflow(
            run,
            asked,
            id=failover_id(cluster_id, dry_run=asked.dry_run),
            task_queue=self.queue,
            result_type=RunResult,
        )

    async def serves_all(self, node_id: str) -> None:
        """It has every row, takes one more, no other node does, and the name leads to it."""
        found = await self.lab.state(node_id)
        assert found is not None and found["rows"] == list(range(1, self.rows + 1))
        for name in self.lab.running:
            status = await self.lab.write(name, self.rows + 1)
            assert (name, status) == (name, 200 if name == node_id else 409)
        self.rows += 1
        assert self.cluster.dns is not None
        ((address,),) = (await Rfc2136Dns().read(self.cluster.dns)).values()
        assert address == HOSTS[node_id]


@pytest.fixture(scope="module")
async def service(client: Client, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Service]:
    home = tmp_path_factory.mktemp("application")
    for part in ("dns", "nodes"):
        (home / part).mkdir()
    async with (
        application_lab(home / "nodes") as lab,
        dns_lab(home / "dns", HOSTS["a"]) as names,
        AllNodes(Transport()) as nodes,
    ):
        cluster_id = f"h{uuid.uuid4().hex[:8]}"
        shared = {
            "vantages": (f"{cluster_id}-1",),
            "dns": names.service.model_dump(mode="json"),
            "heartbeat": {"interval_sec": 0.2, "timeout_sec": 1},
        }
        hook = {"url": "http://power.test/{node_id}/{state}"}
        cluster = Cluster.model_validate(lab.topology(cluster_id, fencing=hook, **shared))
        without_hook = Cluster.model_validate(lab.topology(f"{cluster_id}-bare", **shared))
        for one in (cluster, without_hook):
            write_registry(home / "config", one, max_failover_time_s=120, min_healthy_nodes=1, cooldown_s=0)
        power, applications = Power(lab), HttpApplications(Transport())
        providers = Providers(
            registry=Registry(home / "config"),
            nodes=nodes,
            applications=applications,
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
        made = Service(client, lab, cluster, without_hook, power, settings.task_queue)
        await lab.write("a", 1)
        made.rows = 1
        async with AsyncExitStack() as running:
            for worker in workers_for(client, settings, providers):
                await running.enter_async_context(worker)
            yield made
        await applications.aclose()


def statuses(result: RunResult) -> dict[str, OutcomeStatus]:
    return {outcome.action_id: outcome.status for outcome in result.outcomes}


async def test_a_dry_run_asks_nothing_of_the_application(service: Service) -> None:
    result = await service.run(dry_run=True, maintenance=Maintenance(target_node_id="b"))
    told = " ".join(outcome.detail for outcome in result.outcomes)
    assert result.outcome is RunOutcome.PREVIEWED, result
    assert f"would send POST {service.lab.url('a')}/admin/demote" in told
    assert f"would send POST {service.lab.url('b')}/admin/promote" in told
    assert service.lab.orders("a") == service.lab.orders("b") == []
    await service.serves_all("a")


async def test_planned_maintenance_demotes_and_then_promotes(service: Service) -> None:
    result = await service.run(maintenance=Maintenance(target_node_id="b"))
    assert result.verified, result
    assert result.fencing is not None and result.fencing.holder == "a"
    assert result.fencing.type is FencingEvidenceType.RELEASED
    assert "the application's own word" in result.fencing.detail
    assert TOKEN not in result.model_dump_json()
    assert service.lab.orders("a") == [["demote", f"{result.run_id}/2-demote-a"]]
    assert service.lab.orders("b") == [["promote", f"{result.run_id}/3-promote-b"]]
    await service.serves_all("b")


async def test_a_demote_that_is_answered_and_not_seen_is_no_evidence(service: Service) -> None:
    (service.lab.folder("b") / "lies").touch()
    promoted_before = len(service.lab.orders("a"))
    result = await service.run(maintenance=Maintenance(target_node_id="a"))
    (service.lab.folder("b") / "lies").unlink()
    assert result.outcome is RunOutcome.ROLLED_BACK, result
    assert statuses(result)["2-demote-b"] is OutcomeStatus.UNDONE
    assert "3-promote-a" not in statuses(result)
    assert len(service.lab.orders("a")) == promoted_before, "the target was never asked"
    await service.serves_all("b")


async def test_a_node_that_is_dead_is_not_taken_for_fenced(service: Service) -> None:
    """Without a hook and without a person's word nobody is promoted."""
    service.lab.kill("b")
    result = await service.run(service.without_hook)
    assert result.outcome is RunOutcome.REFUSED, result
    assert "http_node_cannot_be_fenced" in result.reason or "nothing can switch it off" in result.reason
    state = await service.lab.state("a")
    assert state is not None and not state["node"]["writable"]


async def test_a_dead_node_is_fenced_by_the_hook_and_failed_over(service: Service) -> None:
    """`b` serves by now and is gone; the topology still calls `a` the primary."""
    service.lab.kill("b")
    result = await service.run()
    assert result.verified, result
    assert service.power.switched == [("b", "off")]
    assert result.fencing is not None and result.fencing.type is FencingEvidenceType.HOOK
    assert result.fencing.holder == "b"
    await service.serves_all("a")


async def test_the_dead_node_comes_back_as_it_was_and_every_plan_is_refused(service: Service) -> None:
    """Its state file says that it writes: nobody knows any more who the primary is, and nothing is done."""
    await service.lab.start("b")
    result = await service.run(maintenance=Maintenance(target_node_id="b"))
    assert result.outcome is RunOutcome.REFUSED, result
    assert "is not known: writable nodes are" in result.reason


async def test_a_killed_node_is_failed_over_without_anybody(service: Service) -> None:
    """With the hook; the guardian of the cluster without one holds."""
    service.lab.kill("b")
    (service.lab.folder("b") / "state.json").write_text(json.dumps({"writable": False, "rows": []}))
    await service.lab.start("b")
    await service.serves_all("a")
    guardians = [
        await service.client.start_workflow(
            Guardian.run,
            GuardianState(cluster_id=cluster.cluster_id),
            id=guardian_id(cluster.cluster_id),
            task_queue=service.queue,
        )
        for cluster in (service.cluster, service.without_hook)
    ]
    acting, holding = guardians
    for guardian in guardians:
        await until(guardian, lambda v: set(v.statuses.values()) == {NodeStatus.HEALTHY})
    # The nodes are the same: once the one has failed over, the other finds that a primary serves.
    await acting.signal(Guardian.pause_failover, PauseRequest(by="test", reason="not before the other"))
    await until(acting, lambda v: v.pause is not None)
    service.lab.kill("a")
    held = await until(holding, lambda v: v.holding is not None)
    assert "whether a silent node still writes is not known" in (held.holding or "")
    await acting.signal(Guardian.resume_failover, ResumeRequest(by="test", reason="it held"))
    view = await until(acting, lambda v: v.last_result is not None)
    assert view.last_result is not None and view.last_result.verified, view.last_result
    assert service.power.switched[-1] == ("a", "off") and view.primary_node_id == "b"
    await service.serves_all("b")
    for guardian in guardians:
        await guardian.terminate()
