"""What is kept of a cycle, and when writes stood still in it: pure."""

from __future__ import annotations

from qnwis.continuity.model import Model
from qnwis.continuity.run import RunResult
from qnwis.lab.acks import AckLog
from tests.bench.rto.figures import gap_ms

from .levels import Reading


class Cycle(Model):
    """One failover and the way back. Times in milliseconds."""

    number: int
    failover_gap_ms: float | None
    """The longest time that any one client had no write acknowledged, from the kill on; None where one never
    wrote again, which is a violation."""
    switchover_gap_ms: float | None
    """The same from the request to move the service back."""
    started_ms: float
    """From the kill to the start of the run."""
    failover_run_ms: float
    """From the start of the run to its end."""
    switchover_run_ms: float
    """The same; an approval and the wait for the old TTL are in it."""
    rejoin_ms: float
    """From the start of the killed node's agent until it streams from the new primary."""
    took_ms: float
    writes: int
    """Acknowledged, through the service's name."""
    violations: tuple[str, ...]
    readings: tuple[Reading, ...]


def gaps_ms(
    log: AckLog, *, killed_s: float, moved_s: float, clients: int
) -> tuple[float | None, float | None]:
    """The failover's and the switchover's, from the clients' log of a whole cycle; None where a client never
    came back. `moved_s`: when the way back was asked for."""
    assert log.ended_at is not None, "clients that run see something all the time"
    names = [str(number) for number in range(clients)]
    there = [ack for ack in log.acks if ack.at <= moved_s]
    return (
        gap_ms(there, since_s=killed_s, ended_s=moved_s, clients=names),
        gap_ms(log.acks, since_s=moved_s, ended_s=log.ended_at, clients=names),
    )


def duration_ms(result: RunResult) -> float:
    return 1000 * (result.ended_at - result.started_at).total_seconds()


def unverified(result: RunResult, what: str, *, old: str, new: str | None = None) -> list[str]:
    """What is wrong with how a run ended, a sentence each; nothing where it was verified and moved the
    service from one node to the other, or to any where `new` is not given."""
    found = []
    if not result.verified:
        found.append(f"the {what} ended {result.outcome}: {result.reason}")
    elif result.old_primary != old or new not in (None, result.new_primary):
        went = f"{result.old_primary} → {result.new_primary}"
        found.append(f"the {what} went {went}, expected {old} → {new or 'another node'}")
    return found


def unless_rewound(said: str) -> list[str]:
    """Of a killed node that follows the new primary: its agent falls back on a copy of the whole database,
    and nothing here should drive it to that."""
    return [] if "was rewound" in said else [f"the killed node was not rewound: {said}"]
