"""A PostgreSQL cluster of Debian's, with data and settings of its own, is handed to agents while it runs.

All tests share one such cluster, which is handed over once.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from qnwis.agent.processes import processes_in
from qnwis.agent.taken_over import postmaster_pid
from qnwis.continuity.lease_messages import PromiseRequest
from qnwis.continuity.orders import DemoteOrder
from qnwis.continuity.topology import Cluster
from qnwis.continuity.upkeep import Upkeep, lost_slots
from qnwis.providers.errors import Refused
from qnwis.providers.nodes import HttpNodes
from qnwis.providers.upkeep import AskedUpkeeps
from qnwis.transport import Transport
from tests.looking import WITHIN_S, Looks

from .debian import USER, DebianCluster, why_not_here
from .pg import TestNode
from .scene import Scene, healed, until_kept_down

pytestmark = pytest.mark.skipif(why_not_here() is not None, reason=str(why_not_here()))

OWN = """
work_mem = '7MB'
wal_level = logical
archive_mode = on
archive_command = 'cmp -s %p {archive}/%f || (test ! -f {archive}/%f && cp %p {archive}/%f)'
"""


@dataclass(frozen=True)
class Beside:
    """What was seen while the agents ran beside databases that were not yet theirs."""

    refusals: dict[str, str]
    """What each node said of its database."""
    ordered: str
    """The rule by which an order was refused."""
    promised: str
    """The rule by which a standby's promise to a run was refused."""
    postmasters: dict[str, tuple[int | None, int | None]]
    """Process id before any agent was started, and before the hand-over."""
    touched: set[str]
    """Nodes whose data directory holds other settings or marks than before."""


@dataclass(frozen=True)
class Adopted:
    cluster: DebianCluster
    beside: Beside


@pytest.fixture(scope="module")
async def adopted() -> AsyncIterator[Adopted]:
    root = Path(tempfile.mkdtemp(prefix="qnwis-test-", dir="/var/tmp"))
    root.chmod(0o755)
    async with HttpNodes(Transport()) as nodes:
        archive = root / "archive"
        archive.mkdir()
        shutil.chown(archive, USER)
        cluster = DebianCluster(root, nodes, settings=OWN.format(archive=archive))
        try:
            await cluster.make()
            await cluster["n1"].sql("CREATE TABLE before_agents (name text)")
            await cluster["n1"].sql("INSERT INTO before_agents VALUES ('kept')")
            await cluster["n1"].sql("ALTER SYSTEM SET log_min_duration_statement = '1234ms'")
            await cluster["n1"].sql("SELECT pg_create_physical_replication_slot('of_n2', true)")
            await cluster["n2"].sql("ALTER SYSTEM SET primary_slot_name = 'of_n2'")
            beside = await run_beside(cluster)
            for node_id in ("n2", "n3", "n1"):  # the primary last
                await cluster.ctl(cluster[node_id], "stop")
                await cluster[node_id].until(database_up=True)
            await cluster["n1"].until(writable=True)
            yield Adopted(cluster, beside)
        finally:
            await cluster.destroy()


async def run_beside(cluster: DebianCluster) -> Beside:
    members = cluster.members.values()
    pids, marks = {m.node_id: postmaster_pid(m.data_dir) for m in members}, marks_of(cluster)
    await asyncio.gather(*(member.start_agent() for member in members))
    for member in members:
        await until_kept_down(member, "foreign_postmaster")
    primary, standby = cluster["n1"], cluster["n2"]
    with pytest.raises(Refused) as order:
        demote = DemoteOrder(effect_id="demote", run_id="run", epoch=2)
        await cluster.nodes.order(primary.node, demote, timeout_s=5)
    with pytest.raises(Refused) as promise:
        request = PromiseRequest(epoch=2, run_id="run", membership_version=1)
        await cluster.nodes.promise(standby.node, request, timeout_s=5)
    # One that is stopped, too, leaves the database alone.
    await primary.stop_agent()
    await primary.start_agent()
    await until_kept_down(primary, "foreign_postmaster")
    return Beside(
        refusals={member.node_id: (await member.state()).why_down or "" for member in members},
        ordered=order.value.refusal.rule,
        promised=promise.value.refusal.rule,
        postmasters={
            member.node_id: (pids[member.node_id], postmaster_pid(member.data_dir)) for member in members
        },
        touched={node_id for node_id, mark in marks_of(cluster).items() if mark != marks[node_id]},
    )


def marks_of(cluster: DebianCluster) -> dict[str, tuple[str, bool]]:
    return {
        member.node_id: (
            (member.data_dir / "postgresql.auto.conf").read_text(),
            (member.data_dir / "standby.signal").exists(),
        )
        for member in cluster.members.values()
    }


async def test_an_agent_beside_somebody_elses_postmaster_leaves_it_alone_and_says_so(
    adopted: Adopted,
) -> None:
    beside = adopted.beside
    assert "PostgreSQL runs already in" in beside.refusals["n1"] and "Hand it over" in beside.refusals["n1"]
    assert (beside.ordered, beside.promised) == ("foreign_postmaster", "foreign_postmaster")
    for before, after in beside.postmasters.values():
        assert before is not None and before == after
    assert beside.touched == set()


async def test_data_and_settings_are_as_before_and_the_configuration_stays_where_it_was(
    adopted: Adopted,
) -> None:
    primary = adopted.cluster["n1"]
    assert await primary.sql("SELECT name FROM before_agents") == [("kept",)]
    kept = {"work_mem": "7MB", "log_min_duration_statement": "1234ms", "archive_mode": "on"}
    assert {name: await setting(primary, name) for name in kept} == kept
    assert await setting(primary, "config_file") == str(adopted.cluster.etc(primary) / "postgresql.conf")
    assert await setting(primary, "data_directory") == str(primary.data_dir)
    # Slots are on one node only, so nobody asks for one any more.
    assert await setting(adopted.cluster["n2"], "primary_slot_name") == ""
    (said,) = (await asked(adopted.cluster, "n1"),)
    assert [slot.name for slot in said.idle_slots] == ["of_n2"]
    await primary.sql("SELECT pg_drop_replication_slot('of_n2')")
    # Local clients come in as before.
    sockets = adopted.cluster.sockets(primary)
    await adopted.cluster.run_as_postgres("psql", "-h", sockets, *adopted.cluster._port(), "-c", "SELECT 1")


async def test_it_fails_over_and_the_old_primary_is_rewound_with_its_configuration_apart(
    adopted: Adopted,
) -> None:
    scene = await healed(adopted.cluster)
    await until_replayed(scene)
    await scene.primary.power_off()
    await scene.fail_over()
    await scene.standby.sql("INSERT INTO before_agents VALUES ('after the failover')")
    await scene.primary.start_agent()

    done = await scene.order(scene.primary, scene.rejoin(scene.standby))

    assert "was rewound" in done.detail, done.detail
    rows = await scene.primary.sql("SELECT name FROM before_agents ORDER BY name")
    assert rows == [("after the failover",), ("kept",)]
    assert await setting(scene.primary, "work_mem") == "7MB"


async def test_after_the_hand_over_what_runs_there_is_the_agents_to_end(adopted: Adopted) -> None:
    scene = await healed(adopted.cluster)
    await scene.other.stop_agent()
    await adopted.cluster.ctl(scene.other, "start")  # an administrator forgot about the agent
    by_hand = postmaster_pid(scene.other.data_dir)

    await scene.other.start_agent()

    await scene.other.until(streaming=True)
    await scene.other.stop_agent()
    assert by_hand is not None and not processes_in(scene.other.data_dir)


async def test_the_archive_goes_on_after_a_promotion_and_a_rejoin_takes_from_it_what_the_log_lacks(
    adopted: Adopted,
) -> None:
    cluster = adopted.cluster
    scene = await healed(cluster)
    archive, primary = cluster.root / "archive", scene.primary
    # The last checkpoint that all have lies in an earlier file of the log than the place where they part.
    await primary.sql("CHECKPOINT")
    await switch_log(primary)
    await until_archived(primary)
    await until_replayed(scene)
    for member in (scene.other, scene.standby):  # who is promoted has the more
        await cut_off(member)
    for number in range(2):
        await primary.sql(f"INSERT INTO before_agents VALUES ('only here {number}')")
        await primary.sql("CHECKPOINT")
        await switch_log(primary)
    await until_archived(primary)
    await primary.power_off()
    await scene.fail_over()
    for segment in older_than(primary, parted_at(scene.standby)):
        assert (archive / segment.name).exists()
        segment.unlink()
    (cluster.etc(primary) / "conf.d" / "restore.conf").write_text(f"restore_command = 'cp {archive}/%f %p'\n")
    await primary.start_agent()

    done = await scene.order(primary, scene.rejoin(scene.standby))

    assert "was rewound" in done.detail, done.detail
    await scene.standby.sql("INSERT INTO before_agents VALUES ('archived by the new primary')")
    await switch_log(scene.standby)
    await until_archived(scene.standby)
    timeline = (await scene.standby.state()).timeline
    assert (archive / f"{timeline:08X}.history").exists()
    assert [path for path in archive.iterdir() if path.name.startswith(f"{timeline:08X}0")]


async def test_an_agent_says_how_the_archive_goes_which_slots_there_are_and_what_the_backup_is(
    adopted: Adopted,
) -> None:
    cluster = adopted.cluster
    scene = await healed(cluster)
    primary, archive = scene.primary, cluster.root / "archive"
    await primary.sql("SELECT pg_create_logical_replication_slot('orders_out', 'pgoutput')")
    cluster.backup.write_text('{"last_good_at": "2026-01-02T03:04:05Z"}')
    archive.chmod(0)
    try:
        await switch_log(primary)
        async with asyncio.timeout(WITHIN_S):
            looks = Looks()
            while not (of_primary := await asked(cluster, primary.node_id)).archiving.fails:
                await looks.again()
    finally:
        archive.chmod(0o700)
    assert of_primary.archiving.waiting >= 1 and of_primary.archiving.oldest_waiting_s is not None
    assert [(slot.name, slot.database, slot.synced) for slot in of_primary.logical_slots] == [
        ("orders_out", "postgres", False)
    ]
    assert lost_slots(of_primary, await asked(cluster, scene.standby.node_id)) == of_primary.logical_slots
    backup = of_primary.backup
    assert backup is not None and str(backup.last_good_at) == "2026-01-02 03:04:05+00:00"

    await switch_log(primary)  # wakes the archiver, which has given up for a minute
    await until_archived(primary)
    await primary.sql("SELECT pg_drop_replication_slot('orders_out')")
    again = await asked(cluster, primary.node_id)
    assert (again.archiving.fails, again.archiving.waiting, again.logical_slots) == (False, 0, ())


async def asked(cluster: DebianCluster, node_id: str) -> Upkeep:
    nodes = tuple(member.node for member in cluster.members.values())
    topology = Cluster(cluster_id="test", name="Test", regions=("here",), nodes=nodes)
    return (await AskedUpkeeps(Transport()).of(topology))[node_id]


async def until_replayed(scene: Scene) -> None:
    """Returns when both standbys have all that the primary has written."""
    ((lsn,),) = await scene.primary.sql("SELECT pg_current_wal_lsn()")
    async with asyncio.timeout(WITHIN_S):
        looks = Looks()
        for member in (scene.standby, scene.other):
            while (await member.sql(f"SELECT pg_last_wal_replay_lsn() < '{lsn}'")) == [(True,)]:
                await looks.again()


async def cut_off(member: TestNode) -> None:
    """The standby receives no more, and nobody knows."""
    await member.sql("ALTER SYSTEM RESET primary_conninfo")
    await member.sql("SELECT pg_reload_conf()")
    async with asyncio.timeout(WITHIN_S):
        looks = Looks()
        while await member.sql("SELECT pid FROM pg_stat_wal_receiver"):
            await looks.again()


async def switch_log(member: TestNode) -> None:
    """Have the file of the log that is written end, whether or not there is anything in it."""
    await member.sql("SELECT pg_logical_emit_message(false, 'test', '')")
    await member.sql("SELECT pg_switch_wal()")


async def until_archived(member: TestNode) -> None:
    """Returns when every file of the log that is full is in the archive."""
    async with asyncio.timeout(WITHIN_S):
        looks = Looks()
        while await member.sql("SELECT name FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready'"):
            await looks.again()


def parted_at(member: TestNode) -> str:
    """Where the newest timeline left the one before."""
    newest = max((member.data_dir / "pg_wal").glob("*.history"))
    return newest.read_text().strip().splitlines()[-1].split()[1]


def older_than(member: TestNode, lsn: str) -> list[Path]:
    """The files of the log before the one that holds this place."""
    high, low = lsn.split("/")
    holding = f"{int(high, 16):08X}{int(low, 16) >> 24:08X}"
    log = (path for path in (member.data_dir / "pg_wal").iterdir() if len(path.name) == 24)
    return [path for path in log if path.name[8:] < holding]


async def setting(member: TestNode, name: str) -> str:
    ((value,),) = await member.sql(f"SHOW {name}")
    return str(value)
