"""The agents' part in a planned switchover, on real PostgreSQL: a primary that is quiesced, handed over, and
continued elsewhere or by itself, whatever is killed in between.

All tests share one synchronous cluster; each starts from a healed one, whoever is the primary by then.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Iterable
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest

from qnwis.agent.config import load_config
from qnwis.agent.guard import now
from qnwis.agent.journal import JOURNAL, Line, Mark, read_journal
from qnwis.agent.lost_promotion import GIVEN_UP_AFTER_S
from qnwis.agent.processes import processes_in
from qnwis.agent.two_copies import TwoCopies
from qnwis.continuity.lease_messages import LastGrant, LeaseTerms, Membership, PromiseRequest, Withdrawal
from qnwis.continuity.orders import AnyOrder, FencingEvidenceType, PromoteOrder, Receipt
from qnwis.continuity.promises import Gate, promotion_gate
from qnwis.providers.errors import Refused, Unreachable
from qnwis.providers.nodes import HttpNodes
from qnwis.transport import Transport
from tests.looking import WITHIN_S, Looks

from .pg import TestCluster, TestNode, running_cluster
from .scene import WRITE_PAUSE_S, Scene, healed, rows, until_gone, until_kept_down


@pytest.fixture(scope="module")
async def shared_cluster() -> AsyncIterator[TestCluster]:
    # No busy machine loses it while an agent is executed anew, and none of these tests waits for its end.
    lease = LeaseTerms(duration_s=15)
    async with (
        HttpNodes(Transport()) as nodes,
        running_cluster(nodes, synchronous=True, lease=lease) as cluster,
    ):
        yield cluster


@pytest.fixture
async def scene(shared_cluster: TestCluster) -> Scene:
    return await healed(shared_cluster)


async def test_a_switchover_by_hand_loses_no_acknowledged_write(scene: Scene) -> None:
    for member in (scene.primary, scene.standby):
        await scene.order(member, scene.prepare())
    async with writing_to_any(scene.primary, scene.standby) as client:
        await client.until_writes()
        timed = Timed(scene)
        await timed.order("quiesce", scene.primary, scene.quiesce())
        receipt = await timed.order("hand over", scene.primary, scene.hand_over())
        assert receipt.token is not None
        await timed.promises()
        promoted = await timed.order("promote", scene.standby, scene.promote(at=receipt.token))
        await timed.order("follow", scene.other, scene.follow(scene.standby))
        await client.until_writes()
        rejoined = await timed.order("rejoin", scene.primary, scene.rejoin(scene.standby))
        await client.until_writes()
    print(f"{timed}; longest gap between two acknowledged writes {1000 * client.longest_gap_s:.0f} ms")

    assert promoted.changed and rejoined.changed
    await scene.primary.until(
        streaming=True, upstream=scene.standby.node_id, handed_over=False, quiesced=False
    )
    assert client.acknowledged <= await rows(scene.standby)
    await scene.standby.until(writable=True)


async def test_a_standby_that_knows_where_the_primary_ended_follows_its_successor_before_that_is_one(
    scene: Scene,
) -> None:
    """And asks it nothing, for it is busy: here it answers nobody until it is promoted."""
    async with scene.primary.watching() as events:
        receipt = await scene.order(scene.primary, scene.hand_over())
        told = await anext(events)
    assert (told.database_up, told.in_hand) == (False, True)
    assert receipt.token is not None
    await scene.promised(*scene.cluster.members.values())
    postmaster = scene.standby.postmaster_pid()
    os.kill(postmaster, signal.SIGSTOP)
    try:
        followed = await scene.order(scene.other, scene.follow(scene.standby, at=receipt.token))
    finally:
        os.kill(postmaster, signal.SIGCONT)
    assert followed.detail.endswith("it streams once that is the primary")
    promoted = await scene.order(scene.standby, scene.promote(at=receipt.token))
    assert promoted.changed
    await scene.other.until(streaming=True, timeline=receipt.token.timeline + 1)
    await scene.order(scene.primary, scene.rejoin(scene.standby))


async def test_a_prepared_primary_writes_to_a_new_log_file_whose_forerunner_its_standbys_have(
    scene: Scene,
) -> None:
    """What is in the file that is written to is sent once more to a standby that changes over."""
    await scene.primary.sql("INSERT INTO rows SELECT 'before ' || n FROM generate_series(1, 5000) AS n")
    receipt = await scene.order(scene.primary, scene.prepare())
    assert receipt.detail.endswith("begun a new log file")
    ((written, flushed),) = await scene.primary.sql(
        """
        SELECT pg_current_wal_lsn() - '0/0', (SELECT min(flush_lsn) - '0/0' FROM pg_stat_replication)
        """
    )
    ((size,),) = await scene.primary.sql(
        "SELECT setting::bigint FROM pg_settings WHERE name = 'wal_segment_size'"
    )
    assert written % size < 8192, "the file is a new one"
    assert flushed // size >= written // size, "every standby has the one before"


async def test_where_no_commit_waits_for_a_standby_no_log_file_is_ended() -> None:
    async with HttpNodes(Transport()) as nodes, running_cluster(nodes, synchronous=False) as cluster:
        scene = await healed(cluster)
        receipt = await scene.order(scene.primary, scene.prepare())
        assert receipt.detail == f"{scene.primary.node_id} has written a checkpoint"


async def test_a_quiesced_primary_lets_writes_in_again_by_itself(scene: Scene) -> None:
    async with scene.primary.connect() as connection:
        receipt = await scene.order(scene.primary, scene.quiesce(for_s=1.5))
        again = await scene.order(scene.primary, scene.quiesce(for_s=1.5))
        state = await scene.primary.state()
        assert (state.database_up, state.writable, state.quiesced, state.epoch) == (
            True,
            False,
            True,
            scene.present,
        )
        # A session from before is stopped, too.
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            await connection.execute("INSERT INTO rows VALUES ('too late')")
        await scene.primary.until(writable=True, quiesced=False)
        await connection.execute("INSERT INTO rows VALUES ('in time')")
    assert receipt.changed and again == receipt.model_copy(update={"changed": False})


async def test_an_agent_that_is_executed_anew_keeps_a_quiesce_and_ends_it(scene: Scene) -> None:
    await scene.order(scene.primary, scene.quiesce(for_s=600))
    await scene.primary.execute_anew()
    state = await scene.primary.state()
    assert (state.writable, state.quiesced) == (False, True)
    # As if most of that time had passed.
    kept = TwoCopies(scene.primary.folder / "state" / "quiesced")
    assert kept.text
    kept.write(json.dumps({**json.loads(kept.text), "until_s": now() + 1}))
    await scene.primary.execute_anew()
    await scene.primary.until(writable=True, quiesced=False)
    assert (
        "default_transaction_read_only" not in (scene.primary.data_dir / "postgresql.auto.conf").read_text()
    )


async def test_an_open_write_may_end_before_the_primary_is_quiesced(scene: Scene) -> None:
    async with scene.primary.connect() as connection:
        await connection.execute("BEGIN")
        await connection.execute("INSERT INTO rows VALUES ('drained')")
        quiescing = asyncio.ensure_future(scene.order(scene.primary, scene.quiesce(drain_s=15)))
        await scene.primary.until(quiesced=True)
        assert not quiescing.done()
        await connection.execute("COMMIT")
        await quiescing
    assert "drained" in await rows(scene.standby)
    await scene.order(scene.primary, scene.resume())


async def test_an_open_write_that_does_not_end_is_ended(scene: Scene) -> None:
    async with scene.primary.connect() as connection, scene.primary.connect() as reader:
        await reader.execute("BEGIN")
        await reader.execute("SELECT FROM rows")
        await connection.execute("BEGIN")
        await connection.execute("INSERT INTO rows VALUES ('never committed')")
        await scene.order(scene.primary, scene.quiesce(drain_s=0.05))
        with pytest.raises(psycopg.OperationalError):
            await connection.execute("COMMIT")
        await reader.execute("SELECT FROM rows")
    assert "never committed" not in await rows(scene.primary)
    await scene.order(scene.primary, scene.resume())


async def test_a_standby_that_does_not_replay_leaves_the_primary_writable(scene: Scene) -> None:
    await scene.standby.sql("SELECT pg_wal_replay_pause()")
    try:
        await scene.primary.sql("INSERT INTO rows VALUES ('flushed there, not replayed')")
        assert await scene.refused(scene.primary, scene.quiesce()) == "standby_lags"
    finally:
        await scene.standby.sql("SELECT pg_wal_replay_resume()")
    await scene.primary.until(writable=True, quiesced=False)
    await scene.standby.power_off()
    absent = scene.quiesce("of a standby that is not there")
    async with asyncio.timeout(WITHIN_S):
        looks = Looks()
        while any(s.application_name == absent.standby for s in (await scene.primary.state()).standbys):
            await looks.again()
    assert await scene.refused(scene.primary, absent) == "standby_lags"


async def test_an_agent_killed_while_it_quiesces_comes_back_writable(scene: Scene) -> None:
    await scene.primary.sql("INSERT INTO rows VALUES ('before the quiesce')")
    async with scene.primary.connect() as connection:
        await connection.execute("BEGIN")
        await connection.execute("INSERT INTO rows VALUES ('open')")
        quiescing = asyncio.ensure_future(scene.order(scene.primary, scene.quiesce(drain_s=15)))
        await scene.primary.until(quiesced=True)
        await scene.primary.stop_agent(signal.SIGKILL)
        with pytest.raises(AssertionError):
            await quiescing
        await until_gone(scene.primary)
        await connection.close()
    await scene.primary.start_agent()
    await scene.primary.until(writable=True, quiesced=False)
    await scene.primary.sql("INSERT INTO rows VALUES ('after the quiesce')")
    assert {"before the quiesce", "after the quiesce"} <= await rows(scene.primary)


async def test_an_agent_killed_between_the_stop_and_the_release_serves_on_and_hands_over_when_asked_again(
    scene: Scene,
) -> None:
    wanted = scene.hand_over()
    # The agent stands still while its database ends as it would have ended it, and then is gone.
    os.kill(scene.primary.agent_pid(), signal.SIGSTOP)
    os.kill(scene.primary.postmaster_pid(), signal.SIGINT)
    await until_gone(scene.primary)
    await scene.primary.stop_agent(signal.SIGKILL)
    begin(scene.primary, wanted)
    await scene.primary.start_agent()
    assert (await scene.primary.until(writable=True)).epoch == scene.present

    await scene.primary.sql("INSERT INTO rows VALUES ('between two attempts')")
    # A run asks for it once the target has all: its quiesce waits for that.
    await scene.standby.until(streaming=True, upstream=scene.primary.node_id)
    receipt = await scene.order(scene.primary, wanted)
    assert receipt.changed and receipt.token is not None
    await scene.promised(*scene.cluster.members.values())
    await scene.order(scene.standby, scene.promote(at=receipt.token))
    assert "between two attempts" in await rows(scene.standby)


async def test_a_primary_that_was_handed_over_comes_back_by_itself_if_nobody_takes_over(scene: Scene) -> None:
    receipt = await scene.order(scene.primary, scene.hand_over(return_after_s=3))
    assert processes_in(scene.primary.data_dir) == []
    assert all(grant is not None and grant.released for grant in grants(scene))
    again = await scene.order(scene.primary, scene.hand_over(return_after_s=3))
    assert again == receipt.model_copy(update={"changed": False})

    await scene.primary.stop_agent(signal.SIGKILL)
    await scene.primary.start_agent()
    state = await scene.primary.state()
    assert (state.database_up, state.handed_over) == (False, True), "a restart does not shorten the time"
    back = await scene.primary.until(writable=True, handed_over=False)
    assert back.epoch > scene.present
    assert receipt.token is not None and back.timeline == receipt.token.timeline


async def test_a_run_that_was_promised_an_epoch_is_waited_for_until_it_withdraws(scene: Scene) -> None:
    await scene.order(scene.primary, scene.hand_over(return_after_s=3))
    members = tuple(scene.cluster.members.values())
    await scene.promised(*members)
    await until_kept_down(scene.primary, "reserved")
    withdrawal = Withdrawal(epoch=scene.epoch, run_id=f"run-{scene.epoch}")
    for member in members:
        await scene.cluster.nodes.withdraw(member.node, withdrawal, timeout_s=WITHIN_S)

    # Of the epoch that the run was promised, which is the highest that the agent has obeyed.
    assert await scene.refused(scene.primary, scene.resume("of before")) == "epoch_superseded"
    epoch = (await scene.primary.state()).epoch
    resumed = await scene.order(scene.primary, scene.resume(epoch=epoch))
    state = await scene.primary.state()
    assert state.writable and state.epoch > scene.epoch
    assert await scene.refused(scene.primary, scene.resume(epoch=epoch)) == "epoch_superseded"
    assert resumed.token is None


async def test_a_primary_that_was_handed_over_resumes_at_once_when_it_is_told_to(scene: Scene) -> None:
    await scene.order(scene.primary, scene.quiesce(for_s=600))
    await scene.order(scene.primary, scene.hand_over(return_after_s=600))
    await until_kept_down(scene.primary, "handed_over")
    receipt = await scene.order(scene.primary, scene.resume())
    state = await scene.primary.state()
    assert receipt.changed
    assert (state.writable, state.quiesced, state.handed_over) == (True, False, False)
    assert not (await scene.order(scene.primary, scene.resume("again", epoch=state.epoch))).changed
    await scene.primary.sql("INSERT INTO rows VALUES ('after the resume')")
    await scene.other.until(streaming=True, upstream=scene.primary.node_id)


async def test_a_primary_that_was_handed_over_stays_down_once_another_took_over(scene: Scene) -> None:
    receipt = await scene.order(scene.primary, scene.hand_over(return_after_s=600))
    await scene.promised(*scene.cluster.members.values())
    await scene.order(scene.standby, scene.promote(at=receipt.token))
    await scene.order(scene.other, scene.follow(scene.standby))
    await scene.primary.stop_agent(signal.SIGKILL)
    await scene.primary.start_agent()

    assert await scene.refused(scene.primary, scene.resume(epoch=scene.epoch)) == "another_held_since"
    await until_kept_down(scene.primary, "another_held_since")
    await scene.order(scene.primary, scene.rejoin(scene.standby))
    state = await scene.primary.until(streaming=True, upstream=scene.standby.node_id)
    assert not state.handed_over
    assert await scene.refused(scene.primary, scene.resume("as a standby", epoch=scene.epoch)) == "is_standby"


async def test_a_standby_that_has_not_all_of_the_old_primary_is_not_promoted(scene: Scene) -> None:
    await scene.standby.sql("SELECT pg_wal_replay_pause()")
    await scene.primary.sql("INSERT INTO rows VALUES ('received there, not replayed')")
    token = (await scene.order(scene.primary, scene.hand_over())).token
    assert token is not None
    assert await scene.refused(scene.standby, scene.promote("paused", at=token)) == "token_not_reached"
    assert (await scene.standby.state()).epoch == scene.present, "a promotion that is refused takes no epoch"
    await scene.standby.sql("SELECT pg_wal_replay_resume()")
    later = token.model_copy(update={"timeline": token.timeline + 1})
    assert await scene.refused(scene.standby, scene.promote("other history", at=later)) == "token_not_reached"
    await scene.order(scene.standby, scene.promote(at=token))
    assert "received there, not replayed" in await rows(scene.standby)


async def test_a_promotion_that_began_is_not_refused_while_its_database_is_down(scene: Scene) -> None:
    """On a refusal a run turns back, to a primary that cannot return: the target was granted the lease."""
    order, version = await ended_in_its_promotion(scene)
    with pytest.raises(Unreachable, match="was begun, and cannot go on"):
        await ordered_once(scene, order)

    version.rename(scene.standby.data_dir / "PG_VERSION")
    await scene.standby.until(database_up=True)
    assert (await scene.order(scene.standby, order)).changed
    await scene.standby.until(writable=True)
    lines, _, _ = read_journal(scene.standby.folder / "state" / JOURNAL)
    marks = [line.mark for line in lines if line.order == order]
    assert marks == [Mark.INTENT, Mark.FAILED, Mark.INTENT, Mark.DONE]


async def test_a_promotion_whose_database_does_not_come_back_is_refused_in_the_end(scene: Scene) -> None:
    """Else its run asks for ever, and the target's agent renews a lease that nobody else is granted then."""
    order, version = await ended_in_its_promotion(scene)
    before = LastGrant(epoch=scene.present, holder=scene.primary.node_id, duration_s=15, released=True)
    assert before not in grants(scene)
    await until_lost(scene, order)
    assert set(grants(scene)) == {before}, "nothing came of the one since"

    # So another run is told of the old primary, whichever node it would promote.
    promised = await scene.promised(*scene.cluster.members.values())
    request = PromiseRequest(epoch=scene.epoch, run_id=f"run-{scene.epoch}", membership_version=1)
    members = Membership(version=1, members=tuple(scene.cluster.members))
    for target in (scene.standby.node_id, scene.other.node_id):
        gate = promotion_gate(members, request, promised, target)
        assert isinstance(gate, Gate)
        assert (gate.holder, gate.evidence) == (scene.primary.node_id, FencingEvidenceType.RELEASED)

    # It comes back as a standby after all, and is none that an order of that epoch promotes.
    version.rename(scene.standby.data_dir / "PG_VERSION")
    state = await scene.standby.until(database_up=True)
    assert (state.in_recovery, state.timeline) == (True, (await scene.other.state()).timeline)
    assert await scene.refused(scene.standby, order) == "promotion_lost"
    assert not (await scene.standby.state()).writable
    await scene.order(scene.standby, scene.promote("anew", epoch=scene.epoch + 1))
    await scene.standby.until(writable=True)


async def until_lost(scene: Scene, order: PromoteOrder) -> None:
    """Returns once the standby refuses the promotion that it began."""
    return_after_s = load_config(scene.standby.config).return_after_s
    async with asyncio.timeout(WITHIN_S + return_after_s + GIVEN_UP_AFTER_S):
        looks = Looks()
        while True:
            try:
                await ordered_once(scene, order)
            except Unreachable as error:
                assert "was begun, and cannot go on" in str(error)
            except Refused as error:
                assert error.refusal.rule == "promotion_lost"
                return
            await looks.again()


async def ended_in_its_promotion(scene: Scene) -> tuple[PromoteOrder, Path]:
    """The promotion in which the standby's database ended, with the lease and before it was a primary; and
    the file that it does not start without, which was taken away."""
    token = (await scene.order(scene.primary, scene.hand_over(return_after_s=600))).token
    assert token is not None
    await scene.promised(*scene.cluster.members.values())
    async with asyncio.timeout(WITHIN_S):
        looks = Looks()
        while ((await scene.standby.state()).replay_lsn or 0) <= token.lsn:
            await looks.again()
    ((startup,),) = await scene.standby.sql("SELECT pid FROM pg_stat_activity WHERE backend_type = 'startup'")
    order = scene.promote(at=token)

    os.kill(startup, signal.SIGSTOP)  # it is asked to promote, and does not come to it
    promoting = asyncio.ensure_future(ordered_once(scene, order))
    async with asyncio.timeout(WITHIN_S):
        looks = Looks()
        while scene.epoch not in [held["epoch"] for held in scene.standby.logged("lease_held")]:
            await looks.again()
    version = (scene.standby.data_dir / "PG_VERSION").rename(scene.standby.folder / "PG_VERSION")
    for pid in (scene.standby.postmaster_pid(), startup):
        os.kill(pid, signal.SIGKILL)
    with pytest.raises(Unreachable, match="not known to be complete"):
        await promoting
    await until_kept_down(scene.standby, "no_data")
    return order, version


async def ordered_once(scene: Scene, order: AnyOrder) -> Receipt:
    """The order to the standby, and its answer whatever that is."""
    return await scene.cluster.nodes.order(scene.standby.node, order, timeout_s=WITHIN_S)


async def test_a_promotion_that_came_to_nothing_is_refused_once_a_later_epoch_was_obeyed(
    scene: Scene,
) -> None:
    """Nothing of it is left, nor can come: so a run may turn back, and need not ask for ever."""
    await scene.order(scene.standby, scene.follow(scene.primary))
    older = scene.promote(epoch=scene.epoch - 1)
    await scene.standby.stop_agent(signal.SIGKILL)
    begin(scene.standby, older)
    await scene.standby.start_agent()
    assert await scene.refused(scene.standby, older) == "epoch_superseded"


def begin(member: TestNode, order: AnyOrder) -> None:
    """Leave the journal of an agent that does not run as if it had been killed while it obeyed this."""
    intent = Line(at=datetime.now(UTC), mark=Mark.INTENT, order=order)
    with (member.folder / "state" / JOURNAL).open("a") as file:
        file.write(intent.model_dump_json() + "\n")


async def test_orders_of_another_epoch_stop_no_primary(scene: Scene) -> None:
    older, later = scene.present - 1, scene.present + 1
    stopping = (scene.quiesce, scene.prepare, scene.hand_over)
    for make in (*stopping, scene.resume):
        if older:
            assert await scene.refused(scene.primary, make("older", epoch=older)) == "epoch_superseded"
        assert await scene.refused(scene.primary, make("later", epoch=later)) == "epoch_not_present"
    assert await scene.refused(scene.standby, scene.hand_over("a standby")) in (
        "is_standby",
        "epoch_not_present",
    )
    assert (await scene.primary.state()).epoch == scene.present

    # A run is at work: nobody stops the primary under the epoch of that run.
    await scene.promised(scene.primary)
    for make in (scene.quiesce, scene.hand_over):
        assert await scene.refused(scene.primary, make("before the run")) == "epoch_superseded"
        assert await scene.refused(scene.primary, make("of it", epoch=scene.epoch)) == "epoch_not_present"
    state = await scene.primary.state()
    assert (state.writable, state.quiesced) == (True, False)


def grants(scene: Scene) -> list[LastGrant | None]:
    """The last grant of each member, as it has it on its disk."""
    return [member.grants().granted for member in scene.cluster.members.values()]


class Timed:
    """Gives orders, and keeps how long each took."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._took: list[str] = []

    async def order(self, what: str, member: TestNode, order: AnyOrder) -> Receipt:
        began = time.monotonic()
        receipt = await self._scene.order(member, order)
        self._took.append(f"{what} {1000 * (time.monotonic() - began):.0f} ms")
        return receipt

    async def promises(self) -> None:
        began = time.monotonic()
        members = self._scene.cluster.members.values()
        await asyncio.gather(*(self._scene.promised(member) for member in members))
        self._took.append(f"promises {1000 * (time.monotonic() - began):.0f} ms")

    def __str__(self) -> str:
        return ", ".join(self._took)


class RovingClient:
    """Writes one row after another to whichever of some nodes takes it; knows which were acknowledged."""

    def __init__(self, members: Iterable[TestNode]) -> None:
        self._members = tuple(members)
        self.acknowledged: set[str] = set()
        self.longest_gap_s = 0.0
        self._last = time.monotonic()
        self._written = asyncio.Event()

    async def run(self) -> None:
        number = 0
        while True:
            for member in self._members:
                with contextlib.suppress(psycopg.Error, TimeoutError):
                    async with asyncio.timeout(5), member.connect() as connection:
                        while True:
                            number += 1
                            name = f"roving {id(self)} {number}"
                            await connection.execute("INSERT INTO rows VALUES (%s)", (name,))
                            self._note(name)
                            await asyncio.sleep(WRITE_PAUSE_S)
                await asyncio.sleep(WRITE_PAUSE_S)

    def _note(self, name: str) -> None:
        at = time.monotonic()
        if self.acknowledged:
            self.longest_gap_s = max(self.longest_gap_s, at - self._last)
        self._last = at
        self.acknowledged.add(name)
        self._written.set()

    async def until_writes(self, count: int = 20) -> None:
        """Returns after so many more acknowledged writes."""
        async with asyncio.timeout(WITHIN_S):
            for _ in range(count):
                self._written.clear()
                await self._written.wait()


@contextlib.asynccontextmanager
async def writing_to_any(*members: TestNode) -> AsyncIterator[RovingClient]:
    client = RovingClient(members)
    task = asyncio.ensure_future(client.run())
    try:
        yield client
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
