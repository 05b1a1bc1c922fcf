"""The answers of Patroni's REST API, as far as they are read, and a node's state made of them."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from qnwis.continuity.evidence import NodeState, StandbyConnection
from qnwis.continuity.patroni_word import PatroniWord
from qnwis.continuity.topology import NodeRole


class _Answer(BaseModel):
    """Patroni says more than is read, and more with each version."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class _Identity(_Answer):
    name: str


class _Xlog(_Answer):
    location: int | None = None
    received_location: int | None = None
    replayed_location: int | None = None


class _Replica(_Answer):
    application_name: str
    state: str
    sync_state: str


class StatusAnswer(_Answer):
    """`GET /patroni`."""

    state: str
    role: str
    patroni: _Identity
    xlog: _Xlog | None = None
    timeline: int | None = None
    replication: tuple[_Replica, ...] = ()
    replication_state: str | None = None
    database_system_identifier: str | None = None
    sync_standby: bool = False
    pause: bool = False
    tags: dict[str, object] = Field(default_factory=dict)


class _Member(_Answer):
    name: str
    role: str


class ClusterAnswer(_Answer):
    """`GET /cluster`."""

    members: tuple[_Member, ...]
    pause: bool = False


class _StandbyCluster(_Answer):
    host: str | None = None
    port: int | str | None = None
    restore_command: str | None = None


class ConfigAnswer(_Answer):
    """`GET /config`: the dynamic configuration."""

    standby_cluster: _StandbyCluster | None = None
    synchronous_mode: bool | str = False
    maximum_lag_on_failover: int | None = None
    loop_wait: float = 10.0


LEADERS = frozenset({"leader", "standby_leader"})
PRIMARIES = frozenset({"primary", "master"})
"""Older versions say master."""
STANDBY_CLUSTER_BY_ARCHIVE = "an archive"
POSTGRES_PORT = 5432


def state_of(status: StatusAnswer, cluster: ClusterAnswer | None, config: ConfigAnswer | None) -> NodeState:
    """The node's state. Its epoch is its timeline: that of a new primary is above all before it. Whom it
    follows is left open, which needs the topology."""
    up = status.state == "running" and status.xlog is not None
    xlog = status.xlog or _Xlog()
    primary = up and status.role in PRIMARIES
    return NodeState(
        node_id=status.patroni.name,
        role=NodeRole.PRIMARY if primary else NodeRole.SECONDARY,
        database_up=up,
        why_down=None if up else f"Patroni says that it is {status.state}",
        restarting=status.state in ("starting", "restarting"),
        writable=primary,
        in_recovery=not primary if up else None,
        system_identifier=status.database_system_identifier,
        timeline=status.timeline,
        write_lsn=xlog.location if primary else None,
        receive_lsn=None if primary else xlog.received_location or xlog.replayed_location,
        replay_lsn=None if primary else xlog.replayed_location,
        streaming=up and status.replication_state == "streaming",
        standbys=tuple(
            StandbyConnection(application_name=r.application_name, state=r.state, sync_state=r.sync_state)
            for r in status.replication
        ),
        epoch=status.timeline or 0,
        patroni=None if cluster is None or config is None else _word(status, cluster, config),
    )


def _word(status: StatusAnswer, cluster: ClusterAnswer, config: ConfigAnswer) -> PatroniWord:
    return PatroniWord(
        leader=next((m.name for m in cluster.members if m.role in LEADERS), None),
        members=tuple(m.name for m in cluster.members),
        standby_of=_followed(config.standby_cluster),
        paused=cluster.pause or status.pause,
        synchronous=config.synchronous_mode in (True, "on", "true"),
        sync_standby=status.sync_standby,
        nofailover=bool(status.tags.get("nofailover")),
        max_lag_bytes=config.maximum_lag_on_failover,
        loop_wait_s=config.loop_wait,
    )


def _followed(standby: _StandbyCluster | None) -> str | None:
    """Patroni takes an empty section for none."""
    if standby is None or not (standby.host or standby.port or standby.restore_command):
        return None
    if not standby.host:
        return STANDBY_CLUSTER_BY_ARCHIVE
    return f"{standby.host}:{standby.port or POSTGRES_PORT}"
