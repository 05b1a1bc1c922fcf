"""How often a standby tries to reach its upstream: often, until that has been away for long."""

from __future__ import annotations

from pathlib import Path

import pytest

from qnwis.agent import receiving, settings
from qnwis.agent.database import Connection, Facts
from qnwis.agent.peers import Peers
from qnwis.agent.postgres import Postgres
from qnwis.agent.receiving import AWAY_S, Receiving
from qnwis.continuity.membership import Peer
from qnwis.continuity.topology import Database
from tests.no_room import NoRoom

from .own import ACCOUNT, STREAMS, own_config

OTHER = Peer(node_id="other", agent_url="http://127.0.0.2:1", database=Database(host="127.0.0.2", port=2))
OFTEN, SELDOM = "50ms", "5s"
ALONE = STREAMS.model_copy(update={"streaming": False})


class Standby:
    """One that follows `other`, and what its agent makes of what it says at some moments."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        config = own_config(folder, peers=(OTHER,))
        assert config.database is not None
        for made in (config.state_dir, config.database.data_dir):
            made.mkdir()
        (config.database.data_dir / "PG_VERSION").touch()
        self.file = config.database.data_dir / "postgresql.auto.conf"
        self.postgres = Postgres(config, config.database, Peers(config))
        self.postgres.keep_standby()
        self.postgres.set_upstream(OTHER)
        connection = Connection(config.database, ACCOUNT)
        self.receiving = Receiving(self.postgres, connection, config.state_dir, reserve_s=60)
        self._at_s = 1000.0
        monkeypatch.setattr(receiving, "now", lambda: self._at_s)

    def seen(self, facts: Facts | None, after_s: float = 0.0) -> str:
        """How often it tries by then."""
        self._at_s += after_s
        self.receiving.seen(facts)
        return self.tries

    @property
    def tries(self) -> str:
        return settings.read_settings(self.file.read_text())[settings.RETRY]


@pytest.fixture
def standby(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Standby:
    return Standby(tmp_path, monkeypatch)


def test_a_standby_whose_upstream_is_away_for_long_tries_seldom_until_it_streams_again(
    standby: Standby,
) -> None:
    assert standby.seen(STREAMS) == OFTEN
    assert standby.seen(ALONE, 600) == OFTEN, "it may just have broken"
    assert standby.seen(ALONE, AWAY_S - 1) == OFTEN
    assert standby.seen(ALONE, 2) == SELDOM
    assert standby.seen(None, 600) == SELDOM, "of one that says nothing, nothing is known"
    assert standby.seen(STREAMS) == OFTEN
    assert standby.seen(ALONE, AWAY_S) == OFTEN


def test_a_primary_waits_for_nobody(standby: Standby) -> None:
    standby.seen(ALONE)
    assert standby.seen(ALONE, AWAY_S + 1) == SELDOM
    assert standby.seen(ALONE.model_copy(update={"in_recovery": False})) == OFTEN


async def test_one_that_promises_a_run_or_is_told_to_follow_tries_often_again(standby: Standby) -> None:
    standby.seen(ALONE)
    assert standby.seen(ALONE, AWAY_S + 1) == SELDOM
    assert await standby.receiving.hold() is None
    assert standby.tries == OFTEN
    assert standby.seen(ALONE, AWAY_S - 1) == OFTEN
    assert standby.seen(ALONE, AWAY_S + 1) == SELDOM
    standby.receiving.receive_from(OTHER)
    assert standby.tries == OFTEN


def test_a_full_disk_is_no_fault_of_the_agent(standby: Standby) -> None:
    standby.seen(ALONE)
    disk = NoRoom(standby.file)
    disk.fill()
    assert standby.seen(ALONE, AWAY_S + 1) == OFTEN
    disk.free()
    standby.postgres.set_settings({})
    assert standby.tries == SELDOM
