"""Making the members of a lab before anything of it runs: folders, agents' configurations, databases."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import yaml
from psycopg.conninfo import make_conninfo

from qnwis.agent.config import Account, AgentConfig, LocalDatabase, Tls
from qnwis.agent.lease import found_cluster
from qnwis.continuity.membership import Peer
from qnwis.continuity.topology import Cluster, Node, NodeRole

from .certificates import Certificates
from .disks import mount_small
from .layout import AGENT_PORT, Block, Folder
from .nodes import NodeMachine
from .postgres import (
    APP,
    REPLICATOR,
    SUPERUSER,
    Installation,
    make_primary,
    make_standby,
    move_log,
)
from .shape import Shape

_SEGMENT_MB, _SMALL_SEGMENT_MB = 16, 1
"""Of the write-ahead log: PostgreSQL's own default, and what fits a small disk many times."""


@dataclass(frozen=True)
class Making:
    """What the members of one lab are made from."""

    folder: Folder
    block: Block
    cluster: Cluster
    shape: Shape
    installation: Installation
    certificates: Certificates

    def make(self, machines: Sequence[NodeMachine]) -> None:
        """Make every member, the primary's database first: the standbys' are copies of it."""
        of = {machine.node_id: machine for machine in machines}
        for group in self.cluster.lease_groups:
            for node in group.nodes:
                self._make_machine(of[node.node_id], group)
            self._make_databases(group, of)
        for node_id, disk in self.shape.small_disks:
            if disk == "wal":
                mount_small(of[node_id].log_dir, self.installation.user)
                move_log(self.installation, of[node_id].data_dir, of[node_id].log_dir)

    def _make_databases(self, group: Cluster, of: Mapping[str, NodeMachine]) -> None:
        holders = [node for node in group.nodes if node.holds_data]
        primary = next(node for node in holders if node.role is NodeRole.PRIMARY)
        passwords = {role: self._password(role) for role in (SUPERUSER, REPLICATOR, APP)}
        source = of[primary.node_id].data_dir
        make_primary(
            self.installation,
            source,
            passwords=passwords,
            network=self.block.network,
            segment_mb=_SMALL_SEGMENT_MB if self.shape.small_disks else _SEGMENT_MB,
            parameters={
                "wal_level": "logical" if self.cluster.is_active_active else "replica",
                **self.shape.parameters,
            },
        )
        for standby in holders:
            if standby is not primary:
                make_standby(
                    self.installation,
                    source,
                    of[standby.node_id].data_dir,
                    primary_conninfo=self._conninfo(primary, standby, passwords[REPLICATOR]),
                )

    def _make_machine(self, machine: NodeMachine, group: Cluster) -> None:
        user = self.installation.user
        machine.home.mkdir(mode=0o711)
        machine.state_dir.mkdir(mode=0o711)
        if (machine.node_id, "agent") in self.shape.small_disks:
            mount_small(machine.state_dir, None)
        if self.cluster.node(machine.node_id).holds_data:
            for path in (machine.data_dir, machine.log_dir):
                path.mkdir(mode=0o700, parents=True)
                if user is not None:
                    os.chown(path, user.uid, user.gid)
                    os.chown(path.parent, user.uid, user.gid)
        config = self._agent_config(machine, group)
        machine.agent_config.write_text(yaml.safe_dump(config.model_dump(mode="json", exclude_none=True)))
        found_cluster(config)

    def _agent_config(self, machine: NodeMachine, group: Cluster) -> AgentConfig:
        node = group.node(machine.node_id)
        return AgentConfig(
            cluster_id=group.cluster_id,
            node_id=node.node_id,
            role=node.role,
            listen_host=node.hostname,
            listen_port=AGENT_PORT,
            state_dir=machine.state_dir,
            database=self._local_database(node, machine),
            peers=tuple(
                Peer(node_id=n.node_id, agent_url=n.agent_url, database=n.database)
                for n in group.nodes
                if n.node_id != node.node_id
            ),
            replication=group.replication,
            lease=self.shape.lease,
            local_restart_s=self.shape.local_restart_s,
            tls=self._tls(node),
        )

    def _tls(self, node: Node) -> Tls:
        files = self.certificates.of_agent(self.cluster.cluster_id, node.node_id)
        return Tls(identity_dir=files.identity, allowlist=files.allowlist_file)

    def _local_database(self, node: Node, machine: NodeMachine) -> LocalDatabase | None:
        if node.database is None:
            return None
        user = self.installation.user
        return LocalDatabase(
            host=node.database.host,
            port=node.database.port,
            data_dir=machine.data_dir,
            pg_bin=self.installation.bin,
            os_user=None if user is None else user.name,
            superuser=Account(user=SUPERUSER, password_file=self.folder.password(SUPERUSER)),
            replication=Account(user=REPLICATOR, password_file=self.folder.password(REPLICATOR)),
        )

    def _password(self, role: str) -> str:
        return self.folder.password(role).read_text().strip()

    def _conninfo(self, primary: Node, standby: Node, password: str) -> str:
        assert primary.database is not None
        return make_conninfo(
            host=primary.database.host,
            port=primary.database.port,
            user=REPLICATOR,
            password=password,
            application_name=standby.node_id,
        )
