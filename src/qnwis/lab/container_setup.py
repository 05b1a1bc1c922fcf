"""What `docker-compose.yml` runs once, before anything else: keys, certificates, people, configuration, and
the databases, each part's on a volume of its own.

    python -m qnwis.lab.container_setup --network 10.77.0.0/24 --volumes /volumes

Volumes are made by who needs them here, and mounted elsewhere:

    lab        nowhere: the authority, everybody's identities and keys, passwords
    config     /config, everywhere: topology, policy, people, allowlist; nothing that is secret
    node-N     /node: a node's database, its agent's configuration, identity and records
    others     /private: the identity or the keys of that part
"""

from __future__ import annotations

import argparse
import base64
import secrets
import shutil
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

import yaml
from psycopg.conninfo import make_conninfo

from qnwis.agent.config import Account, AgentConfig, LocalDatabase, Tls
from qnwis.agent.lease import found_cluster
from qnwis.continuity.access import Issuer, Issuers
from qnwis.continuity.lease_messages import LeaseTerms
from qnwis.continuity.membership import Peer
from qnwis.continuity.model import Model
from qnwis.continuity.topology import Cluster, Node, NodeRole
from qnwis.pki.authority import Authority
from qnwis.providers.dns import key_file_text
from qnwis.providers.keys import new_key, public_key_of, write_key

from .certificates import PERSON, Certificates
from .layout import AGENT_PORT, Block, Folder, new_password, write_secret
from .people import ROLES, make_people
from .postgres import (
    APP,
    REPLICATOR,
    SUPERUSER,
    Installation,
    find_installation,
    make_primary,
    make_standby,
)
from .shape import Shape, lab_cluster, lab_policy

CLUSTER_ID = "lab"
NODE, PRIVATE, CONFIG = Path("/node"), Path("/private"), Path("/config")
"""Where a node, another part and everybody find what is theirs."""
CLIENTS = ("worker-2", "worker-3", "vantage-1", "api")
"""The parts that ask agents, besides people."""
TSIG_KEY, API_KEY, IDENTITY = "tsig.key", "api-signing-key.pem", "identity"
PG_BIN = Path("/usr/lib/postgresql/15/bin")
REGIONS = ("region-1", "region-2", "region-3")

SHAPE = Shape(
    regions=REGIONS,
    power_switch=False,
    # Agents in containers have no right to real-time priority: more time for a renewal that is late.
    lease=LeaseTerms(duration_s=8, renew_every_s=0.5),
    policy={"region_priority": list(REGIONS), "cooldown_s": 15},
)
"""A data node in each of three regions: without any one of them there is a majority, and a standby that
confirms commits; and what was confirmed is in two regions."""


def container_cluster(block: Block) -> Cluster:
    """The topology: node-N and vantage-N stand in region-N."""
    cluster = lab_cluster(SHAPE, Folder(PRIVATE), block, cluster_id=CLUSTER_ID)
    assert cluster.dns is not None
    return cluster.model_copy(
        update={
            "name": "Cluster in containers",
            "vantage_regions": dict(zip(cluster.vantages, REGIONS, strict=True)),
            "dns": cluster.dns.model_copy(update={"tsig_key_file": str(PRIVATE / TSIG_KEY)}),
        }
    )


@dataclass(frozen=True)
class Setup:
    """Makes everything, on volumes that are empty."""

    volumes: Path
    block: Block

    @property
    def lab(self) -> Folder:
        """What stays here. Its folder `config` is what becomes everybody's."""
        return Folder(self.volumes / "lab")

    @property
    def made(self) -> Path:
        """Written last."""
        return self.lab.root / "made"

    def make(self) -> None:
        cluster = container_cluster(self.block)
        self._make_secrets()
        self._make_config(cluster)
        certificates = Certificates(self.lab)
        certificates.begin(CLIENTS)
        certificates.enroll(cluster)
        self._make_api()
        for node in cluster.nodes:
            self._make_node(cluster, node, certificates)
        self._make_databases(cluster)
        self._hand_out(certificates)
        self.made.touch()

    def _make_secrets(self) -> None:
        self.lab.config.mkdir()
        self.lab.secrets.mkdir(mode=0o700)
        for role in (SUPERUSER, REPLICATOR, APP):
            write_secret(self.lab.password(role), new_password() + "\n")
        secret = base64.b64encode(secrets.token_bytes(32)).decode()
        write_secret(self.lab.tsig_key_file, key_file_text("qnwis-lab.", secret))

    def _make_config(self, cluster: Cluster) -> None:
        _write_yaml(self.lab.config / "cluster.yaml", cluster)
        _write_yaml(self.lab.config / "policy.yaml", lab_policy(SHAPE))
        make_people(self.lab)

    def _make_api(self) -> None:
        """The key by which workers believe the API, and the certificate by which people do."""
        key = new_key()
        write_key(self.volumes / "api" / API_KEY, key, person="api")
        _write_yaml(
            self.lab.config / "issuers.yaml",
            Issuers(issuers=(Issuer(name="api", public_key=public_key_of(key)),)),
        )
        Authority(self.lab.pki).issue(
            self.volumes / "api" / "server", "api", ["api", "localhost", "127.0.0.1"]
        )

    def _make_node(self, cluster: Cluster, node: Node, certificates: Certificates) -> None:
        home = self.volumes / node.node_id
        (home / "agent").mkdir(mode=0o700)
        (home / "postgres" / "data").mkdir(mode=0o700, parents=True)
        shutil.copytree(certificates.of_agent(cluster.cluster_id, node.node_id).identity, home / IDENTITY)
        for role in (SUPERUSER, REPLICATOR):
            shutil.copy(self.lab.password(role), home)
        password = self.lab.password(SUPERUSER).read_text().strip()
        write_secret(home / "pgpass", f"*:*:*:{SUPERUSER}:{password}\n")
        config = _agent_config(cluster, node)
        _write_yaml(home / "agent.yaml", config)
        found_cluster(config.model_copy(update={"state_dir": home / "agent"}))

    def _make_databases(self, cluster: Cluster) -> None:
        installation: Installation = find_installation(PG_BIN, cache=self.lab.cache)
        passwords = {
            role: self.lab.password(role).read_text().strip() for role in (SUPERUSER, REPLICATOR, APP)
        }
        primary = next(node for node in cluster.nodes if node.role is NodeRole.PRIMARY)
        assert primary.database is not None
        source = self.volumes / primary.node_id / "postgres" / "data"
        make_primary(installation, source, passwords=passwords, network=self.block.network, segment_mb=16)
        for standby in cluster.nodes:
            if standby is not primary:
                conninfo = make_conninfo(
                    host=primary.database.host,
                    port=primary.database.port,
                    user=REPLICATOR,
                    password=passwords[REPLICATOR],
                    application_name=standby.node_id,
                )
                data_dir = self.volumes / standby.node_id / "postgres" / "data"
                make_standby(installation, source, data_dir, primary_conninfo=conninfo)

    def _hand_out(self, certificates: Certificates) -> None:
        """Give each part what is its own, and everybody the configuration."""
        for name in (*CLIENTS, PERSON):
            shutil.copytree(certificates.of_client(name).identity, self.volumes / name / IDENTITY)
        for name in ("worker-2", "worker-3", "dns", PERSON):
            shutil.copy(self.lab.tsig_key_file, self.volumes / name / TSIG_KEY)
        for person in ROLES:
            shutil.copy(self.lab.key(person), self.volumes / PERSON)
        shutil.copy(self.lab.pki / "ca.pem", self.volumes / PERSON)
        shutil.copy(self.lab.password(APP), self.volumes / "writers")
        for file in self.lab.config.iterdir():
            shutil.copy(file, self.volumes / "config")
            (self.volumes / "config" / file.name).chmod(0o644)


def _agent_config(cluster: Cluster, node: Node) -> AgentConfig:
    """As the node's container sees it."""
    assert node.database is not None
    return AgentConfig(
        cluster_id=cluster.cluster_id,
        node_id=node.node_id,
        role=node.role,
        listen_host=node.hostname,
        listen_port=AGENT_PORT,
        state_dir=NODE / "agent",
        database=LocalDatabase(
            host=node.database.host,
            port=node.database.port,
            data_dir=NODE / "postgres" / "data",
            pg_bin=PG_BIN,
            superuser=Account(user=SUPERUSER, password_file=NODE / f"{SUPERUSER}.password"),
            replication=Account(user=REPLICATOR, password_file=NODE / f"{REPLICATOR}.password"),
        ),
        peers=tuple(
            Peer(node_id=n.node_id, agent_url=n.agent_url, database=n.database)
            for n in cluster.nodes
            if n is not node
        ),
        replication=cluster.replication,
        lease=SHAPE.lease,
        tls=Tls(identity_dir=NODE / IDENTITY, allowlist=CONFIG / "allowlist.yaml"),
    )


def _write_yaml(path: Path, model: Model) -> None:
    path.write_text(yaml.safe_dump(model.model_dump(mode="json", exclude_none=True), sort_keys=False))


def main() -> None:
    parser = argparse.ArgumentParser(prog="qnwis.lab.container_setup", description="Make what the parts need")
    parser.add_argument("--network", type=IPv4Network, required=True, help="of the containers, a /24")
    parser.add_argument("--volumes", type=Path, required=True, help="folder with a volume for each part")
    options = parser.parse_args()
    setup = Setup(options.volumes, Block(number=0, network=options.network))
    if setup.made.exists():
        print("everything is made already")
        return
    setup.make()
    print(f"made: {CLUSTER_ID}, three nodes in {', '.join(REGIONS)}")


if __name__ == "__main__":
    main()
