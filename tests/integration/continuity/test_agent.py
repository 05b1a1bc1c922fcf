"""The node agent on real PostgreSQL: what it obeys, what it refuses, and what it never lets happen.

All tests share one synchronous cluster; each starts from a healed one, whoever is the primary by then.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import httpx
import pytest

from qnwis.agent.config import load_config
from qnwis.agent.files import StateError
from qnwis.agent.journal import Line, Mark
from qnwis.agent.lease import found_cluster
from qnwis.agent.processes import processes_in
from qnwis.continuity.lease_messages import LeaseTerms, PromiseRequest, Withdrawal
from qnwis.continuity.orders import AnyOrder
from qnwis.providers.errors import Refused, Unreachable
from qnwis.providers.nodes import HttpNodes
from qnwis.transport import Transport
from tests.looking import WITHIN_S, Looks

from .pg import TestCluster, TestNode, running_cluster
from .scene import Scene, healed, rows, until_gone, until_kept_down


@pytest.fixture(scope="module")
async def shared_cluster() -> AsyncIterator[TestCluster]:
    async with HttpNodes(Transport()) as nodes, running_cluster(nodes, synchronous=True) as cluster:
        yield cluster


@pytest.fixture
async def scene(shared_cluster: TestCluster) -> Scene:
    return await healed(shared_cluster)


async def test_a_promotion_happens_once(scene: Scene) -> None:
    before = await scene.standby.state()
    await scene.primary.power_off()

    first = await scene.order(scene.standby, scene.promote())
    second = await scene.order(scene.standby, scene.promote())

    assert first.changed
    assert second == first.model_copy(update={"changed": False})
    after = await scene.standby.state()
    assert before.timeline is not None
    assert (after.writable, after.timeline, after.upstream) == (True, before.timeline + 1, None)
    assert f"timeline {after.timeline} " in first.detail
    marks = [line.mark for line in await journal(scene, scene.standby) if line.order == scene.promote()]
    assert marks == [Mark.INTENT, Mark.DONE]


async def test_the_promoted_node_is_synchronous_and_the_other_follows_without_a_restart(scene: Scene) -> None:
    postmaster = scene.other.postmaster_pid()
    await scene.primary.power_off()
    await scene.order(scene.standby, scene.promote())

    followed = await scene.order(scene.other, scene.follow(scene.standby))
    again = await scene.order(scene.other, scene.follow(scene.standby, "follow again"))

    assert (followed.changed, again.changed) == (True, False)
    assert scene.other.postmaster_pid() == postmaster
    await scene.other.until(streaming=True, upstream=scene.standby.node_id)
    # Acknowledged, so the only standby left has it.
    await scene.standby.sql("INSERT INTO rows VALUES ('after the failover')")
    assert (await scene.standby.sql("SHOW synchronous_standby_names"))[0][0].startswith("ANY 1 (")
    lsn = (await scene.standby.state()).write_lsn
    assert lsn is not None
    state = await scene.other.state()
    assert state.receive_lsn is not None and state.receive_lsn >= lsn - 1024


async def test_a_follower_that_does_not_replay_what_it_is_sent_is_restarted(scene: Scene) -> None:
    # Stands for one that reads its own log again and again: it streams, and gets nowhere.
    await scene.other.sql("SELECT pg_wal_replay_pause()")
    await scene.primary.power_off()
    await scene.order(scene.standby, scene.promote())

    followed = await scene.order(scene.other, scene.follow(scene.standby))

    assert "until it was restarted" in followed.detail
    await scene.other.until(streaming=True, upstream=scene.standby.node_id)
    await scene.standby.sql("INSERT INTO rows VALUES ('after the restart')")
    await until_rows(scene.other, "after the restart")


async def test_a_follower_that_no_restart_helps_is_said_not_to_stream(scene: Scene) -> None:
    await scene.primary.power_off()
    await scene.order(scene.standby, scene.promote())
    async with scene.standby.connect() as connection:
        await connection.execute("SET synchronous_commit = local")
        await connection.execute("ALTER ROLE replicator NOLOGIN")
        followed = await scene.order(scene.other, scene.follow(scene.standby))
        assert "does not stream, nor after a restart" in followed.detail
        await connection.execute("ALTER ROLE replicator LOGIN")
    await scene.other.until(streaming=True, upstream=scene.standby.node_id)


async def test_a_follower_that_went_further_than_the_new_primary_is_refused_until_it_is_rewound(
    scene: Scene,
) -> None:
    await fall_behind(scene)
    await scene.primary.power_off()
    await scene.order(scene.standby, scene.promote())

    postmaster = scene.other.postmaster_pid()
    with pytest.raises(Refused) as caught:
        await scene.order(scene.other, scene.follow(scene.standby))
    assert caught.value.refusal.rule == "ahead_of_upstream"
    assert scene.other.postmaster_pid() == postmaster, "nothing was done to it"

    rejoined = await scene.order(scene.other, scene.rejoin(scene.standby))
    assert "was rewound" in rejoined.detail
    await scene.standby.sql("INSERT INTO rows VALUES ('after the rewind')")
    await until_rows(scene.other, "after the rewind")
    assert "only the other has it" not in await rows(scene.other)


async def test_a_target_that_is_behind_takes_the_rest_of_the_log_from_another_standby(scene: Scene) -> None:
    await fall_behind(scene)
    await scene.primary.power_off()
    await scene.promised(scene.standby, scene.other)
    to_lsn = (await scene.other.state()).receive_lsn
    assert to_lsn is not None

    first = await scene.order(scene.standby, scene.catch_up(scene.other, to_lsn))
    again = await scene.order(scene.standby, scene.catch_up(scene.other, to_lsn, "catch up again"))

    assert (first.changed, again.changed) == (True, False)
    assert not (await scene.standby.state()).streaming, "it is held again, as it promised"
    await scene.order(scene.standby, scene.promote())
    assert "only the other has it" in await rows(scene.standby)
    followed = await scene.order(scene.other, scene.follow(scene.standby))
    assert followed.detail.startswith(f"{scene.other.node_id} follows {scene.standby.node_id}")


async def test_a_target_takes_the_log_up_to_a_place_within_a_record(scene: Scene) -> None:
    """A primary that dies may have sent the beginning of a record, which nobody can replay."""
    await fall_behind(scene)
    async with scene.primary.connect() as connection:
        cursor = await connection.execute(
            "SELECT pid FROM pg_stat_activity WHERE backend_type = 'background writer'"
        )
        ((writer,),) = await cursor.fetchall()
        os.kill(writer, signal.SIGSTOP)  # it would write a record of its own
        await connection.execute("BEGIN")
        await connection.execute("SELECT pg_logical_emit_message(false, 'large', repeat('x', 100000))")
        async with asyncio.timeout(WITHIN_S):
            looks = Looks()
            while True:  # whole pages of the log are sent after a moment
                state = await scene.other.state()
                if (state.receive_lsn or 0) > (state.replay_lsn or 0) + 50_000:
                    break
                await looks.again()
        await scene.primary.power_off()
        await connection.close()
    await scene.promised(scene.standby, scene.other)
    ahead = await scene.other.state()
    assert ahead.receive_lsn is not None and ahead.replay_lsn is not None
    assert ahead.receive_lsn > ahead.replay_lsn

    receipt = await scene.order(scene.standby, scene.catch_up(scene.other, ahead.receive_lsn))

    assert receipt.changed
    await scene.order(scene.standby, scene.promote())
    assert "only the other has it" in await rows(scene.standby)


async def test_an_upstream_that_does_not_answer_is_no_reason_for_a_restart(scene: Scene) -> None:
    postmaster = scene.other.postmaster_pid()
    await scene.standby.power_off()
    # Under an epoch above it the primary would lose its majority.
    epoch = (await scene.other.state()).epoch
    followed = await scene.order(scene.other, scene.follow(scene.standby, epoch=epoch))
    assert "does not answer" in followed.detail
    assert scene.other.postmaster_pid() == postmaster


async def test_an_older_epoch_is_refused_even_by_an_agent_that_was_killed(scene: Scene) -> None:
    await scene.order(scene.standby, scene.follow(scene.primary))
    postmaster = scene.standby.postmaster_pid()

    await scene.standby.stop_agent(signal.SIGKILL)
    await scene.standby.start_agent()

    older = scene.promote(epoch=scene.epoch - 1)
    assert await scene.refused(scene.standby, older) == "epoch_superseded"
    state = await scene.standby.until(streaming=True)
    assert (state.epoch, state.writable) == (scene.epoch, False)
    assert scene.standby.postmaster_pid() == postmaster, "the agent adopts the database it finds"


async def test_a_diverged_old_primary_is_rewound(scene: Scene) -> None:
    for (sender,) in await scene.primary.sql("SELECT pid FROM pg_stat_replication"):
        os.kill(sender, signal.SIGSTOP)
    async with scene.primary.connect() as connection:
        await connection.execute("SET synchronous_commit = local")
        await connection.execute("INSERT INTO rows VALUES ('only on the old primary')")
    await scene.primary.power_off()
    await scene.fail_over()
    await scene.primary.start_agent()
    await scene.standby.sql("INSERT INTO rows VALUES ('on the new primary')")

    receipt = await scene.order(scene.primary, scene.rejoin(scene.standby))

    assert receipt.changed and "rewound" in receipt.detail
    assert "only on the old primary" in exported(scene, scene.primary), receipt.detail
    state = await scene.primary.until(streaming=True, upstream=scene.standby.node_id)
    assert state.timeline == (await scene.standby.state()).timeline
    await until_rows(scene.primary, "on the new primary")
    assert "only on the old primary" not in await rows(scene.primary)


async def test_a_rejoin_that_cannot_rewind_copies_and_keeps_the_old_data(scene: Scene) -> None:
    await scene.primary.power_off()
    await scene.fail_over()
    for segment in (scene.primary.data_dir / "pg_wal").glob("0*"):
        segment.unlink()
    await scene.primary.start_agent()

    receipt = await scene.order(scene.primary, scene.rejoin(scene.standby))

    assert receipt.changed and "copied anew" in receipt.detail
    assert "could not be exported" in receipt.detail and "is whole in the old data" in receipt.detail
    await scene.primary.until(streaming=True, upstream=scene.standby.node_id)
    assert list(scene.primary.folder.glob(f"data.before-rejoin-run-{scene.epoch}_rejoin/PG_VERSION"))


async def test_a_crashed_standby_is_never_left_to_recover_by_itself(scene: Scene) -> None:
    """Its own checkpoint would take the place of what the primary writes there, on the same timeline."""
    await scene.standby.power_off()
    await scene.primary.sql("INSERT INTO rows VALUES ('while it was away')")
    await scene.primary.sql("ALTER ROLE replicator NOLOGIN")  # it does not come back before it is told to
    await scene.standby.start_agent()

    wanted = scene.rejoin(scene.primary)
    rejoining = asyncio.ensure_future(scene.order(scene.standby, wanted))
    async with asyncio.timeout(WITHIN_S):
        looks = Looks()
        while not any(line.order == wanted for line in await journal(scene, scene.standby)):
            await looks.again()
    await scene.primary.sql("ALTER ROLE replicator LOGIN")
    receipt = await rejoining

    assert receipt.changed and "was a standby" in receipt.detail, scene.standby.logs()
    await until_rows(scene.standby, "while it was away")
    log = (scene.standby.folder / "state" / "postgres.log").read_text()
    assert "incorrect prev-link" not in log


async def test_a_standby_that_had_more_than_the_promoted_one_is_rewound(scene: Scene) -> None:
    name = scene.standby.node_id
    for (sender,) in await scene.primary.sql(
        f"SELECT pid FROM pg_stat_replication WHERE application_name = '{name}'"
    ):
        os.kill(sender, signal.SIGSTOP)
    await scene.primary.sql("INSERT INTO rows VALUES ('only on the other standby')")
    await scene.primary.power_off()
    await scene.order(scene.standby, scene.promote())

    receipt = await scene.order(scene.other, scene.rejoin(scene.standby))

    assert receipt.changed and "rewound" in receipt.detail
    assert exported(scene, scene.other) == ["only on the other standby"], receipt.detail
    await scene.standby.sql("INSERT INTO rows VALUES ('on the new primary')")
    await until_rows(scene.other, "on the new primary")
    assert "only on the other standby" not in await rows(scene.other)


async def test_an_interrupted_rejoin_keeps_the_database_down_until_it_is_done(scene: Scene) -> None:
    await scene.standby.stop_agent()
    intent = Line(at=datetime.now(UTC), mark=Mark.INTENT, order=scene.rejoin(scene.primary))
    with (scene.standby.folder / "state" / "journal.jsonl").open("a") as file:
        file.write(intent.model_dump_json() + "\n")
    await scene.standby.start_agent()

    await until_kept_down(scene.standby, "rejoin_unfinished")
    assert await scene.refused(scene.standby, scene.promote()) == "rejoin_unfinished"
    cut_off = scene.standby.folder / "data.fresh-of_another_order"
    cut_off.mkdir()
    receipt = await scene.order(scene.standby, scene.rejoin(scene.primary))

    assert receipt.changed and "copied anew" in receipt.detail
    assert not cut_off.exists()
    await scene.standby.until(streaming=True)


async def test_a_rejoin_that_was_killed_before_it_replaced_anything_rewinds(scene: Scene) -> None:
    await scene.primary.power_off()
    await scene.fail_over()
    await scene.primary.start_agent()
    ((checkpointer,),) = await scene.standby.sql(
        "SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'"
    )
    os.kill(checkpointer, signal.SIGSTOP)  # pg_rewind is not begun before a checkpoint there
    try:
        rejoining = asyncio.ensure_future(scene.order(scene.primary, scene.rejoin(scene.standby)))
        asked = "SELECT pid FROM pg_stat_activity WHERE query = 'CHECKPOINT' AND state = 'active'"
        async with asyncio.timeout(WITHIN_S):
            looks = Looks()
            while not await scene.standby.sql(asked):
                await looks.again()
        await scene.primary.stop_agent(signal.SIGKILL)
    finally:
        os.kill(checkpointer, signal.SIGCONT)
    with pytest.raises(AssertionError):  # nobody answered
        await rejoining
    await scene.primary.start_agent()

    await until_kept_down(scene.primary, "no_upstream")
    receipt = await scene.order(scene.primary, scene.rejoin(scene.standby))

    assert receipt.changed and "was rewound" in receipt.detail
    assert not list(scene.primary.folder.glob(f"data.before-rejoin-run-{scene.epoch}_*"))
    await scene.primary.until(streaming=True, upstream=scene.standby.node_id)


async def test_a_database_that_was_rewound_comes_up_though_its_power_failed_meanwhile(scene: Scene) -> None:
    await scene.primary.power_off()
    await scene.fail_over()
    await scene.primary.start_agent()
    await let_replicate(scene.standby, "NOLOGIN")
    rejoining = asyncio.ensure_future(scene.order(scene.primary, scene.rejoin(scene.standby)))
    await until_marked(scene, scene.primary, scene.rejoin(scene.standby), Mark.REPLACED)
    await scene.primary.power_off()
    with pytest.raises(AssertionError):  # nobody answered
        await rejoining

    await scene.primary.start_agent()
    await let_replicate(scene.standby, "LOGIN")

    await scene.primary.until(streaming=True, upstream=scene.standby.node_id)


async def test_a_rejoin_is_done_once_the_database_was_started_whether_it_streams_or_not(scene: Scene) -> None:
    await scene.primary.power_off()
    await scene.fail_over()
    await scene.primary.start_agent()
    await let_replicate(scene.standby, "NOLOGIN")
    rejoining = asyncio.ensure_future(scene.order(scene.primary, scene.rejoin(scene.standby)))
    await until_marked(scene, scene.primary, scene.rejoin(scene.standby), Mark.REPLACED)
    later = PromiseRequest(epoch=scene.epoch + 1, run_id="later", membership_version=1)
    await scene.cluster.nodes.promise(scene.primary.node, later, timeout_s=WITHIN_S)
    try:
        receipt = await rejoining
    finally:
        await let_replicate(scene.standby, "LOGIN")

    assert "was rewound and does not stream yet, it promised a run a later epoch" in receipt.detail
    withdrawal = Withdrawal(epoch=later.epoch, run_id=later.run_id)
    await scene.cluster.nodes.withdraw(scene.primary.node, withdrawal, timeout_s=WITHIN_S)
    await scene.primary.until(streaming=True, upstream=scene.standby.node_id)


@pytest.mark.parametrize("renaming", [False, True])
async def test_a_node_without_a_data_directory_takes_a_copy(scene: Scene, renaming: bool) -> None:
    """A new node, or one whose agent was killed after the old data were set aside for the copy."""
    await scene.standby.stop_agent()
    shutil.rmtree(scene.standby.data_dir)
    if renaming:
        replacing = Line(at=datetime.now(UTC), mark=Mark.REPLACING, order=scene.rejoin(scene.primary))
        with (scene.standby.folder / "state" / "journal.jsonl").open("a") as file:
            file.write(replacing.model_dump_json() + "\n")
    await scene.standby.start_agent()
    await until_kept_down(scene.standby, "rejoin_unfinished" if renaming else "no_data")

    receipt = await scene.order(scene.standby, scene.rejoin(scene.primary))

    assert receipt.changed and "was copied anew and streams" in receipt.detail
    await scene.standby.until(streaming=True, upstream=scene.primary.node_id)


async def test_a_demoted_primary_stays_down_until_it_has_an_upstream(scene: Scene) -> None:
    demoted = await scene.order(scene.primary, scene.demote())
    assert demoted.changed
    assert processes_in(scene.primary.data_dir) == []
    assert not (await scene.order(scene.primary, scene.demote("demote again"))).changed
    await scene.primary.stop_agent()
    await scene.primary.start_agent()
    await until_kept_down(scene.primary, "no_upstream")

    await scene.fail_over()
    # Stopped cleanly, so the new primary's history continues its own.
    await scene.order(scene.primary, scene.follow(scene.standby))
    await scene.primary.until(streaming=True, upstream=scene.standby.node_id)


async def test_an_old_primary_stays_down_when_another_held_the_lease_since(scene: Scene) -> None:
    await scene.primary.power_off()
    await scene.fail_over()
    await scene.primary.start_agent()

    await until_kept_down(scene.primary, "another_held_since")
    assert processes_in(scene.primary.data_dir) == []
    answer = await ask(scene.primary, "/health/deep")
    assert answer.status_code == 503 and "another_held_since" in answer.text


async def test_the_last_primary_comes_back_by_itself_beside_one_that_was_primary_before(
    scene: Scene,
) -> None:
    await scene.primary.power_off()
    await scene.fail_over()
    await scene.other.power_off()
    await scene.standby.stop_agent(signal.SIGTERM)

    await scene.primary.start_agent()
    await scene.standby.start_agent()

    await scene.standby.until(writable=True)
    await until_kept_down(scene.primary, "another_held_since")


async def test_a_primary_that_finds_no_majority_waits_for_one(scene: Scene) -> None:
    for member in scene.cluster.members.values():
        await member.power_off()
    await scene.primary.start_agent()
    await until_kept_down(scene.primary, "promises_missing")

    await scene.other.start_agent()
    await scene.primary.until(writable=True)


async def test_a_restarted_standby_says_its_position_only_once_it_has_read_all_of_its_log(
    scene: Scene,
) -> None:
    await scene.standby.sql("ALTER SYSTEM SET recovery_min_apply_delay = '10min'")
    await scene.standby.sql("SELECT pg_reload_conf()")
    await scene.primary.sql("INSERT INTO rows VALUES ('flushed there, not replayed')")
    lsn = (await scene.primary.state()).write_lsn
    assert lsn is not None
    looks = Looks()
    while ((await scene.standby.state()).receive_lsn or 0) < lsn:
        await looks.again()
    await scene.primary.power_off()
    await scene.standby.power_off()
    await scene.standby.start_agent()

    state = await scene.standby.until(database_up=True)
    assert state.receive_lsn is None, "its replay is held up, so it does not know what it has"

    await scene.standby.sql("ALTER SYSTEM RESET recovery_min_apply_delay")
    await scene.standby.sql("SELECT pg_reload_conf()")
    looks = Looks()
    while (known := (await scene.standby.state()).receive_lsn) is None:
        await looks.again()
    assert known >= lsn
    await scene.primary.start_agent()
    await scene.primary.until(writable=True)


async def test_a_standby_that_promised_a_run_receives_no_more_until_the_run_gives_up(scene: Scene) -> None:
    await scene.promised(scene.standby, scene.other)

    for standby in (scene.standby, scene.other):
        state = await standby.state()
        assert (state.streaming, state.upstream) == (False, scene.primary.node_id)
        assert state.receive_lsn is not None, "what it has stays known"
    # No standby confirms it, so it is not acknowledged; the primary's lease has not ended yet.
    before = {s.node_id: (await s.state()).receive_lsn for s in (scene.standby, scene.other)}
    writing = asyncio.ensure_future(scene.primary.sql("INSERT INTO rows VALUES ('confirmed by nobody')"))
    await asyncio.wait([writing], timeout=0.3)
    assert not writing.done()
    assert before == {s.node_id: (await s.state()).receive_lsn for s in (scene.standby, scene.other)}

    withdrawal = Withdrawal(epoch=scene.epoch, run_id=f"run-{scene.epoch}")
    for member in scene.cluster.members.values():
        await scene.cluster.nodes.withdraw(member.node, withdrawal, timeout_s=WITHIN_S)
    for standby in (scene.standby, scene.other):
        await standby.until(streaming=True, upstream=scene.primary.node_id)
    await scene.primary.until(writable=True)
    await asyncio.gather(writing, return_exceptions=True)


async def test_a_receiver_that_hangs_holds_no_promise_up(scene: Scene) -> None:
    ((receiver,),) = await scene.standby.sql("SELECT pid FROM pg_stat_wal_receiver")
    os.kill(receiver, signal.SIGSTOP)

    await scene.promised(scene.standby, scene.other)

    assert not Path(f"/proc/{receiver}").exists()
    assert not (await scene.standby.state()).streaming
    withdrawal = Withdrawal(epoch=scene.epoch, run_id=f"run-{scene.epoch}")
    for member in scene.cluster.members.values():
        await scene.cluster.nodes.withdraw(member.node, withdrawal, timeout_s=WITHIN_S)
    await scene.standby.until(streaming=True, upstream=scene.primary.node_id)
    await scene.primary.until(writable=True)


async def test_what_ends_while_an_order_is_carried_out_does_not_say_whom_to_follow(scene: Scene) -> None:
    """A run gives up, or its reservation ends, while the standby that it held is told of another upstream."""
    await scene.primary.power_off()
    await scene.promised(scene.standby, scene.other)
    await scene.order(scene.standby, scene.promote())
    withdrawal = Withdrawal(epoch=scene.epoch, run_id=f"run-{scene.epoch}")
    before, begun = scene.other.logged("receiver_goes_on"), scene.other.logged("order_intent")

    ordered = asyncio.ensure_future(scene.order(scene.other, scene.rejoin(scene.standby)))
    async with asyncio.timeout(WITHIN_S):
        while scene.other.logged("order_intent") == begun:
            await asyncio.sleep(0.002)
    while not ordered.done():
        await scene.cluster.nodes.withdraw(scene.other.node, withdrawal, timeout_s=WITHIN_S)
        await asyncio.sleep(0.005)

    assert scene.standby.node_id in (await ordered).detail
    await scene.other.until(streaming=True, upstream=scene.standby.node_id)
    assert scene.other.logged("receiver_goes_on") == before


async def test_a_promise_given_while_an_order_is_carried_out_holds(scene: Scene) -> None:
    await scene.primary.power_off()
    await scene.promised(scene.standby, scene.other)
    await scene.order(scene.standby, scene.promote())
    later = PromiseRequest(epoch=scene.epoch + 1, run_id="later", membership_version=1)

    order = scene.rejoin(scene.standby)
    ordered = asyncio.ensure_future(scene.cluster.nodes.order(scene.other.node, order, timeout_s=40))
    async with asyncio.timeout(WITHIN_S):
        while (await scene.other.state()).database_up:
            await asyncio.sleep(0.002)
    await scene.cluster.nodes.promise(scene.other.node, later, timeout_s=WITHIN_S)
    with pytest.raises(Unreachable, match="promised a run a later epoch"):
        await ordered

    await scene.other.until(database_up=True, streaming=False, upstream=scene.standby.node_id)
    withdrawal = Withdrawal(epoch=later.epoch, run_id=later.run_id)
    await scene.cluster.nodes.withdraw(scene.other.node, withdrawal, timeout_s=WITHIN_S)
    await scene.other.until(streaming=True, upstream=scene.standby.node_id)
    promote = scene.promote("promote the other", epoch=later.epoch + 10)
    asked = PromiseRequest(epoch=promote.epoch, run_id=promote.run_id, membership_version=1)
    for member in (scene.standby, scene.other):
        await scene.cluster.nodes.promise(member.node, asked, timeout_s=WITHIN_S)
    assert (await scene.order(scene.other, promote)).changed, "nothing was replaced in its data"


async def test_a_standby_that_is_held_goes_on_after_a_while_though_its_agent_was_killed(scene: Scene) -> None:
    await scene.promised(scene.other)
    await scene.other.stop_agent(signal.SIGKILL)
    await scene.other.start_agent()
    assert not (await scene.other.state()).streaming, "a restart does not let it go"
    await scene.other.until(streaming=True, upstream=scene.primary.node_id)


async def test_a_standby_that_is_held_is_started_again_and_still_held(scene: Scene) -> None:
    """Else its run would find no target there until the reservation ends."""
    await scene.promised(scene.other)
    let_go = scene.other.logged("receiver_goes_on")
    await scene.other.power_off()
    await scene.other.start_agent()

    state = await scene.other.until(database_up=True)
    assert (state.streaming, state.upstream) == (False, scene.primary.node_id)
    assert scene.other.logged("receiver_goes_on") == let_go
    await scene.other.until(streaming=True, upstream=scene.primary.node_id)


async def test_an_agent_that_is_told_to_stop_stops_its_database_first(scene: Scene) -> None:
    async with asyncio.timeout(WITHIN_S), scene.other.watching() as events:
        await scene.other.stop_agent(signal.SIGTERM)
        with pytest.raises(Unreachable):
            while True:
                await anext(events)
    assert processes_in(scene.other.folder) == []
    with pytest.raises(Unreachable):
        await scene.other.state()


async def test_a_primary_that_is_told_to_stop_keeps_its_lease_until_its_last_checkpoint_is_done(
    scene: Scene,
) -> None:
    query = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'"
    ((checkpointer,),) = await scene.primary.sql(query)
    os.kill(checkpointer, signal.SIGSTOP)
    os.kill(scene.primary.agent_pid(), signal.SIGTERM)
    async with asyncio.timeout(WITHIN_S):
        await until_renewed_without_a_server(scene, for_s=LeaseTerms().duration_s)
    os.kill(checkpointer, signal.SIGCONT)
    await scene.primary.stop_agent(signal.SIGTERM)
    assert processes_in(scene.primary.folder) == []
    assert database_state(scene.primary) == "shut down"
    granted = scene.standby.grants().granted
    assert granted is not None and granted.released


async def until_renewed_without_a_server(scene: Scene, for_s: float) -> None:
    """Returns once the primary's agent answers no more, and has since renewed its lease for longer than it
    lasts."""
    looks = Looks()
    with contextlib.suppress(Unreachable):
        while True:
            await scene.primary.state()
            await looks.again()
    renewals, left_s = 0, 0.0
    while renewals * LeaseTerms().renew_every_s <= for_s:
        bound = (await scene.cluster.nodes.membership(scene.standby.node, timeout_s=WITHIN_S)).bound
        assert bound is not None and bound.holder == scene.primary.node_id, scene.primary.logs()
        renewals, left_s = renewals + (bound.remaining_s > left_s), bound.remaining_s
        await looks.again()


def database_state(member: TestNode) -> str:
    """What a database that is down says of how it ended."""
    config = load_config(member.config).database
    assert config is not None
    said = subprocess.run(
        [config.pg_bin / "pg_controldata", "-D", config.data_dir],
        check=True,
        capture_output=True,
        text=True,
        env={"LC_ALL": "C"},
    ).stdout
    return next(line.partition(":")[2].strip() for line in said.splitlines() if "cluster state" in line)


async def test_orders_that_do_not_fit_are_refused_and_change_nothing(scene: Scene) -> None:
    assert await scene.refused(scene.primary, scene.follow(scene.standby)) == "is_primary"
    assert await scene.refused(scene.primary, scene.rejoin(scene.standby)) == "upstream_not_primary"
    unknown = scene.follow(scene.standby).model_copy(update={"upstream": "n9"})
    assert await scene.refused(scene.other, unknown) == "unknown_upstream"
    await scene.order(scene.primary, scene.promote())
    assert not (await scene.order(scene.primary, scene.promote("again"))).changed
    await scene.other.power_off()
    await scene.other.start_agent()
    state = await scene.primary.state()
    assert (state.writable, state.epoch) == (True, scene.epoch)


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"kind": "promote", "effect_id": "e", "run_id": "r", "epoch": 0}, "epoch"),
        ({"kind": "explode", "effect_id": "e", "run_id": "r", "epoch": 1}, "kind"),
        ({"kind": "follow", "effect_id": "e", "run_id": "r", "epoch": 1}, "upstream"),
        ("not an order", "body"),
    ],
)
async def test_a_body_that_is_no_order_is_answered_readably(scene: Scene, body: object, named: str) -> None:
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.post(f"{scene.primary.node.agent_url}/orders", content=json.dumps(body))
    assert answer.status_code == 422
    assert named in answer.json()["message"]


async def test_passwords_are_neither_logged_nor_in_process_arguments(scene: Scene) -> None:
    await scene.order(scene.primary, scene.demote())
    await scene.fail_over()
    await scene.order(scene.primary, scene.rejoin(scene.standby))
    secret = "c:d"
    for member in scene.cluster.members.values():
        assert secret not in (member.folder / "agent.log").read_text()
        assert secret not in (member.data_dir / "postgresql.auto.conf").read_text()


async def ask(member: TestNode, path: str) -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False) as client:
        return await client.get(member.node.agent_url + path)


async def journal(scene: Scene, member: TestNode) -> list[Line]:
    return [Line.model_validate(line) for line in (await ask(member, "/journal")).json()]


async def until_marked(scene: Scene, member: TestNode, order: AnyOrder, mark: Mark) -> None:
    """Returns when the order has got that far."""
    async with asyncio.timeout(WITHIN_S):
        looks = Looks()
        while not any(x.order == order and x.mark is mark for x in await journal(scene, member)):
            await looks.again()


async def let_replicate(primary: TestNode, login: Literal["LOGIN", "NOLOGIN"]) -> None:
    """Whether standbys may connect anew."""
    async with primary.connect() as connection:
        await connection.execute("SET synchronous_commit = local")
        await connection.execute(f"ALTER ROLE replicator {login}")


async def fall_behind(scene: Scene) -> None:
    """The standby receives no more, and the other one has a row that it lacks."""
    await scene.standby.sql("ALTER SYSTEM SET primary_conninfo = ''")
    await scene.standby.sql("SELECT pg_reload_conf()")
    await scene.standby.until(streaming=False)
    await scene.primary.sql("INSERT INTO rows VALUES ('only the other has it')")
    await until_rows(scene.other, "only the other has it")


async def until_rows(member: TestNode, name: str) -> None:
    """Returns when the row has been replayed there."""
    async with asyncio.timeout(WITHIN_S):
        looks = Looks()
        while name not in await rows(member):
            await looks.again()


async def test_an_agent_that_lost_its_memory_takes_no_part(scene: Scene) -> None:
    forgetful = scene.standby
    await forgetful.stop_agent()
    state_dir = forgetful.folder / "state"
    kept = {path: path.read_bytes() for path in state_dir.glob("*.json")}
    for path in kept:
        path.unlink()
    await forgetful.start_agent()
    try:
        await forgetful.until(streaming=True)  # its database may follow
        assert await scene.refused(forgetful, scene.promote()) == "not_a_member"
        # Its word is no vote: with one of two real members gone there is no majority left.
        await scene.other.power_off()
        await until_gone(scene.primary)
        await scene.other.start_agent()
        await scene.primary.until(writable=True)
    finally:
        await forgetful.stop_agent()
        for path, content in kept.items():
            path.write_bytes(content)
        await forgetful.start_agent()


async def test_only_an_agent_without_a_record_can_found_a_cluster(scene: Scene) -> None:
    with pytest.raises(StateError, match="only an agent that never ran"):
        found_cluster(load_config(scene.standby.config))


def exported(scene: Scene, member: TestNode) -> list[str]:
    """The names of the rows that its rejoin exported."""
    file = member.folder / "state" / "discarded" / f"run-{scene.epoch}_rejoin" / "rows.jsonl"
    return [json.loads(line)["row"]["name"] for line in file.read_text().splitlines()]
