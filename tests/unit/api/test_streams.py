"""Streams of events: so many at once for each identity, and each has an end."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from temporalio.client import WorkflowExecutionStatus

from qnwis.api import runs
from qnwis.api.streams import MOST_AT_ONCE

from .scene import ApiScene, SilentTemporal, rule_of

EVENTS = "/clusters/c1/runs/00000000-0000-4000-8000-000000000000/events"


class GoesOn(SilentTemporal):
    """A server with a run that goes on until it is ended; whoever follows it is counted once, and waits."""

    def __init__(self) -> None:
        super().__init__()
        self.followed = asyncio.Semaphore(0)
        self.ended = asyncio.Event()

    async def describe(self) -> Any:
        going_on = not self.ended.is_set()
        status = WorkflowExecutionStatus.RUNNING if going_on else WorkflowExecutionStatus.TERMINATED
        return SimpleNamespace(status=status)

    async def query(self, *asked: Any, **more: Any) -> Any:
        self.followed.release()
        await self.ended.wait()
        return await self._refuse("query")


async def test_one_identity_follows_so_many_runs_at_once_and_no_more(tmp_path: Path) -> None:
    temporal = GoesOn()
    scene = ApiScene(tmp_path, client=temporal)
    async with scene.http() as api:

        async def follow(name: str) -> asyncio.Task[Any]:
            stream = asyncio.create_task(api.get(EVENTS, headers=scene.signed_in(name)))
            await temporal.followed.acquire()
            return stream

        streams = [await follow("eve") for _ in range(MOST_AT_ONCE)]
        refused = await api.get(EVENTS, headers=scene.signed_in("eve"))
        assert (refused.status_code, rule_of(refused)) == (429, "too_many_streams")
        assert refused.json()["values"] == {"most_at_once": MOST_AT_ONCE} and refused.headers["retry-after"]
        streams.append(await follow("bob"))
        gone = streams.pop(0)
        gone.cancel()
        await asyncio.wait({gone})
        streams.append(await follow("eve"))
        temporal.ended.set()
        answers = await asyncio.gather(*streams)
        assert {one.status_code for one in answers} == {200} and "event: result" in answers[0].text
        assert (await api.get(EVENTS, headers=scene.signed_in("eve"))).status_code == 200


async def test_a_stream_ends_though_its_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    temporal = GoesOn()

    async def nobody_answers(*asked: Any, **more: Any) -> Any:
        return await temporal._refuse("query")

    monkeypatch.setattr(temporal, "query", nobody_answers)
    monkeypatch.setattr(runs, "LONGEST_S", -1.0)
    scene = ApiScene(tmp_path, client=temporal)
    async with scene.http() as api:
        answer = await api.get(EVENTS, headers=scene.signed_in("eve"))
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/event-stream")
    assert "event: result" not in answer.text
