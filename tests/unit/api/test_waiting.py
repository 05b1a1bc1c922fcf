"""How long an answer waits for the end of a run."""

from __future__ import annotations

import pytest

from qnwis.api.waiting import DRY_RUN_S, LONGEST_S, wait_s


@pytest.mark.parametrize(
    ("prefer", "run", "dry_run"),
    [
        (None, 0, DRY_RUN_S),
        ("respond-async", 0, 0),
        ("handling=strict, Respond-Async", 0, 0),
        ("handling=respond-asynchronous", 0, DRY_RUN_S),
        ("wait=0", 0, 0),
        ("wait=30", 30, 30),
        ("respond-async, wait=10", 10, 10),
        ("wait=99999", LONGEST_S, LONGEST_S),
    ],
)
def test_a_dry_run_is_waited_for_unless_the_caller_says_otherwise(
    prefer: str | None, run: float, dry_run: float
) -> None:
    assert (wait_s(prefer), wait_s(prefer, dry_run=True)) == (run, dry_run)
