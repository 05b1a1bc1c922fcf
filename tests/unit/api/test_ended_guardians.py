"""What the API, and by it the console, say of guardians that a person has ended; and in a namespace that the
Temporal server does not know, of anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from temporalio.client import (
    WorkflowExecutionStatus,
    WorkflowQueryFailedError,
    WorkflowQueryRejectedError,
)
from temporalio.common import QueryRejectCondition
from temporalio.service import RPCError, RPCStatusCode

from tests.unit.test_temporal import no_namespace

from .scene import ApiScene, SilentTemporal, rule_of


class Ended(SilentTemporal):
    """A server on which every guardian was terminated, and on which nothing else ever ran."""

    def get_workflow_handle_for(self, *_: Any) -> Ended:
        return self

    async def describe(self) -> Any:
        raise RPCError("workflow not found", RPCStatusCode.NOT_FOUND, b"")

    async def query(self, _: Any, *, reject_condition: Any = None, rpc_timeout: Any = None) -> Any:
        assert reject_condition is QueryRejectCondition.NOT_OPEN, "else it would answer as it was"
        raise WorkflowQueryRejectedError(WorkflowExecutionStatus.TERMINATED)


class Unable(Ended):
    """One whose guardians do not know what they are asked."""

    async def query(self, _: Any, **__: Any) -> Any:
        raise WorkflowQueryFailedError("no such query")


STATUS = {"cluster": {"cluster_id": "c1"}}


async def test_a_guardian_that_has_ended_is_none(tmp_path: Path) -> None:
    scene = ApiScene(tmp_path, client=Ended())
    async with scene.http() as api:
        own = await api.get("/clusters/c1/guardian", headers=scene.signed_in("eve"))
        status = await api.post("/status", json=STATUS, headers=scene.signed_in("eve"))
        region = await api.get("/regions/region-1", headers=scene.signed_in("eve"))
    assert (own.status_code, rule_of(own)) == (404, "no_guardian")
    assert "has ended (terminated)" in own.json()["detail"]
    assert "has ended (terminated)" in status.json()["guardian_note"]
    assert region.status_code == 200 and region.json()["guardian"] is None


async def test_a_guardian_that_cannot_answer_is_no_failure_of_the_api(tmp_path: Path) -> None:
    scene = ApiScene(tmp_path, client=Unable())
    async with scene.http() as api:
        own = await api.get("/clusters/c1/guardian", headers=scene.signed_in("eve"))
        status = await api.post("/status", json=STATUS, headers=scene.signed_in("eve"))
    assert (own.status_code, rule_of(own)) == (503, "unreachable")
    assert "no such query" in status.json()["guardian_note"]


class Elsewhere(SilentTemporal):
    """A server that does not know the client's namespace."""

    async def _refuse(self, name: str) -> Any:
        raise no_namespace()


async def test_in_another_namespace_nothing_is_said_to_be_missing(tmp_path: Path) -> None:
    scene = ApiScene(tmp_path, client=Elsewhere())
    run = "/clusters/c1/runs/00000000-0000-4000-8000-000000000000"
    async with scene.http() as api:
        answers = [
            await api.get(url, headers=scene.signed_in("eve"))
            for url in (run, "/regions/region-1", "/clusters/c1/guardian")
        ]
        seen = (await api.get("/clusters/c1", headers=scene.signed_in("eve"))).json()
        headers = scene.acting("ann", **{"If-Match": seen["digest"]})
        answers.append(
            await api.put("/clusters/c1", json=seen["cluster"] | {"name": "other"}, headers=headers)
        )
    assert [(one.status_code, rule_of(one)) for one in answers] == [(503, "unreachable")] * 4
