"""The agent's journal: which data directory a rejoin left half replaced, and lines that a crash cut off."""

from __future__ import annotations

import resource
from datetime import UTC, datetime
from pathlib import Path

import pytest

from qnwis.agent.journal import Journal, Line, Mark
from qnwis.continuity.orders import RejoinOrder

NOW = datetime(2026, 7, 1, tzinfo=UTC)


def line(mark: Mark, effect: str = "e", *, marks: bool | None = None) -> Line:
    order = RejoinOrder(effect_id=effect, run_id="r", epoch=1, upstream="n1")
    return Line(at=NOW, mark=mark, order=order, marks_replacing=marks)


BEGUN = line(Mark.INTENT, marks=True)


@pytest.mark.parametrize(
    ("lines", "unfinished"),
    [
        ([BEGUN], None),
        ([BEGUN, line(Mark.FAILED)], None),
        ([BEGUN, line(Mark.REPLACING)], "e"),
        ([BEGUN, line(Mark.REPLACING), line(Mark.FAILED)], "e"),
        ([BEGUN, line(Mark.REPLACING), line(Mark.REPLACED)], None),
        ([BEGUN, line(Mark.REPLACING), line(Mark.REPLACED), line(Mark.FAILED)], None),
        ([BEGUN, line(Mark.REPLACING), line(Mark.REFUSED, "old epoch")], "e"),
        ([BEGUN, line(Mark.REPLACING), line(Mark.INTENT, "again", marks=True)], "e"),
        (
            [BEGUN, line(Mark.REPLACING), line(Mark.INTENT, "again", marks=True), line(Mark.DONE, "again")],
            None,
        ),
        # Of an earlier version:
        ([line(Mark.INTENT)], "e"),
        ([line(Mark.INTENT), line(Mark.FAILED)], "e"),
        ([line(Mark.INTENT), line(Mark.INTENT, "again", marks=True), line(Mark.FAILED, "again")], "e"),
        ([line(Mark.INTENT), line(Mark.DONE)], None),
        ([line(Mark.REFUSED)], None),
    ],
)
def test_a_rejoin_is_unfinished_only_while_it_replaces_data(
    tmp_path: Path, lines: list[Line], unfinished: str | None
) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    for one in lines:
        journal.append(one)
    left = Journal(tmp_path / "journal.jsonl").unfinished_rejoin()
    assert (left and left.effect_id) == unfinished


def test_what_does_not_fit_on_the_disk_leaves_no_half_line(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    journal = Journal(path)
    journal.append(BEGUN)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # As a full disk does, this lets the first bytes through.
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 20, before[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            journal.append(line(Mark.REPLACING))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    journal.append(line(Mark.FAILED))
    assert journal.lines == Journal(path).lines == (BEGUN, line(Mark.FAILED))


def test_a_line_that_a_crash_cut_off_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    Journal(path).append(BEGUN)
    whole = path.read_bytes()
    path.write_bytes(whole + '{"at": "é'.encode()[:-1])
    assert Journal(path).lines == (BEGUN,)
    assert path.read_bytes() == whole


@pytest.mark.parametrize("between", ["\u2028", "\u0085", "\r"])
def test_only_a_newline_ends_a_line(tmp_path: Path, between: str) -> None:
    wanted = line(Mark.DONE, f"an{between}effect")
    Journal(tmp_path / "journal.jsonl").append(wanted)
    assert Journal(tmp_path / "journal.jsonl").lines == (wanted,)
