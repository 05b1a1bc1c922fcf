"""When the keeper starts a database, and what it makes of a full disk; a shell stands for the database."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from qnwis.agent import settings
from qnwis.agent.database import Connection
from qnwis.agent.deadline import Deadline
from qnwis.agent.effects import Node
from qnwis.agent.guarding import Guarding
from qnwis.agent.journal import JOURNAL, Journal
from qnwis.agent.keeper import Keeper
from qnwis.agent.lease import HOLDER, Leases, found_cluster, records_of
from qnwis.agent.peers import Peers
from qnwis.agent.postgres import Postgres
from qnwis.agent.processes import processes_in
from qnwis.agent.quiescing import Quiescing
from qnwis.agent.receiving import Receiving
from qnwis.agent.speaking import Speaker
from qnwis.agent.two_copies import read_copies
from qnwis.continuity.lease_messages import LeaseTerms
from qnwis.continuity.membership import Peer
from qnwis.continuity.topology import Database, NodeRole
from qnwis.transport import Transport
from tests.looking import WITHIN_S, Looks
from tests.no_room import NoRoom

from .own import own_config

OTHER = Peer(node_id="other", agent_url="http://127.0.0.2:1", database=Database(host="127.0.0.2", port=2))


POSTMASTER = "#!/bin/sh\nexec env --default-signal=INT,QUIT sleep 600\n"
"""Ends when it is told to, though whoever runs the tests in the background has these signals ignored."""


class Kept:
    """A node whose keeper runs."""

    def __init__(self, folder: Path, peers: tuple[Peer, ...] = (), *, local_restart_s: float = 0.0) -> None:
        (folder / "postgres").write_text(POSTMASTER)
        (folder / "postgres").chmod(0o755)
        self.config = own_config(
            folder,
            NodeRole.PRIMARY,
            peers=peers,
            lease=LeaseTerms(duration_s=60, renew_every_s=0.05),
            return_after_s=0.01,
            local_restart_s=local_restart_s,
        )
        database = self.config.database
        database.data_dir.mkdir()
        (database.data_dir / "PG_VERSION").touch()
        found_cluster(self.config)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[asyncio.Future[None]]:
        """The keeper at work; it must still be so at the end."""
        config, database = self.config, self.config.database
        assert database is not None
        peers, speaker = Peers(config), Speaker(Transport())
        self.leases, self.postgres = Leases(config, peers, speaker), Postgres(config, database, peers)
        connection = Connection(database, database.superuser)
        self.node = Node(
            config.node_id,
            self.postgres,
            connection,
            self.leases,
            Guarding(database.data_dir, config.state_dir / "guard.log"),
            Receiving(self.postgres, connection, config.state_dir, config.lease.reserve_s),
            Quiescing(self.postgres, config.state_dir / "quiesced"),
            Deadline(config.state_dir / "handed-over"),
        )
        keeper = Keeper(config, self.node, Journal(config.state_dir / JOURNAL), asyncio.Lock())
        work = [asyncio.ensure_future(one) for one in (keeper.run(), self.leases.renew())]
        try:
            yield work[0]
            assert not work[0].done()
        finally:
            for task in work:
                task.cancel()
            await asyncio.gather(*work, return_exceptions=True)
            await self.postgres.stop()
            self.node.guarding.over()
            self.leases.close()
            await speaker.aclose()

    def crash(self) -> None:
        for pid in processes_in(self.postgres.data_dir):
            os.kill(pid, signal.SIGKILL)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(WITHIN_S):
        looks = Looks()
        while not true():
            await looks.again()


@pytest.fixture
def held(tmp_path: Path) -> Kept:
    """A standby that promised a run, and is down."""
    kept = Kept(tmp_path, peers=(OTHER,))
    (tmp_path / "data" / "standby.signal").touch()
    (tmp_path / "state" / "held-upstream").write_text(OTHER.node_id)
    return kept


async def test_a_standby_that_is_held_is_started_and_receives_nothing_yet(held: Kept) -> None:
    async with held.running():
        await until(lambda: held.postgres.running)
        assert read_copies(held.config.state_dir / "held-upstream").text
        assert held.node.receiving.upstream == OTHER
        written = (held.postgres.data_dir / "postgresql.auto.conf").read_text()
        assert not settings.read_settings(written).get(settings.UPSTREAM)


def refused(kept: Kept) -> str | None:
    """By which rule the database is kept down."""
    return None if kept.postgres.not_started is None else kept.postgres.not_started.rule


def released_epoch(kept: Kept) -> int:
    _, holder = records_of(kept.config)
    assert holder is not None
    return holder.released_epoch


async def test_a_lease_that_a_full_disk_keeps_from_its_release_is_renewed_no_more_and_released_later(
    tmp_path: Path,
) -> None:
    kept = Kept(tmp_path)
    async with kept.running():
        await until(lambda: kept.postgres.running)
        served, disk = kept.leases.sought, NoRoom(kept.config.state_dir / HOLDER)
        changes: list[bool] = []
        kept.postgres.on_change = lambda: changes.append(kept.postgres.let_down)
        disk.fill()
        kept.crash()
        await until(lambda: refused(kept) == "state_not_written")

        assert changes[-1], "whoever watches hears that it ended"
        lasts_until, said = kept.leases.serves_until, len(changes)
        await asyncio.sleep(1)  # for many renewals, and some attempts
        assert kept.leases.serves_until == lasts_until
        assert (kept.postgres.running, len(changes), released_epoch(kept)) == (False, said, 0)

        disk.free()
        await until(lambda: kept.postgres.running)
        assert released_epoch(kept) >= served
        assert kept.leases.sought > served


async def test_a_lease_that_a_full_disk_keeps_from_being_taken_up_is_taken_up_later(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    disk = NoRoom(kept.config.state_dir / HOLDER)
    disk.fill()
    async with kept.running():
        await until(lambda: refused(kept) == "state_not_written")
        assert kept.postgres.not_started is not None
        assert str(kept.config.state_dir) in kept.postgres.not_started.message
        disk.free()
        await until(lambda: kept.postgres.running)


async def test_a_database_that_ends_before_it_ever_answered_is_started_again_under_its_lease(
    tmp_path: Path,
) -> None:
    kept = Kept(tmp_path, local_restart_s=60)
    async with kept.running():
        await until(lambda: kept.postgres.running)
        epoch, started_at = kept.leases.sought, kept.postgres.started_at
        kept.crash()
        await until(lambda: kept.postgres.running and kept.postgres.started_at > started_at)
        assert (kept.leases.sought, released_epoch(kept)) == (epoch, 0)
