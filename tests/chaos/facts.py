"""What is known of a played story besides its history: what the checker holds the history against."""

from __future__ import annotations

from qnwis.continuity.model import Model
from qnwis.continuity.run import RunOutcome
from qnwis.continuity.topology import ReplicationMode

Write = tuple[str, int]
"""client, n"""


class Promotion(Model):
    """A node began a timeline."""

    node_id: str
    timeline: int
    lsn: int
    """Where it left the timeline before: what is beyond that there is lost."""


class PlayedRun(Model):
    """A run that ended."""

    run_id: str
    outcome: RunOutcome
    rule: str | None = None
    """Of the refusal, where there was one."""


class Thaw(Model):
    """A whole machine (database, agent and guard) went on after it had been frozen."""

    node_id: str
    at_s: float
    """By the history's clock."""


class Facts(Model):
    """Of one played story."""

    replication: ReplicationMode
    max_lag_bytes: int
    first_primary: str
    primary_at_end: str | None
    """Who serves, or is the last that was promoted."""
    writable_at_end: bool
    """A write through the service's name is acknowledged at the end."""
    promotions: tuple[Promotion, ...] = ()
    rows: frozenset[Write] | None = None
    """What the primary's database holds at the end; None when there is none to be asked."""
    effects: tuple[str, ...] = ()
    """The effect id of every change of state in the journals of agents and DNS, once for each change."""
    runs: tuple[PlayedRun, ...] = ()
    """In the order in which they ended."""
    thawed: tuple[Thaw, ...] = ()
    held_by: tuple[str, ...] = ()
    """Rules by which the guardian held a failover back or left it to people, in the order of time."""
