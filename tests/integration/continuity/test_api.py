"""The API on a real Temporal server, with workers that believe what it signs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from temporalio.client import Client, WorkflowHandle
from temporalio.service import RPCError, RPCStatusCode

from qnwis.config.api import ApiFile
from qnwis.continuity.alerts import AlertRule
from qnwis.providers.audit_store import SqliteAuditStore
from qnwis.providers.keys import new_key
from tests.unit.api.scene import ROLES, ApiScene, rule_of
from workflows.names import failover_id

from .conftest import Setting, Stage
from .test_guardian import all_healthy, until

Build = Callable[..., Awaitable[tuple[Stage, ApiScene]]]
RULES = (AlertRule(match={"alertname": "PostgresDown"}, cluster_label="cluster"),)


@pytest.fixture
async def door(stage: Setting, tmp_path: Path) -> Build:
    """A stage, and an API to it."""

    async def build(**policy: Any) -> tuple[Stage, ApiScene]:
        on = await stage(**policy)
        assert isinstance(on.providers.audit, SqliteAuditStore)
        scene = ApiScene(
            tmp_path,
            ApiFile(alerts=RULES),
            client=on.client,
            cluster_id=on.cluster_id,
            task_queue=on.settings.task_queue,
            world=on.world,
            registry=on.settings.config_dir,
            audit=on.providers.audit,
        )
        return on, scene

    return build


async def planned(api: httpx.AsyncClient, scene: ApiScene) -> dict[str, Any]:
    body = {"cluster": {"cluster_id": scene.cluster_id}, "trigger_reason": "test"}
    answer = await api.post("/plan", json=body, headers=scene.signed_in("bob"))
    plan: dict[str, Any] = answer.json()["plan"]
    return plan


async def started(api: httpx.AsyncClient, scene: ApiScene, **more: Any) -> httpx.Response:
    body = {"plan": await planned(api, scene), **more}
    return await api.post("/execute", json=body, headers=scene.acting("bob"))


async def waiting(api: httpx.AsyncClient, scene: ApiScene, url: str) -> str:
    """The digest of the plan that the run waits with, once it does."""
    async with asyncio.timeout(30):
        while True:
            seen = (await api.get(url, headers=scene.signed_in("eve"))).json()
            if seen["progress"] is not None and seen["progress"]["approval"] is not None:
                return str(seen["progress"]["approval"]["window"]["digest"])
            await asyncio.sleep(0.1)


async def test_a_failover_is_planned_approved_followed_and_proved_through_the_api(
    door: Build,
) -> None:
    on, scene = await door(approvals=True)
    on.world.kill("node-1")
    async with scene.http() as api:
        accepted = await started(api, scene)
        assert accepted.status_code == 202 and accepted.headers["location"] == accepted.json()["run_url"]
        run_id = accepted.json()["execution_id"]
        url = f"/clusters/{on.cluster_id}/runs/{run_id}"
        digest = await waiting(api, scene, url)
        assert on.world.journal == []

        second = await started(api, scene)
        assert (second.status_code, rule_of(second)) == (409, "run_in_progress")
        assert second.json()["values"]["run_id"] == run_id

        async def vote(person: str, digest: str = digest) -> httpx.Response:
            return await api.post(f"{url}/approve", json={"digest": digest}, headers=scene.acting(person))

        other = "sha256:" + "0" * 64
        assert rule_of(await vote("bob")) == "initiator_excluded"
        assert [(r.status_code, rule_of(r)) for r in [await vote("eve")]] == [(403, "role_not_allowed")]
        assert rule_of(await vote("ann", other)) == "another_digest"
        assert on.world.journal == []
        counted = await vote("ann")
        assert counted.json()["vote"]["person"] == "ann"

        events = (await api.get(f"{url}/events", headers=scene.signed_in("eve"))).text.split("\n\n")
        names = [line for event in events for line in event.split("\n") if line.startswith("event: ")]
        assert names[-1] == "event: result" and set(names) <= {"event: progress", "event: result"}
        result = json.loads(events[-2].split("data: ", 1)[1])
        assert (result["outcome"], result["new_primary"]) == ("completed", "node-2")

        record = (await api.get(f"/audit/{result['audit_id']}", headers=scene.signed_in("eve"))).json()
        assert record["record"]["initiated_by"] == "bob" and "plan" in record["artefacts"]
        assert record["record"]["role"] == "continuity_operator"
        assert record["record"]["approval"]["approved_by"] == "ann"
        listed = (await api.get("/runs", params={"limit": 200}, headers=scene.signed_in("eve"))).json()
        assert [r["outcome"] for r in listed["runs"] if r["run_id"] == run_id] == ["completed"]


async def test_whoever_waits_is_answered_in_the_specifications_form(door: Build) -> None:
    on, scene = await door()
    on.world.kill("node-1")
    async with scene.http() as api:
        plan = await planned(api, scene)
        dry = {"plan": plan, "dry_run": True}
        preview = await api.post("/execute", json=dry, headers=scene.acting("bob"))
        assert preview.status_code == 200 and preview.json()["outcome"] == "previewed"
        assert preview.json()["actions_executed"] == 0
        later = await api.post("/execute", json=dry, headers=scene.acting("bob", Prefer="respond-async"))
        assert later.status_code == 202
        assert on.world.journal == []
        headers = scene.acting("bob", key="same-key", Prefer="wait=60")
        answer = await api.post("/execute", json={"plan": plan}, headers=headers)
        done = answer.json()
        changes = list(on.world.journal)
        headers = scene.acting("bob", key="same-key", Prefer="wait=60")
        again = await api.post("/execute", json={"plan": plan}, headers=headers)
    assert again.json() == done and on.world.journal == changes, "one key, one failover"
    assert [*done][:10] == [
        "request_id",
        "execution_id",
        "plan_id",
        "success",
        "actions_executed",
        "actions_failed",
        "total_duration_ms",
        "audit_id",
        "confidence",
        "timings_ms",
    ]
    assert done["success"] and done["actions_failed"] == 0 and done["audit_id"]
    assert {*done["confidence"]} == {"score", "band"} and {*done["timings_ms"]} == {"total", "execution"}


async def test_a_run_is_held_goes_on_and_is_aborted_through_the_api(door: Build) -> None:
    on, scene = await door(approvals=True)
    on.world.kill("node-1")
    async with scene.http() as api:
        url = f"/clusters/{on.cluster_id}/runs/{(await started(api, scene)).json()['execution_id']}"
        await waiting(api, scene, url)

        async def say(deed: str, person: str = "bob") -> httpx.Response:
            return await api.post(f"{url}/{deed}", json={"reason": "test"}, headers=scene.acting(person))

        assert (await say("pause")).json()["answer"] == "the run is held before its next action"
        found = (await api.get(f"/clusters/{on.cluster_id}/policy", headers=scene.signed_in("ann"))).json()

        async def put() -> httpx.Response:
            return await api.put(
                f"/clusters/{on.cluster_id}/policy",
                json={**found["policy"], "min_healthy_nodes": 1},
                headers=scene.acting("ann", **{"If-Match": found["digest"]}),
            )

        assert rule_of(await put()) == "run_in_progress"
        assert (await say("resume")).json()["answer"] == "the run goes on"
        assert (await say("abort")).status_code == 200
        events = (await api.get(f"{url}/events", headers=scene.signed_in("eve"))).text
        assert '"outcome":"untouched"' in events and on.world.journal == []
        assert rule_of(await say("pause")) == "no_run"
        assert (await put()).json()["policy"]["min_healthy_nodes"] == 1
        assert scene.parts.registered(on.cluster_id).policy.min_healthy_nodes == 1
        record = next(r for r in await on.providers.audit.latest(50) if r.operation == "set_policy")
        assert record.initiated_by == "ann" and found["digest"] in record.reason
        beside = await on.providers.audit.artefacts(record.audit_id)
        assert '"min_healthy_nodes":1' in beside["after"] and beside["before"] != beside["after"]


@pytest.mark.parametrize("how", ["another_key", "not_vouched"])
async def test_a_worker_believes_only_the_apis_own_key_and_only_for_whom_it_may_vouch(
    door: Build, how: str
) -> None:
    on, scene = await door(approvals=True)
    on.world.kill("node-1")
    if how == "another_key":
        forger = ApiScene(
            scene.home,
            client=on.client,
            cluster_id=on.cluster_id,
            task_queue=scene.task_queue,
            world=on.world,
            registry=scene.registry,
            signer=scene.signer,
            voucher=new_key(),
        )
        scene.write_people(ROLES)
        scene = forger
        rule = "token_forged"
    else:
        scene.write_people(ROLES, vouched=False)
        rule = "not_vouched_for"
    async with scene.http() as api:
        body = {"plan": await planned(api, scene)}
        answer = await api.post("/execute", json=body, headers=scene.acting("bob", Prefer="wait=60"))
    assert (answer.status_code, rule_of(answer)) == (403, rule)
    assert on.world.journal == []


async def test_the_same_alert_twice_starts_one_run_and_the_guardian_decides(door: Build) -> None:
    on, scene = await door()
    alert = {"status": "firing", "labels": {"alertname": "PostgresDown", "cluster": on.cluster_id}}
    first = {"alerts": [{**alert, "startsAt": "2026-01-01T00:00:00Z"}]}
    later = {"alerts": [{**alert, "startsAt": "2026-01-01T01:00:00Z"}]}
    async with scene.http() as one, scene.http() as another:

        async def send(api: httpx.AsyncClient, body: dict[str, Any]) -> dict[str, Any]:
            answer = await api.post("/alerts", json=body, headers=scene.signed_in("robot"))
            asked: dict[str, Any] = answer.json()["alerts"][0]
            return asked

        assert "no_guardian" in (await send(one, first))["decision"]
        guardian = await on.start_guardian()
        await until(guardian, all_healthy)
        assert (await send(one, first))["decision"].startswith("nothing to do: node-1 is healthy")
        assert on.world.journal == []

        on.world.kill("node-1")
        await until(guardian, lambda v: v.own_run is not None or v.last_result is not None)
        told = await asyncio.gather(*(send(api, later) for api in (one, another, one, another)))
        assert len({t["alert_id"] for t in told}) == 1
        view = await until(guardian, lambda v: v.last_result is not None)
        assert view.last_result is not None and view.last_result.verified
        runs = (await one.get(f"/clusters/{on.cluster_id}/runs", headers=scene.signed_in("eve"))).json()[
            "runs"
        ]
    assert [run["outcome"] for run in runs] == ["completed"]
    await guardian.terminate()


async def test_readiness_is_evaluated_on_a_worker(door: Build) -> None:
    on, scene = await door()
    async with scene.http() as api:
        answer = await api.get(f"/clusters/{on.cluster_id}/readiness", headers=scene.signed_in("eve"))
    assert answer.json()["readiness"]["cluster_id"] == on.cluster_id


async def test_a_guardian_is_held_and_let_go_on_through_the_api(door: Build) -> None:
    on, scene = await door(approvals=True)
    url = f"/clusters/{on.cluster_id}/guardian"
    async with scene.http() as api:

        async def say(deed: str, person: str = "bob", **more: str) -> httpx.Response:
            body = {"reason": "test", **more}
            return await api.post(f"{url}/{deed}", json=body, headers=scene.acting(person))

        missing = await api.get(url, headers=scene.signed_in("eve"))
        assert (missing.status_code, rule_of(missing), rule_of(await say("pause"))) == (
            404,
            "no_guardian",
            "no_guardian",
        )
        guardian = await on.start_guardian()
        await until(guardian, all_healthy)
        assert (await say("pause", "eve")).status_code == 403
        assert (await say("pause")).json()["answer"].endswith("is paused")
        seen = (await api.get(url, headers=scene.signed_in("eve"))).json()["guardian"]
        assert (seen["primary_node_id"], seen["pause"]["by"]) == ("node-1", "bob")
        assert (await say("resume")).status_code == 200
        view = await until(guardian, lambda v: v.pause is None)
        assert view.history == ()
        unknown = await say("acknowledge", run_id="00000000-0000-4000-8000-000000000000")
        assert (unknown.status_code, rule_of(unknown)) == (422, "run_unknown")
    await guardian.terminate()


async def test_a_region_is_left_by_the_rules_of_the_command_line(door: Build) -> None:
    on, scene = await door(approvals=True)
    url = "/regions/region-1"
    async with scene.http() as api:

        async def start(person: str, **more: Any) -> httpx.Response:
            headers = scene.acting(person, Prefer="wait=60" if "dry_run" in more else "wait=0")
            return await api.post(f"{url}/evacuate", json={"reason": "test", **more}, headers=headers)

        async def seen() -> dict[str, Any]:
            status: dict[str, Any] = (await api.get(url, headers=scene.signed_in("eve"))).json()
            return status

        assert (await start("eve")).status_code == 403
        preview = (await start("bob", dry_run=True)).json()
        assert preview["result"]["outcome"] == "previewed"
        ((move,),) = preview["result"]["plan"]["waves"]
        assert move["cluster_id"] == on.cluster_id
        accepted = await start("bob")
        assert accepted.status_code == 202 and accepted.headers["location"].endswith(url)
        run = f"{url}/runs/{accepted.json()['execution_id']}"
        assert rule_of(await start("bob")) == "evacuation_in_progress"
        async with asyncio.timeout(30):
            while not ((shown := await seen())["progress"] or {}).get("approval"):
                await asyncio.sleep(0.1)
        assert shown["guardian"] is None and shown["evacuation"]["status"] == "running"
        digest = shown["progress"]["approval"]["window"]["digest"]
        own = await api.post(f"{run}/approve", json={"digest": digest}, headers=scene.acting("bob"))
        assert (own.status_code, rule_of(own)) == (403, "initiator_excluded")
        aborted = await api.post(f"{run}/abort", json={"reason": "test"}, headers=scene.acting("bob"))
        assert aborted.status_code == 200
        async with asyncio.timeout(30):
            while (shown := await seen())["result"] is None:
                await asyncio.sleep(0.1)
    assert shown["result"]["outcome"] == "untouched" and on.world.journal == []


async def test_a_run_is_given_time_and_a_step_left_out_through_the_api(door: Build) -> None:
    on, scene = await door(approvals=True)
    on.world.kill("node-1")
    async with scene.http() as api:
        url = f"/clusters/{on.cluster_id}/runs/{(await started(api, scene)).json()['execution_id']}"
        await waiting(api, scene, url)

        async def say(deed: str, person: str = "bob", **more: Any) -> httpx.Response:
            body = {"reason": "test", **more}
            return await api.post(f"{url}/{deed}", json=body, headers=scene.acting(person))

        own = await say("extend", by_s=600)
        assert (own.status_code, rule_of(own)) == (403, "initiator_excluded")
        assert (await say("extend", "ann", by_s=600)).status_code == 200
        seen = (await api.get(url, headers=scene.signed_in("eve"))).json()
        assert seen["progress"]["approval"]["window"]["extended_s"] == 600
        assert (await say("extend", by_s=10**6)).status_code == 422
        for deed, more in (("skip", {"step": "execution"}), ("confirm", {"manual_step": "no-such-step"})):
            refused = await say(deed, **more)
            assert refused.status_code == 422 and rule_of(refused) not in ("not_understood", "no_run")
        assert (await say("abort")).status_code == 200


async def test_what_was_carried_out_before_its_answer_was_lost_is_not_carried_out_again(
    door: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    on, scene = await door(approvals=True)
    on.world.kill("node-1")

    def loses_the_answer_of(kind: type, name: str) -> None:
        """Once, after the server has done it."""
        whole = getattr(kind, name)

        async def lossy(*arguments: Any, **more: Any) -> None:
            monkeypatch.setattr(kind, name, whole)
            await whole(*arguments, **more)
            raise RPCError("gone", RPCStatusCode.UNAVAILABLE, b"")

        monkeypatch.setattr(kind, name, lossy)

    async with scene.http() as api:
        body = {"plan": await planned(api, scene)}

        async def execute() -> httpx.Response:
            headers = scene.acting("bob", key="the-same-key", Prefer="wait=0")
            return await api.post("/execute", json=body, headers=headers)

        async def extend() -> httpx.Response:
            more = {"reason": "test", "by_s": 600}
            return await api.post(f"{url}/extend", json=more, headers=scene.acting("ann", key="more-time"))

        loses_the_answer_of(Client, "start_workflow")
        assert (await execute()).status_code == 503
        found = on.client.get_workflow_handle(failover_id(on.cluster_id))
        run_id = (await found.describe()).run_id
        url = f"/clusters/{on.cluster_id}/runs/{run_id}"
        await waiting(api, scene, url)

        loses_the_answer_of(WorkflowHandle, "execute_update")
        assert (await extend()).status_code == 503
        assert (await extend()).status_code == 200
        seen = (await api.get(url, headers=scene.signed_in("eve"))).json()
        assert seen["progress"]["approval"]["window"]["extended_s"] == 600, "given once"

        aborted = await api.post(f"{url}/abort", json={"reason": "test"}, headers=scene.acting("bob"))
        assert aborted.status_code == 200
        await found.result()
        again = await execute()
        assert (again.status_code, again.json()["execution_id"]) == (202, run_id), "no second failover"
