"""Which setting buys how much: one setting moved one step at a time, on the same failures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from qnwis.continuity.model import Model
from qnwis.continuity.policy import Strategy
from qnwis.continuity.topology import Cluster, ReplicationMode

from .figures import Figures
from .study import Settings, unplayable
from .world import Finds

INTERVALS_S = (30.0, 15.0, 10.0, 5.0, 2.0, 1.0, 0.5)
TIMEOUTS_S = (10.0, 5.0, 2.0, 1.0, 0.5, 0.2)
TTLS_S = (3600, 600, 300, 60, 30, 10, 5, 1, 0)
LEASES_S = (30.0, 15.0, 10.0, 5.0, 3.0, 2.0, 1.5)


@dataclass(frozen=True)
class Move:
    """One setting, moved."""

    setting: str
    before: str
    after: str
    settings: Settings


class Bought(Model):
    """What one setting, moved, makes of the figures."""

    setting: str
    before: str
    after: str
    figures: Figures
    words: str


def moves(settings: Settings) -> Iterator[Move]:
    """Each setting that can be moved, one step towards a faster failover or a smaller loss."""
    for move in _all(settings):
        if unplayable(move.settings, 1) is None:
            yield move


def bought(move: Move, before: Figures, after: Figures) -> Bought:
    return Bought(
        setting=move.setting,
        before=move.before,
        after=move.after,
        figures=after,
        words=in_words(f"{move.setting} {move.before} to {move.after}", before, after),
    )


def in_words(what: str, before: Figures, after: Figures) -> str:
    """One sentence: what changes, and by how much; the RPO where it changes."""
    false = _change(before.false_failovers_per_year, after.false_failovers_per_year, _few)
    told = [
        f"P95 RTO {_change(before.rto_s.p95, after.rto_s.p95, _seconds)}",
        f"false failovers {false} a year",
        f"downtime {_change(before.downtime_s_per_year, after.downtime_s_per_year, _seconds)} a year",
    ]
    if before.rpo_s != after.rpo_s:
        told.insert(1, f"P95 RPO {_change(before.rpo_s.p95, after.rpo_s.p95, _seconds)}")
    return f"{what}: {', '.join(told)}"


def _change(before: float, after: float, shown: Callable[[float], str]) -> str:
    if shown(before) == shown(after):
        return f"unchanged at {shown(after)}"
    return f"from {shown(before)} to {shown(after)}"


def _seconds(value: float) -> str:
    return f"{value:.1f} s" if value < 100 else f"{value:.0f} s"


def _few(value: float) -> str:
    return f"{value:.2f}"


def _all(settings: Settings) -> Iterator[Move]:
    cluster, policy, world = settings.cluster, settings.policy, settings.world
    beat = cluster.heartbeat
    if (interval := _next(INTERVALS_S, beat.interval_sec)) is not None:
        changed = beat.model_copy(update={"interval_sec": interval})
        yield Move("interval", _s(beat.interval_sec), _s(interval), _with(settings, heartbeat=changed))
    if beat.failure_threshold > 1:
        fewer = beat.failure_threshold - 1
        changed = beat.model_copy(update={"failure_threshold": fewer})
        yield Move("misses", str(beat.failure_threshold), str(fewer), _with(settings, heartbeat=changed))
    if (timeout := _next(TIMEOUTS_S, beat.timeout_sec)) is not None:
        changed = beat.model_copy(update={"timeout_sec": timeout})
        yield Move("timeout", _s(beat.timeout_sec), _s(timeout), _with(settings, heartbeat=changed))
    lease = world.lease
    shorter = _next(LEASES_S, lease.duration_s)
    if shorter is not None and shorter > lease.renew_every_s:
        changed_lease = lease.model_copy(update={"duration_s": shorter})
        yield Move(
            "lease",
            _s(lease.duration_s),
            _s(shorter),
            replace(settings, world=world.model_copy(update={"lease": changed_lease})),
        )
    dns = cluster.dns
    if dns is not None and world.clients.finds is Finds.NAME:
        ttl = _next(TTLS_S, dns.ttl_s)
        if ttl is not None:
            changed_dns = dns.model_copy(update={"ttl_s": int(ttl)})
            yield Move("DNS TTL", _s(dns.ttl_s), _s(ttl), _with(settings, dns=changed_dns))
    if policy.strategy is Strategy.MANUAL:
        automatic = policy.model_copy(update={"strategy": Strategy.AUTOMATIC})
        yield Move("strategy", "manual", "automatic", replace(settings, policy=automatic))
    if cluster.replication.mode is ReplicationMode.ASYNCHRONOUS:
        synchronous = cluster.replication.model_copy(update={"mode": ReplicationMode.SYNCHRONOUS})
        yield Move("replication", "asynchronous", "synchronous", _with(settings, replication=synchronous))


def _with(settings: Settings, **changed: object) -> Settings:
    cluster: Cluster = settings.cluster.model_copy(update=changed)
    return replace(settings, cluster=cluster)


def _next(steps: Sequence[float], value: float) -> float | None:
    return next((step for step in steps if step < value), None)


def _s(value: float) -> str:
    return f"{value:g} s"
