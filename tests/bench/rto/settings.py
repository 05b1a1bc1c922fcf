"""The settings under which each system is measured, and where they come from: this one place.

`default` is what a system does when nobody asks for anything else. `fastest` is the fastest that its own
documents call safe, down to the least values that it takes. `equal` is a beat of one second and three misses,
where a system has such settings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import JsonValue

from qnwis.continuity.heartbeat import HeartbeatConfig
from qnwis.continuity.lease_messages import LeaseTerms
from qnwis.continuity.model import Model

from .figures import Event

DEFAULT, FASTEST, EQUAL = "default", "fastest", "equal"
SETTINGS = (DEFAULT, EQUAL, FASTEST)
ALL = tuple(Event)


@dataclass(frozen=True)
class Setting:
    name: str
    values: Mapping[str, JsonValue]
    """What differs from the system's defaults."""
    source: str
    """Where it is documented."""
    phase_s: float
    """How often the system looks, seconds: events come at a random moment of such a time."""
    events: tuple[Event, ...]
    """What is measured under it."""


RETRY: dict[str, JsonValue] = {"wal_retrieve_retry_interval": "50ms"}
"""PostgreSQL's: `pg_promote` waits for as long where it meets a startup process asleep (5 s by default).
Every other manager has it in its fastest setting; this project's agents set it by themselves."""
SYNC = {"recovery_init_sync_method": "syncfs"}
"""PostgreSQL's, of every manager's fastest setting: before it recovers from a crash it has its files written
out by file system instead of one by one; safe from Linux 5.8 on, which reports the errors of that."""
QUICK: dict[str, JsonValue] = {**RETRY, **SYNC}


class Terms(Model):
    """What may be chosen of this project."""

    heartbeat: HeartbeatConfig = HeartbeatConfig()
    lease: LeaseTerms = LeaseTerms()
    local_restart_s: float = 0.0
    """Of an agent: how long it tries to have a crashed database back before it leaves that to a failover."""
    parameters: Mapping[str, str] = {}
    """Of PostgreSQL."""

    @property
    def differing(self) -> dict[str, JsonValue]:
        """From the defaults."""
        return {name: value for name, value in self._flat().items() if value != Terms()._flat().get(name)}

    def _flat(self) -> dict[str, JsonValue]:
        heartbeat = {f"heartbeat.{field}": value for field, value in self.heartbeat.model_dump().items()}
        lease = {f"lease.{field}": value for field, value in self.lease.model_dump().items()}
        return {**heartbeat, **lease, "local_restart_s": self.local_restart_s, **self.parameters}


def _ours(name: str, terms: Terms) -> Setting:
    return Setting(
        name,
        terms.differing,
        _OUR_SOURCES[name],
        phase_s=terms.heartbeat.interval_sec,
        events=_OUR_EVENTS[name],
    )


OUR_TERMS: dict[str, Terms] = {
    DEFAULT: Terms(),
    EQUAL: Terms(
        heartbeat=HeartbeatConfig(interval_sec=1.0, timeout_sec=0.8, failure_threshold=3),
        lease=LeaseTerms(duration_s=2.5, renew_every_s=0.5),
    ),
    FASTEST: Terms(
        heartbeat=HeartbeatConfig(interval_sec=0.5, timeout_sec=0.4, failure_threshold=3),
        lease=LeaseTerms(duration_s=1.5, renew_every_s=0.25),
        local_restart_s=2.0,
        parameters=SYNC,
    ),
}
"""No setting here can make two writers (docs/guarantees.md): shorter ones only make it likelier that a busy
machine is taken for a dead one. `fastest` keeps three misses, and a lease that five renewals may miss; a
database that crashed is started again under its lease, and failed over where that takes too long."""
_OUR_SOURCES = {
    DEFAULT: "HeartbeatConfig and LeaseTerms",
    EQUAL: "the lab's own (qnwis.lab.shape)",
    FASTEST: "docs/guarantees.md, “Lease terms are a choice” and what becomes of a database that crashes",
}
_OUR_EVENTS = {
    DEFAULT: (Event.KILLED, Event.CRASHED, Event.SWITCHOVER),
    EQUAL: (Event.KILLED, Event.CRASHED),
    FASTEST: ALL,
}
OURS = tuple(_ours(name, terms) for name, terms in OUR_TERMS.items())

_PATRONI = "https://patroni.readthedocs.io/en/latest/dynamic_configuration.html"
PATRONI = (
    Setting(DEFAULT, {}, _PATRONI, phase_s=10, events=(Event.KILLED, Event.CRASHED, Event.SWITCHOVER)),
    Setting(
        FASTEST,
        {
            "ttl": 20,
            "loop_wait": 1,
            "retry_timeout": 3,
            "primary_start_timeout": 0,
            "synchronous_mode": True,
            "postgresql.parameters": QUICK,
        },
        f"{_PATRONI}: the least ttl, loop_wait and retry_timeout that it takes; a crashed primary is not"
        " started again but failed over; synchronous, so that a failover loses nothing",
        phase_s=1,
        events=ALL,
    ),
)

_AUTO_FAILOVER = "https://pg-auto-failover.readthedocs.io/en/main/ref/configuration.html"
AUTO_FAILOVER = (
    Setting(DEFAULT, {}, _AUTO_FAILOVER, phase_s=5, events=(Event.KILLED, Event.SWITCHOVER)),
    Setting(
        FASTEST,
        {
            "pgautofailover.health_check_period": 1000,
            "pgautofailover.health_check_timeout": 1000,
            "pgautofailover.health_check_retry_delay": 500,
            "pgautofailover.health_check_max_retries": 2,
            "pgautofailover.node_considered_unhealthy_timeout": 3000,
            "pgautofailover.primary_demote_timeout": 4000,
            "timeout.network_partition_timeout": 3,
            "postgresql.parameters": QUICK,
        },
        f"{_AUTO_FAILOVER}: no least values are documented; a primary that is cut off stops itself"
        " (network_partition_timeout) before another is promoted (primary_demote_timeout)",
        phase_s=1,
        events=ALL,
    ),
)

_REPMGR = "https://www.repmgr.org/docs/5.3/repmgrd-basic-configuration.html"
REPMGR = (
    Setting(DEFAULT, {}, _REPMGR, phase_s=2, events=(Event.KILLED,)),
    Setting(
        EQUAL,
        {"monitor_interval_secs": 1, "reconnect_attempts": 3, "reconnect_interval": 1, **RETRY},
        f"{_REPMGR}: three attempts, a second apart",
        phase_s=1,
        events=(Event.KILLED, Event.BLACKHOLED, Event.CRASHED),
    ),
    Setting(
        FASTEST,
        {"monitor_interval_secs": 1, "reconnect_attempts": 1, "reconnect_interval": 1, **QUICK},
        f"{_REPMGR}: a single attempt; nothing is fenced, under whatever settings",
        phase_s=1,
        events=(Event.KILLED,),
    ),
)

FLOOR = (
    Setting(DEFAULT, {}, "pg_promote() as soon as the primary is killed", phase_s=0, events=(Event.KILLED,)),
    Setting(FASTEST, dict(QUICK), "the same", phase_s=0, events=(Event.KILLED,)),
)
