"""One look a second tells every lock whose runs changed, and no other; over a server that a test plays."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import cast

import pytest
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from activities import run_changes
from activities.run_changes import RunChanges, changed_or_anyhow


@dataclass(frozen=True)
class Listed:
    id: str
    run_id: str
    status: str = "running"


class Server:
    """Its list of executions, and how often it was asked for it."""

    def __init__(self) -> None:
        self.listed: list[Listed] = []
        self.looks = 0
        self.gone = False

    async def list_workflows(self, query: str) -> AsyncIterator[Listed]:
        assert query.startswith("WorkflowId STARTS_WITH 'lock-' AND (StartTime > '20")
        self.looks += 1
        if self.gone:
            raise RPCError("gone", RPCStatusCode.UNAVAILABLE, b"")
        for one in list(self.listed):
            yield one

    async def looked(self, times: int = 2) -> None:
        """A look that begins now has ended."""
        seen = self.looks
        while self.looks < seen + times:
            await asyncio.sleep(0.001)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    monkeypatch.setattr(run_changes, "LOOK_EVERY_S", 0.005)
    return Server()


def changes(server: Server) -> RunChanges:
    return RunChanges(cast(Client, server), "lock-")


async def test_a_run_that_begins_or_ends_is_told_once_and_to_its_own_lock(server: Server) -> None:
    one = changes(server)
    with one.of("lock-a") as a, one.of("lock-a") as again, one.of("lock-b") as b:
        await server.looked()
        assert not a.is_set() and not b.is_set()
        server.listed = [Listed("lock-a", "1")]
        async with asyncio.timeout(5):
            await asyncio.gather(a.wait(), again.wait())
        assert not b.is_set()
        a.clear()
        await server.looked()
        assert not a.is_set(), "it goes on"
        server.listed = [Listed("lock-a", "1", "completed")]
        async with asyncio.timeout(5):
            await a.wait()
        assert not b.is_set()


async def test_many_locks_cost_one_look(server: Server) -> None:
    one = changes(server)
    with one.of("lock-a"):
        await server.looked()
        with one.of("lock-b"), one.of("lock-c"):
            before = len([task for task in asyncio.all_tasks() if "_keep_looking" in repr(task)])
            assert before == 1
            await server.looked()


async def test_it_looks_on_while_the_server_is_gone_and_after_that(server: Server) -> None:
    one = changes(server)
    server.gone = True
    with one.of("lock-a") as a:
        await server.looked()
        server.gone, server.listed = False, [Listed("lock-a", "1")]
        async with asyncio.timeout(5):
            await a.wait()


async def test_it_looks_no_more_when_nobody_waits_and_again_for_the_next(server: Server) -> None:
    one = changes(server)
    with one.of("lock-a"):
        await server.looked()
    while any("_keep_looking" in repr(task) for task in asyncio.all_tasks()):
        await asyncio.sleep(0.001)
    server.listed = [Listed("lock-b", "2")]
    with one.of("lock-b") as b:
        async with asyncio.timeout(5):
            await b.wait()


async def test_a_lock_of_which_nothing_is_told_is_looked_at_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(run_changes, "ANYHOW_S", 0.01)
    async with asyncio.timeout(5):
        await changed_or_anyhow(asyncio.Event())


async def test_a_change_is_taken_back_when_it_was_heard(server: Server) -> None:
    changed = asyncio.Event()
    changed.set()
    await changed_or_anyhow(changed)
    assert not changed.is_set()
