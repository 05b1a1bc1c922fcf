"""PostgreSQL's settings that the agent owns, and the text of postgresql.auto.conf. Pure.

They stand in postgresql.auto.conf because it is read last: nothing in postgresql.conf overrides them, and
settings of other people in it stay as they are. pg_rewind and pg_basebackup bring the upstream's file along,
so the agent writes its own again before each start.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from qnwis.continuity.membership import Peer
from qnwis.continuity.topology import ReplicationMode

from .config import AgentConfig, LocalDatabase

UPSTREAM = "primary_conninfo"
READ_ONLY = "default_transaction_read_only"
RETRY, SELDOM = "wal_retrieve_retry_interval", "5s"
"""How long a standby waits before it tries to reach its upstream again, and PostgreSQL's default of that."""

_LINE = re.compile(r"^\s*(?P<name>[A-Za-z_][A-Za-z0-9_.]*)\s*=?\s*'(?P<value>(?:[^'\\]|''|\\.)*)'\s*$")
_ESCAPED = re.compile(r"''|\\(.)")


def owned_settings(
    config: AgentConfig, database: LocalDatabase, standbys: Sequence[str], required_acks: int
) -> dict[str, str]:
    """What the agent decides, the same by rule on every node, so that any of them can be promoted.

    `standbys` are the node_ids of the other members that hold data; a commit waits for `required_acks` of
    them.
    """
    return {
        "listen_addresses": ",".join((database.host, *database.also_listen_on)),
        "port": str(database.port),
        # By default TCP only: a socket's path is limited to 107 bytes and its stale locks outlive a SIGKILL.
        "unix_socket_directories": ",".join(map(str, database.socket_dirs)),
        "cluster_name": config.node_id,
        "hot_standby": "on",
        # The agent knows exhausted connections by the server's words.
        "lc_messages": "C",
        # pg_rewind needs one of hints or checksums; the data directory may have been made without checksums.
        "wal_log_hints": "on",
        # Room for a stream and a base backup of each peer. The same everywhere: a standby stops where its
        # primary had more.
        "max_wal_senders": "32",
        # What an old primary needs to be rewound instead of copied.
        "wal_keep_size": f"{database.wal_keep_mb}MB",
        # Without it a promotion right after the primary's death can stall for the default, 5 s, and the first
        # commits of a primary that is back wait for as long until a standby tries again.
        RETRY: "50ms",
        "wal_receiver_status_interval": "1s",
        # A standby asks for a sign of life after half of this: a live link is silent for 2 s at most.
        "wal_receiver_timeout": "4s",
        "wal_sender_timeout": "10s",
        # A slot is on one node only: a standby that asks another for it gets no log at all.
        "primary_slot_name": "",
        "recovery_target_timeline": "latest",
        "superuser_reserved_connections": "3",
        "synchronous_standby_names": synchronous_standby_names(
            config.replication.mode, standbys, required_acks
        ),
    }


def synchronous_standby_names(mode: ReplicationMode, standbys: Sequence[str], required_acks: int) -> str:
    """`ANY k ("n2","n3")`; empty where a commit waits for nobody."""
    if mode is ReplicationMode.ASYNCHRONOUS or not required_acks:
        return ""
    names = ",".join(f'"{node_id}"' for node_id in standbys)
    return f"ANY {required_acks} ({names})"


def conninfo(peer: Peer, user: str, passfile: Path | None, **more: str) -> str:
    """How PostgreSQL's programs reach a peer's database. The password stays in its file."""
    if peer.database is None:
        raise ValueError(f"peer {peer.node_id} has no database; expected a peer that holds data")
    if passfile is not None:
        more["passfile"] = str(passfile)
    # A host that vanished without a word is given up after some seconds, not after the kernel's minutes.
    return make_conninfo(
        host=peer.database.host, port=peer.database.port, user=user, connect_timeout=2,
        keepalives_idle=5, keepalives_interval=2, keepalives_count=3, tcp_user_timeout=10_000, **more,
    )  # fmt: skip


def passfile_line(user: str, password: str) -> str:
    """A line of libpq's password file, for any server."""
    return "*:*:*:" + ":".join(re.sub(r"([\\:])", r"\\\1", field) for field in (user, password)) + "\n"


def upstream_of(peers: Iterable[Peer], conninfo: str) -> Peer | None:
    """The peer that a `primary_conninfo` points to, by host and port; None where it matches none."""
    try:
        parts = conninfo_to_dict(conninfo)
    except ProgrammingError:
        return None
    host, port = parts.get("host"), str(parts.get("port", 5432))
    return next(
        (p for p in peers if p.database and (p.database.host, str(p.database.port)) == (host, port)),
        None,
    )


def read_settings(text: str) -> dict[str, str]:
    """The settings in the text of a postgresql.auto.conf; the last of a name counts."""
    found = (_LINE.match(line) for line in text.splitlines())
    return {
        m["name"].lower(): _ESCAPED.sub(lambda e: e[1] or "'", m["value"]) for m in found if m is not None
    }


def merge_settings(text: str, changes: Mapping[str, str | None]) -> str:
    """The text with `changes` applied (None removes a name) and every other line kept as it is."""
    kept = [
        line
        for line in text.splitlines()
        if (m := _LINE.match(line)) is None or m["name"].lower() not in changes
    ]
    added = [f"{name} = '{_escape(value)}'" for name, value in changes.items() if value is not None]
    return "\n".join([*kept, *added]) + "\n"


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace("'", "''")
