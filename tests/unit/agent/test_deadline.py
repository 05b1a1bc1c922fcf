"""Deadlines on disk: they outlive the agent, and never last longer than they were given."""

from __future__ import annotations

from pathlib import Path

from qnwis.agent.deadline import Deadline
from qnwis.agent.guard import now


def test_a_deadline_outlives_the_agent_until_it_is_ended(tmp_path: Path) -> None:
    file = tmp_path / "deadline"
    assert not Deadline(file).there and Deadline(file).left_s == 0
    Deadline(file).begin(600)
    again = Deadline(file)
    assert again.there and 0 < again.left_s <= 600
    again.end()
    assert not Deadline(file).there and Deadline(file).left_s == 0


def test_a_deadline_of_a_machine_that_was_started_anew_lasts_no_longer_than_it_was_given(
    tmp_path: Path,
) -> None:
    # The clock began anew, so the moment lies far ahead of it.
    file = tmp_path / "deadline"
    file.write_text(f'{{"until_s": {now() + 10**6}, "for_s": 5.0}}')
    assert Deadline(file).left_s == 5


def test_a_deadline_that_cannot_be_read_has_passed(tmp_path: Path) -> None:
    file = tmp_path / "deadline"
    file.write_text("torn")
    assert Deadline(file).there and Deadline(file).left_s == 0
