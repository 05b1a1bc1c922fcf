"""What a run began and nobody ended ends by itself, also where the disk took nothing at that moment."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from qnwis.agent import quiescing, receiving, settings
from qnwis.agent.config import Account, AgentConfig, LocalDatabase
from qnwis.agent.database import Connection
from qnwis.agent.peers import Peers
from qnwis.agent.postgres import Postgres
from qnwis.agent.quiescing import Quiescing
from qnwis.agent.receiving import Receiving
from qnwis.agent.two_copies import read_copies
from qnwis.continuity.membership import Peer
from qnwis.continuity.topology import Database, NodeRole
from tests.looking import WITHIN_S, Looks
from tests.no_room import NoRoom

ACCOUNT = Account(user="any")
OTHER = Peer(node_id="other", agent_url="http://127.0.0.2:1", database=Database(host="127.0.0.2", port=2))


@pytest.fixture
def postgres(tmp_path: Path) -> Postgres:
    """Whose postmaster does not run."""
    database = LocalDatabase(
        host="127.0.0.1",
        port=1,
        data_dir=tmp_path / "data",
        pg_bin=tmp_path,
        superuser=ACCOUNT,
        replication=ACCOUNT,
    )
    config = AgentConfig(
        cluster_id="c",
        node_id="own",
        role=NodeRole.PRIMARY,
        listen_host="127.0.0.1",
        state_dir=tmp_path,
        database=database,
        peers=(OTHER,),
    )
    database.data_dir.mkdir()
    (database.data_dir / "PG_VERSION").touch()
    return Postgres(config, database, Peers(config))


@pytest.fixture
def disk(postgres: Postgres) -> NoRoom:
    return NoRoom(postgres.data_dir / "postgresql.auto.conf")


def heard(monkeypatch: pytest.MonkeyPatch, module: object, wanted: str) -> asyncio.Event:
    """Set once the module logs that it could not; it then tries again soon."""
    said = asyncio.Event()
    monkeypatch.setattr(module, "log", lambda event, **_: said.set() if event == wanted else None)
    monkeypatch.setattr(module, "AGAIN_S", 0.01)
    return said


def written(postgres: Postgres) -> dict[str, str]:
    return dict(settings.read_settings((postgres.data_dir / "postgresql.auto.conf").read_text()))


async def test_writes_are_let_in_once_a_full_disk_has_room(
    postgres: Postgres, disk: NoRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = heard(monkeypatch, quiescing, "writes_not_let_in")
    file = postgres.config.state_dir / "quiesced"
    Quiescing(postgres, file).begin(0.01)
    assert written(postgres)[settings.READ_ONLY] == "on"
    disk.fill()
    async with asyncio.timeout(WITHIN_S):
        await said.wait()
        disk.free()
        looks = Looks()
        while read_copies(file).text:
            await looks.again()
    assert settings.READ_ONLY not in written(postgres)


async def test_writes_that_were_stopped_by_half_are_let_in_too(
    postgres: Postgres, disk: NoRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = postgres.config.state_dir / "quiesced"
    heard(monkeypatch, quiescing, "writes_not_let_in")
    disk.fill()
    with pytest.raises(OSError, match="postgresql"):
        Quiescing(postgres, file).begin(0.01)
    disk.free()
    async with asyncio.timeout(WITHIN_S):
        looks = Looks()
        while read_copies(file).text:
            await looks.again()
    assert not postgres.quiesced


async def test_a_standby_that_was_held_is_let_go_once_a_full_disk_has_room(
    postgres: Postgres, disk: NoRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = heard(monkeypatch, receiving, "receiver_still_held")
    postgres.keep_standby()
    file = postgres.config.state_dir / "held-upstream"
    file.write_text(OTHER.node_id)
    disk.fill()
    Receiving(postgres, Connection(postgres.database, ACCOUNT), postgres.config.state_dir, reserve_s=0.01)
    async with asyncio.timeout(WITHIN_S):
        await said.wait()
        disk.free()
        looks = Looks()
        while read_copies(file).text:
            await looks.again()
    assert postgres.upstream == OTHER
