"""A prepare takes as long as a checkpoint takes, and no other order waits for that."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from qnwis.agent import orders, quiesce
from qnwis.agent.effects import Decision, Done
from qnwis.agent.journal import Journal
from qnwis.agent.orders import Orders
from qnwis.continuity.orders import PrepareOrder, PromoteOrder, Receipt
from tests.looking import WITHIN_S


class Receiving:
    """Counts the orders that are carried out while it must not be let go."""

    def __init__(self) -> None:
        self.depth = 0

    def ordered(self) -> Receiving:
        return self

    def __enter__(self) -> None:
        self.depth += 1

    def __exit__(self, *error: object) -> None:
        self.depth -= 1

    def forget(self) -> None: ...


class Checkpoint:
    """One that is written until it is told to end."""

    def __init__(self) -> None:
        self.begun, self.ends = asyncio.Event(), asyncio.Event()
        self.written = 0

    async def prepare(self, node: object, order: PrepareOrder) -> Decision:
        async def effect() -> Done:
            self.begun.set()
            self.written += 1
            await self.ends.wait()
            return Done("written")

        return effect


@pytest.fixture
def checkpoint(monkeypatch: pytest.MonkeyPatch) -> Checkpoint:
    async def promoted(node: Any, order: PromoteOrder) -> Decision:
        async def effect() -> Done:
            assert node.receiving.depth == 1
            return Done("promoted")

        return effect

    written = Checkpoint()
    monkeypatch.setattr(orders, "prepare", written.prepare)
    monkeypatch.setattr(orders, "promote", promoted)
    return written


def door(home: Path) -> Orders:
    anything: Any = SimpleNamespace
    leases = anything(epoch=4, obey=lambda epoch: None)
    node = anything(postgres=anything(refuse_foreign=lambda: None), receiving=Receiving())
    config = anything(node_id="node-2", return_after_s=5)
    return Orders(config, anything(), leases, Journal(home / "journal"), node)


PREPARE = PrepareOrder(effect_id="switchover/1-prepare", run_id="switchover", epoch=4)
PROMOTE = PromoteOrder(effect_id="failover/2-promote", run_id="failover", epoch=5)


async def test_a_promotion_waits_for_no_checkpoint(tmp_path: Path, checkpoint: Checkpoint) -> None:
    """Whoever asked for it has given up, and then the primary has died."""
    agent = door(tmp_path)
    preparing = asyncio.create_task(agent.obey(PREPARE))
    async with asyncio.timeout(WITHIN_S):
        await checkpoint.begun.wait()
        promoted = await agent.obey(PROMOTE)
    assert isinstance(promoted, Receipt) and promoted.detail == "promoted"
    assert not preparing.done()
    checkpoint.ends.set()
    assert isinstance(await preparing, Receipt)


async def test_one_that_is_sent_again_gets_the_receipt_of_the_first(
    tmp_path: Path, checkpoint: Checkpoint
) -> None:
    agent = door(tmp_path)
    first, again = (asyncio.create_task(agent.obey(PREPARE)) for _ in range(2))
    await checkpoint.begun.wait()
    checkpoint.ends.set()
    done, same = await first, await again
    assert isinstance(done, Receipt) and isinstance(same, Receipt)
    assert (done.changed, same.changed, checkpoint.written) == (True, False, 1)


class Database:
    """One connection; while it writes the checkpoint, something comes to pass."""

    def __init__(self, meanwhile: Callable[[], None]) -> None:
        self.asked: list[str] = []
        self._meanwhile = meanwhile

    async def row(self, query: str, **_: object) -> dict[str, Any]:
        self.asked.append(query)
        if query == "CHECKPOINT":
            self._meanwhile()
        return {"ended": 1, "lsn": 1, "standbys": {}}

    async def close(self) -> None: ...


@pytest.mark.parametrize(
    ("standby", "promoted", "epoch", "ends"),
    [
        (False, False, 4, True),
        (False, False, 5, False),
        (True, False, 4, False),
        (True, True, 4, False),
        (True, True, 5, False),
    ],
)
async def test_a_prepare_that_outlived_its_run_ends_no_log_file_of_another_primary(
    standby: bool, promoted: bool, epoch: int, ends: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its checkpoint took so long that the standby was promoted, whose commits would wait for that."""
    anything: Any = SimpleNamespace
    node = anything(
        node_id="node-2",
        postgres=anything(standby=standby, database=anything(superuser=None)),
        leases=anything(epoch=4, sought=4),
    )

    def meanwhile() -> None:
        node.postgres.standby = standby and not promoted
        node.leases.epoch = node.leases.sought = epoch

    database = Database(meanwhile)
    monkeypatch.setattr(quiesce, "Connection", lambda *_: database)
    effect = await quiesce.prepare(node, PREPARE)
    assert callable(effect)
    done = await effect()
    assert isinstance(done, Done) and done.detail.endswith("begun a new log file") is ends
    assert (quiesce._END_LOG_FILE in database.asked) is ends
