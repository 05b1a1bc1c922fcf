"""Made-up requests to the API on a real Temporal server with workers: no 5xx, no undocumented answer."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import httpx
import pytest

from qnwis.api.app import create_app
from qnwis.config.api import ApiFile
from qnwis.continuity.requests import Limits
from qnwis.providers.audit_store import SqliteAuditStore
from tests.unit.api.made_up import answers_conform, with_headers
from tests.unit.api.scene import ApiScene, stamped

from .conftest import Setting


@pytest.mark.timeout(7200)
async def test_made_up_requests_are_answered_by_what_stands_behind_the_api(
    stage: Setting, tmp_path: Path
) -> None:
    on = await stage()
    assert isinstance(on.providers.audit, SqliteAuditStore)
    scene = ApiScene(
        tmp_path,
        ApiFile(limits=Limits(per_minute=1e9, burst=10**9)),
        client=on.client,
        cluster_id=on.cluster_id,
        task_queue=on.settings.task_queue,
        world=on.world,
        registry=on.settings.config_dir,
        audit=on.providers.audit,
    )
    guardian = await on.start_guardian()
    async with scene.http() as api:

        async def send(asked: dict[str, Any]) -> httpx.Response:
            answer = await api.request(**with_headers(asked, {**scene.signed_in("ann"), **stamped()}))
            if answer.status_code == 201:  # a cluster was made up, whose machines nobody has
                shutil.rmtree(on.settings.config_dir / "clusters" / answer.json()["cluster"]["cluster_id"])
            return answer

        # What is there: a plan, a run that has ended, and its record.
        body = {"cluster": {"cluster_id": on.cluster_id}}
        plan = (await api.post("/plan", json=body, headers=scene.signed_in("ann"))).json()
        preview = await api.post(
            "/execute",
            json={"plan": {"plan_id": plan["plan_id"]}, "dry_run": True, "even_if_healthy": True},
            headers=scene.acting("ann", Prefer="wait=60"),
        )
        known = {
            "cluster_id": on.cluster_id,
            "plan_id": plan["plan_id"],
            "run_id": preview.json()["execution_id"],
            "audit_id": preview.json()["audit_id"],
            "region": "region-1",
        }
        statuses = await answers_conform(create_app(scene.parts).openapi(), send, known)
    assert statuses[200] and statuses[404] and statuses[422]
    await guardian.terminate()
