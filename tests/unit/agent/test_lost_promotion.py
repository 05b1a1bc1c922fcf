"""A begun promotion whose database does not come back is refused once nothing can come of it, not before."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from qnwis.agent import effects, lost_promotion
from qnwis.agent.database import Connection, Facts
from qnwis.agent.deadline import Deadline
from qnwis.agent.effects import EffectError, Node
from qnwis.agent.guarding import Guarding
from qnwis.agent.journal import JOURNAL, Journal, Line, Mark
from qnwis.agent.lease import Leases, found_cluster, records_of
from qnwis.agent.lost_promotion import GIVEN_UP_AFTER_S
from qnwis.agent.orders import Orders
from qnwis.agent.peers import Peers
from qnwis.agent.postgres import Postgres
from qnwis.agent.quiescing import Quiescing
from qnwis.agent.receiving import Receiving
from qnwis.agent.speaking import Speaker
from qnwis.continuity.lease_messages import LastGrant
from qnwis.continuity.orders import AnyOrder, DemoteOrder, PromoteOrder
from qnwis.continuity.refusal import Refusal
from qnwis.transport import Transport

from .own import own_config

PROMOTE = PromoteOrder(effect_id="promote", run_id="run", epoch=5)
FINAL_S = GIVEN_UP_AFTER_S + 5
"""What the keeper waits by default is in it."""


class Begun:
    """The only member of its cluster, a standby that was granted the lease of a promotion, and then ended."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.config = own_config(folder, peers=())
        database = self.config.database
        database.data_dir.mkdir()
        self.signal = database.data_dir / "standby.signal"
        self.signal.touch()
        found_cluster(self.config)
        peers, state = Peers(self.config), self.config.state_dir
        self.speaker = Speaker(Transport())
        self.leases = Leases(self.config, peers, self.speaker)
        postgres = Postgres(self.config, database, peers)
        connection = Connection(database, database.superuser)
        self.node = Node(
            "own",
            postgres,
            connection,
            self.leases,
            Guarding(database.data_dir, state / "guard.log"),
            Receiving(postgres, connection, state, reserve_s=600),
            Quiescing(postgres, state / "quiesced"),
            Deadline(state / "handed-over"),
        )
        self.journal = Journal(state / JOURNAL)
        self.orders = Orders(self.config, peers, self.leases, self.journal, self.node)
        self.now_s = 0.0
        monkeypatch.setattr(lost_promotion, "now", lambda: self.now_s)

    async def begin(self) -> None:
        """The primary of before, no member any more, has released its lease."""
        grantor, holder = self.leases.view
        was = LastGrant(epoch=4, holder="primary", duration_s=3, released=True)
        record = grantor.record.model_copy(update={"epoch": 4, "run_id": "before", "granted": was})
        self.leases.keep(grantor.model_copy(update={"record": record}), holder)
        assert self.leases.obey(PROMOTE.epoch) is None
        self.began(PROMOTE)
        assert await self.leases.acquire(PROMOTE.epoch, PROMOTE.run_id) is None

    def began(self, order: AnyOrder) -> None:
        self.journal.append(Line(at=datetime.now(UTC), mark=Mark.INTENT, order=order))

    @property
    def granted(self) -> tuple[int, str, bool]:
        """The epoch, the holder and the release of the last grant that counts, as it is on disk."""
        grantor, _ = records_of(self.config)
        assert grantor is not None and grantor.granted is not None
        return grantor.granted.epoch, grantor.granted.holder, grantor.granted.released

    async def until_final(self) -> None:
        """The run asks for long enough."""
        with pytest.raises(EffectError, match="cannot go on"):
            await self.orders.obey(PROMOTE)
        self.now_s += FINAL_S


@pytest.fixture
async def begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Begun]:
    agent = Begun(tmp_path, monkeypatch)
    await agent.begin()
    yield agent
    agent.leases.close()
    await agent.speaker.aclose()


async def test_it_is_refused_once_its_lease_is_released_for_good(
    begun: Begun, monkeypatch: pytest.MonkeyPatch
) -> None:
    await begun.until_final()
    assert begun.leases.held
    answer = await begun.orders.obey(PROMOTE)
    assert isinstance(answer, Refusal) and answer.rule == "promotion_lost"
    assert not begun.leases.held
    _, holder = records_of(begun.config)
    assert holder is not None and holder.released_epoch == PROMOTE.epoch
    assert begun.journal.lines[-1].mark is Mark.REFUSED
    assert begun.granted == (4, "primary", True)

    # Nor is it carried out where its database comes back after all, and the answer was lost.
    async def promote(*_: object) -> object:
        async def effect() -> None:
            raise AssertionError("it is carried out")

        return effect

    monkeypatch.setattr("qnwis.agent.orders.promote", promote)
    again = await begun.orders.obey(PROMOTE)
    assert isinstance(again, Refusal) and again.rule == "promotion_lost"
    refused = await begun.leases.acquire(PROMOTE.epoch, PROMOTE.run_id)
    assert refused is not None and refused.rule == "epoch_gone"


async def test_that_nothing_came_of_it_is_said_though_its_agent_released_it_when_that_ended(
    begun: Begun,
) -> None:
    assert begun.node.give_up()
    assert begun.granted == (5, "own", True)
    answer = await begun.orders.obey(PROMOTE)
    assert isinstance(answer, Refusal) and answer.rule == "promotion_lost"
    assert begun.granted == (4, "primary", True)


async def test_one_that_may_have_come_to_a_primary_is_not_refused(begun: Begun) -> None:
    await begun.until_final()
    begun.signal.unlink()
    with pytest.raises(EffectError, match="cannot go on"):
        await begun.orders.obey(PROMOTE)
    assert begun.leases.held and begun.granted == (5, "own", False)


async def test_that_an_order_made_it_a_standby_again_says_nothing_of_the_promotion(begun: Begun) -> None:
    await begun.until_final()
    begun.began(DemoteOrder(effect_id="demote", run_id="person", epoch=5))
    with pytest.raises(EffectError, match="cannot go on"):
        await begun.orders.obey(PROMOTE)
    assert begun.leases.held


async def test_one_that_was_made_a_standby_under_that_epoch_before_says_nothing_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have been the primary under it before that."""
    agent = Begun(tmp_path, monkeypatch)
    agent.began(DemoteOrder(effect_id="demote", run_id="person", epoch=5))
    await agent.begin()
    await agent.until_final()
    with pytest.raises(EffectError, match="cannot go on"):
        await agent.orders.obey(PROMOTE)
    assert agent.granted == (5, "own", False)
    agent.leases.close()
    await agent.speaker.aclose()


async def test_while_a_process_of_its_database_is_left_it_is_not_refused(begun: Begun) -> None:
    await begun.until_final()
    left = await asyncio.create_subprocess_exec("sleep", "600", cwd=begun.node.postgres.data_dir)
    try:
        with pytest.raises(EffectError, match="cannot go on"):
            await begun.orders.obey(PROMOTE)
        assert begun.leases.held
    finally:
        left.kill()
        await left.wait()


async def test_the_time_begins_anew_where_the_database_answered(
    begun: Begun, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def answers(_: Node) -> Facts:
        return cast(Facts, SimpleNamespace(in_recovery=True))

    await begun.until_final()
    with monkeypatch.context() as up:
        up.setattr(Node, "facts", answers)
        up.setattr(effects, "_ask_promotion", down)
        with pytest.raises(EffectError, match="not known to be complete"):
            await begun.orders.obey(PROMOTE)
    with pytest.raises(EffectError, match="cannot go on"):
        await begun.orders.obey(PROMOTE)
    assert begun.leases.held


async def down(*_: object) -> None:
    raise OSError("it ended again")


async def test_one_that_never_came_to_ask_for_the_lease_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = Begun(tmp_path, monkeypatch)
    agent.began(PROMOTE)
    answer = await agent.orders.obey(PROMOTE)
    assert isinstance(answer, Refusal) and answer.rule == "database_down"
    await agent.speaker.aclose()
