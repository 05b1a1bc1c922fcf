"""What is read from pg_waldump's text: which transactions are discarded, and where they wrote."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qnwis.continuity.discarded import Changes, Found, LogReader, Relation
from qnwis.continuity.timelines import lsn_text

ORDERS = Relation(1663, 5, 16384)
AT = "2026-11-28 21:00:00.5 UTC"


def line(manager: str, xid: int, lsn: int, said: str) -> str:
    return (
        f"rmgr: {manager:<11} len (rec/tot):     54/   150, tx: {xid:>10}, lsn: {lsn_text(lsn)},"
        f" prev 0/0150E010, desc: {said}\n"
    )


def insert(xid: int, lsn: int, block: int) -> str:
    return line("Heap", xid, lsn, f"INSERT off: 3, flags: 0x00, blkref #0: rel 1663/5/16384 blk {block} FPW")


def commit(xid: int, lsn: int, more: str = "") -> str:
    return line("Transaction", xid, lsn, f"COMMIT {AT}{more}")


def next_xid(xid: int, lsn: int) -> str:
    said = f"RUNNING_XACTS nextXid {xid} latestCompletedXid {xid - 1} oldestRunningXid {xid}"
    return line("Standby", 0, lsn, said)


def read(*lines: str, from_lsn: int = 100) -> Found:
    reader = LogReader(from_lsn)
    for one in lines:
        reader.read(one)
    return reader.found()


def test_a_transaction_is_discarded_where_its_commit_is_wherever_it_wrote() -> None:
    found = read(next_xid(730, 10), insert(735, 50, 1), insert(736, 60, 2), commit(736, 90),
                 insert(735, 110, 3), commit(735, 120))  # fmt: skip
    assert [one.xid for one in found.transactions] == [735]
    assert found.changes == {ORDERS: Changes({1, 3})}
    assert (found.last_lsn, found.whole) == (120, True)
    assert found.transactions[0].committed_at == datetime(2026, 11, 28, 21, 0, 0, 500_000, tzinfo=UTC)


def test_what_is_taken_back_or_never_ended_is_not_discarded() -> None:
    found = read(next_xid(730, 10), insert(735, 110, 1), line("Transaction", 735, 120, f"ABORT {AT}"),
                 insert(736, 130, 2))  # fmt: skip
    assert found.empty and not found.changes


def test_subtransactions_end_with_theirs() -> None:
    found = read(next_xid(730, 10), insert(736, 110, 4), insert(737, 111, 5),
                 commit(735, 120, "; subxacts: 736 737; origin: node 1"))  # fmt: skip
    assert found.transactions[0].subxids == (736, 737)
    assert found.changes == {ORDERS: Changes({4, 5})}


def test_a_commit_in_two_phases_names_its_transaction_and_one_that_is_only_prepared_is_counted() -> None:
    found = read(next_xid(730, 10), insert(735, 50, 1), line("Transaction", 735, 60, f"PREPARE gid a: {AT}"),
                 line("Transaction", 0, 110, f"COMMIT_PREPARED 735: {AT}"),
                 line("Transaction", 736, 120, f"PREPARE gid b: {AT}"))  # fmt: skip
    assert [one.xid for one in found.transactions] == [735]
    assert found.changes == {ORDERS: Changes({1})}
    assert found.prepared == 1


@pytest.mark.parametrize(
    "said",
    [
        "DELETE off 2 flags 0x00 KEYS_UPDATED , blkref #0: rel 1663/5/16384 blk 7",  # PostgreSQL 15
        "DELETE xmax: 735, off: 2, infobits: [KEYS_UPDATED], flags: 0x00, blkref #0: rel 1663/5/16384 blk 7",
    ],
)
def test_a_deleted_row_is_counted_and_leaves_nothing_to_read(said: str) -> None:
    found = read(next_xid(730, 10), line("Heap", 735, 110, said), commit(735, 120))
    assert found.changes == {ORDERS: Changes(set(), deleted=1)}


def test_the_new_version_of_a_row_is_where_the_first_block_says() -> None:
    said = "UPDATE+INIT off 2 xmax 735 flags 0x03 ; new off 1 xmax 0"
    blocks = ", blkref #0: rel 1663/5/16384 blk 9, blkref #1: rel 1663/5/16384 blk 3"
    found = read(next_xid(730, 10), line("Heap", 735, 110, said + blocks), commit(735, 120))
    assert found.changes == {ORDERS: Changes({9})}


@pytest.mark.parametrize(
    ("known", "xid", "whole"),
    [(735, 735, True), (736, 735, False), (5, (1 << 32) - 3, False), ((1 << 32) - 3, 5, True)],
)
def test_it_is_whole_only_if_the_transaction_began_in_what_was_read(
    known: int, xid: int, whole: bool
) -> None:
    assert read(next_xid(known, 10), insert(xid, 110, 1), commit(xid, 120)).whole is whole


def test_where_the_log_never_says_which_transaction_comes_next_it_is_not_known_to_be_whole() -> None:
    assert not read(insert(735, 110, 1), commit(735, 120)).whole
    checkpoint = (
        "CHECKPOINT_ONLINE redo 0/150E148; tli 1; prev tli 1; fpw true; xid 0:735; oid 24576; multi 1"
    )
    assert read(line("XLOG", 0, 10, checkpoint), insert(735, 110, 1), commit(735, 120)).whole
    assert read().whole, "where nothing is discarded nothing is missing"


@given(st.text())
def test_a_line_that_is_none_of_the_logs_is_left_alone(text: str) -> None:
    assert not LogReader(0).read(text)
