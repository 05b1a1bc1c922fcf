"""What must never happen in a cycle: pure."""

from __future__ import annotations

from collections.abc import Iterable

from qnwis.agent.journal import Line
from qnwis.continuity.topology import ReplicationMode
from qnwis.lab.acks import Row
from qnwis.lab.history import History
from tests.chaos.checker import check, primaries_at_most
from tests.chaos.facts import Facts


def violations(
    history: History, rows: frozenset[Row], journals: Iterable[tuple[str, Line]], *, primary: str
) -> list[str]:
    """By the checker of the fault stories, a sentence each. The cluster's commits wait for a standby.

    `history`: of the cycle's clients, pinned ones among them; `rows`: those with its numbers, in the database
    of the `primary` at its end; `journals`: the lines of every node's journal, with the node.
    """
    facts = Facts(
        replication=ReplicationMode.SYNCHRONOUS,
        max_lag_bytes=0,
        first_primary=primary,
        primary_at_end=primary,
        writable_at_end=True,
        rows=rows,
        effects=tuple(
            f"{node_id}/{line.receipt.effect_id}"
            for node_id, line in journals
            if line.receipt is not None and line.receipt.changed
        ),
    )
    found = [str(violation) for violation in check(history, facts)]
    if not found and (primaries := primaries_at_most(history)) > 1:
        found.append(f"{primaries} nodes acknowledged writes at the same time")
    return found


def gone(counted: int, expected: int) -> list[str]:
    """Of the rows of earlier cycles: nothing deletes them, and no write of those cycles is under way."""
    if counted == expected:
        return []
    return [f"of {expected} rows of earlier cycles {counted} are there"]
