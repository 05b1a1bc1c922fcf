"""A promise that is given while an order is decided: the standby is held, whatever the order meant."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from qnwis.agent import follow, orders, rejoin
from qnwis.agent.database import Connection, Facts
from qnwis.agent.effects import AlreadySo, Decision, Done, Node
from qnwis.agent.journal import JOURNAL, Journal, Line, Mark
from qnwis.agent.lease import Leases, found_cluster
from qnwis.agent.orders import Orders
from qnwis.agent.peers import Peers
from qnwis.agent.postgres import Postgres
from qnwis.agent.receiving import Receiving
from qnwis.agent.speaking import Speaker
from qnwis.agent.two_copies import read_copies
from qnwis.continuity.lease_messages import Promised, PromiseRequest
from qnwis.continuity.membership import Peer
from qnwis.continuity.orders import FollowOrder, PromoteOrder, Receipt, RejoinOrder
from qnwis.continuity.refusal import Refusal
from qnwis.continuity.topology import Database
from qnwis.transport import Transport

from .own import STREAMS, own_config

OTHER = Peer(node_id="other", agent_url="http://127.0.0.2:1", database=Database(host="127.0.0.2", port=2))
THEIRS = STREAMS.model_copy(update={"in_recovery": False, "write_lsn": 7, "streaming": False})
FOLLOW = FollowOrder(effect_id="follow", run_id="run", epoch=5, upstream=OTHER.node_id)
PROMOTE = PromoteOrder(effect_id="promote", run_id="run", epoch=5)
REJOIN = RejoinOrder(effect_id="rejoin", run_id="run", epoch=5, upstream=OTHER.node_id)


class Standby:
    """Follows `other`, and says that it streams; there is no postmaster."""

    def __init__(self, folder: Path) -> None:
        self.config = own_config(folder, peers=(OTHER,))
        database = self.config.database
        database.data_dir.mkdir()
        for name in ("PG_VERSION", "standby.signal"):
            (database.data_dir / name).touch()
        found_cluster(self.config)
        self.peers, self.speaker = Peers(self.config), Speaker(Transport())
        self.leases = Leases(self.config, self.peers, self.speaker)
        self.postgres = Postgres(self.config, database, self.peers)
        self.postgres.set_upstream(OTHER)
        self.receiving = Receiving(
            self.postgres, Connection(database, database.superuser), self.config.state_dir, reserve_s=600
        )
        self.node = cast(
            Node,
            SimpleNamespace(
                node_id="own", postgres=self.postgres, receiving=self.receiving, facts=self._facts
            ),
        )
        self.journal = Journal(self.config.state_dir / JOURNAL)
        self.orders = Orders(self.config, self.peers, self.leases, self.journal, self.node)

    async def _facts(self) -> Facts:
        return STREAMS

    async def promise(self, epoch: int) -> None:
        """As a run asks for it."""
        request = PromiseRequest(epoch=epoch, run_id="later", membership_version=1)
        assert isinstance(self.leases.promise(request), Promised)
        assert await self.receiving.hold() is None

    @property
    def held(self) -> bool:
        return (
            bool(read_copies(self.config.state_dir / "held-upstream").text) and self.postgres.upstream is None
        )


@pytest.fixture
def standby(tmp_path: Path) -> Standby:
    return Standby(tmp_path)


@pytest.mark.parametrize("order", [FOLLOW, REJOIN])
@pytest.mark.parametrize("already", [False, True])
async def test_an_order_that_a_promise_overtakes_while_it_is_decided_is_refused(
    standby: Standby, order: FollowOrder | RejoinOrder, already: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def effect() -> Done:
        standby.receiving.receive_from(OTHER)
        return Done("connected")

    async def decide(*_: object, **__: object) -> Decision:
        await standby.promise(6)
        return AlreadySo("streams already") if already else effect

    monkeypatch.setattr(orders, order.kind, decide)
    answer = await standby.orders.obey(order)

    assert isinstance(answer, Refusal) and answer.rule == "epoch_superseded"
    assert standby.held
    assert [line.mark for line in standby.journal.lines] == [Mark.REFUSED]


async def test_a_begun_promotion_that_a_promise_overtakes_is_judged_by_what_came_of_it(
    standby: Standby, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refusal would say that nothing did."""

    async def decide(*_: object) -> Decision:
        await standby.promise(6)
        return AlreadySo("a primary already")

    async def promoted(*_: object) -> AlreadySo:
        return AlreadySo("the primary, by now under a later epoch")

    monkeypatch.setattr(orders, "promote", decide)
    monkeypatch.setattr(orders, "promoted_since", promoted)
    standby.journal.append(Line(at=datetime.now(UTC), mark=Mark.INTENT, order=PROMOTE))
    answer = await standby.orders.obey(PROMOTE)
    assert isinstance(answer, Receipt) and answer.changed and "by now" in answer.detail


async def test_a_standby_that_is_held_already_does_not_follow(standby: Standby) -> None:
    """Its receiver may need a moment to end; by then an order of the run that holds it may be here."""
    await standby.promise(5)
    decision = await follow.follow(standby.node, FOLLOW, OTHER)
    assert not isinstance(decision, AlreadySo | Refusal)


async def test_a_standby_that_is_held_while_its_upstream_is_asked_has_not_rejoined(
    standby: Standby, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rejoin, "Connection", lambda *_: Upstream(lambda: standby.promise(5)))
    decision = await rejoin.rejoin(standby.node, REJOIN, OTHER, interrupted=False, mark=lambda _: None)
    assert not isinstance(decision, AlreadySo | Refusal)


class Upstream:
    """Answers, and takes a moment in which something comes to pass."""

    def __init__(self, meanwhile: Callable[[], Awaitable[None]]) -> None:
        self._meanwhile = meanwhile

    async def facts(self) -> Facts:
        await self._meanwhile()
        return THEIRS

    async def history(self, _: Any) -> str:
        return ""

    async def close(self) -> None:
        pass
