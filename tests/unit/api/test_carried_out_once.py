"""One key, one run: also where the API is stopped, or Temporal fails, between the start and the answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from temporalio.service import RPCError, RPCStatusCode

from .scene import ApiScene, SilentTemporal, rule_of

RUN_ID = "00000000-0000-4000-8000-000000000001"
STARTS = [
    ("/clusters/c1/maintenance", {"reason": "test"}),
    ("/clusters/c1/maintenance", {"reason": "test", "maintenance": {"back_after_s": 0}}),
    ("/regions/region-1/evacuate", {"reason": "test"}),
]


class Run:
    """A handle; its result never comes, unless the server fails first."""

    id = "a-run"
    result_run_id = first_execution_run_id = RUN_ID

    def __init__(self) -> None:
        self.awaited = asyncio.Event()
        self.server_fails = asyncio.Event()

    async def result(self) -> Any:
        self.awaited.set()
        await self.server_fails.wait()
        raise RPCError("gone", RPCStatusCode.UNAVAILABLE, b"")


class Listed:
    run_id = RUN_ID

    def __init__(self, memo: dict[str, str]) -> None:
        self._memo = memo

    async def memo_value(self, key: str, default: str, *, type_hint: type[str]) -> str:
        return self._memo.get(key, default)


class Starting(SilentTemporal):
    """A server that starts what it is asked to, and may lose its answer to that."""

    def __init__(self, *, loses_its_answer: bool = False) -> None:
        super().__init__()
        self.run = Run()
        self.started: list[tuple[str, dict[str, str]]] = []
        self._loses_its_answer = loses_its_answer

    async def start_workflow(self, *what: Any, id: str, memo: dict[str, str], **more: Any) -> Run:
        self.started.append((id, memo))
        if self._loses_its_answer:
            raise RPCError("gone", RPCStatusCode.UNAVAILABLE, b"")
        return self.run

    def get_workflow_handle(self, workflow_id: str, **more: Any) -> Run:
        return self.run

    async def list_workflows(self, query: str, **more: Any) -> AsyncIterator[Listed]:
        yield Listed({})  # of a run that nobody's request started
        for workflow_id, memo in self.started:
            if f"'{workflow_id}'" in query:
                yield Listed(memo)


async def again(scene: ApiScene, path: str, body: dict[str, Any], **headers: str) -> Any:
    """What another process answers to the same key."""
    async with scene.http() as api:
        return await api.post(path, json=body, headers=scene.acting("bob", key="the-same-key", **headers))


@pytest.mark.parametrize(("path", "body"), [STARTS[0], STARTS[2]])
async def test_a_run_that_is_waited_for_when_temporal_fails_is_named_and_no_other_begins(
    tmp_path: Path, path: str, body: dict[str, Any]
) -> None:
    temporal = Starting()
    temporal.run.server_fails.set()
    scene = ApiScene(tmp_path, client=temporal)
    first = await again(scene, path, body, Prefer="wait=60")
    assert (first.status_code, first.json()["execution_id"]) == (202, RUN_ID)
    second = await again(scene, path, body, Prefer="wait=0")
    assert second.json() == first.json() and second.headers["idempotency-replayed"] == "true"
    assert len(temporal.started) == 1


@pytest.mark.parametrize(("path", "body"), [STARTS[0], STARTS[2]])
async def test_a_run_that_is_waited_for_when_the_api_is_stopped_keeps_its_key(
    tmp_path: Path, path: str, body: dict[str, Any]
) -> None:
    temporal = Starting()
    scene = ApiScene(tmp_path, client=temporal)
    waiting = asyncio.create_task(again(scene, path, body, Prefer="wait=60"))
    await temporal.run.awaited.wait()
    waiting.cancel()
    await asyncio.wait({waiting})
    answer = await again(scene, path, body, Prefer="wait=0")
    assert (answer.status_code, answer.json()["execution_id"]) == (202, RUN_ID)
    assert answer.headers["idempotency-replayed"] == "true" and len(temporal.started) == 1


@pytest.mark.parametrize(("path", "body"), STARTS)
async def test_what_was_started_without_an_answer_is_found_by_the_same_key(
    tmp_path: Path, path: str, body: dict[str, Any]
) -> None:
    temporal = Starting(loses_its_answer=True)
    scene = ApiScene(tmp_path, client=temporal)
    lost = await again(scene, path, body)
    assert (lost.status_code, rule_of(lost)) == (503, "unreachable")
    answer = await again(scene, path, body, Prefer="wait=0")
    assert (answer.status_code, answer.json()["execution_id"]) == (202, RUN_ID)
    assert len(temporal.started) == 1
    async with scene.http() as api:
        await api.post(path, json=body, headers=scene.acting("bob"))
    assert len(temporal.started) == 2, "another key is another deed"
