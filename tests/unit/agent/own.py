"""The configuration of the agent under test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qnwis.agent.config import Account, AgentConfig, LocalDatabase
from qnwis.agent.database import Facts
from qnwis.continuity.topology import NodeRole

ACCOUNT = Account(user="any")
STREAMS = Facts(
    in_recovery=True,
    read_only=False,
    system_identifier="1",
    timeline=1,
    write_lsn=None,
    receive_lsn=7,
    replay_lsn=7,
    streaming=True,
    last_message_age_s=0.1,
    standbys=(),
    clients=0,
    client_limit=17,
)
"""What a standby says that receives."""


def own_config(folder: Path, role: NodeRole = NodeRole.SECONDARY, **others: Any) -> AgentConfig:
    """Of the node `own` of the cluster `c`, whose files are in this folder; no database listens."""
    return AgentConfig(
        cluster_id="c",
        node_id="own",
        role=role,
        listen_host="127.0.0.1",
        state_dir=folder / "state",
        database=LocalDatabase(
            host="127.0.0.1",
            port=1,
            data_dir=folder / "data",
            pg_bin=folder,
            superuser=ACCOUNT,
            replication=ACCOUNT,
        ),
        **others,
    )
