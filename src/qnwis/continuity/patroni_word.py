"""What a member's Patroni says of its cluster: part of the evidence on a node, where Patroni manages it."""

from __future__ import annotations

from .model import Model


class PatroniWord(Model):
    """One Patroni cluster, as one of its members has it from the DCS."""

    leader: str | None = None
    """The member that holds the leader lock; None while nobody does."""
    members: tuple[str, ...] = ()
    """Those that the DCS knows now; one that is down for longer than its key lives is not among them."""
    standby_of: str | None = None
    """`host:port` that this cluster follows as a standby cluster; None for one that has a primary."""
    paused: bool = False
    """Patroni's maintenance mode: it decides nothing by itself, and old primaries are not stopped."""
    synchronous: bool = False
    """`synchronous_mode`: only a synchronous standby is certain to have every acknowledged write."""
    sync_standby: bool = False
    """The member itself is one."""
    nofailover: bool = False
    """The member's tag: it is never to be the leader."""
    max_lag_bytes: int | None = None
    """`maximum_lag_on_failover`, bytes; None where it is not set."""
    loop_wait_s: float = 10.0
    """How often Patroni looks at what it was told, seconds."""
