"""Topology: what people write in `cluster.yaml`, and the rules it must obey.

Source: specification, "Cluster Topology Configuration". Fields beyond the specification are optional.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Self

from pydantic import Field, JsonValue, ValidationError, field_validator, model_validator

from .active_active_rules import active_active_rules
from .broken_rule import BrokenRule
from .heartbeat import HeartbeatConfig
from .heartbeat import NodeStatus as NodeStatus
from .http_application import HttpApplication, broken_http_rules
from .model import LONGEST_TTL_S, Identifier, Model
from .patroni_members import PatroniMember, broken_patroni_rules
from .record_addresses import broken_address_rules
from .weights import Share

DEFAULT_AGENT_PORT = 8443
MOST_NODES = 1000
"""Of a cluster, which has no more regions and vantages either. Rules and plans compare them with each other,
and a topology may come in a request."""
LONGEST_LIST = 500
"""Characters of what a broken rule lists as allowed."""


class NodeRole(StrEnum):
    PRIMARY = "primary"  # serves writes
    SECONDARY = "secondary"  # a standby, ready for failover
    WITNESS = "witness"  # counts for quorum, holds no data


class Deployment(StrEnum):
    ACTIVE_PASSIVE = "active_passive"
    ACTIVE_ACTIVE = "active_active"


class Manager(StrEnum):
    """Who keeps a single primary among the nodes."""

    AGENTS = "agents"  # the agents beside the databases, by their leases
    PATRONI = "patroni"  # Patroni, in each region by a DCS; it is driven, and never promoted behind
    HTTP = "http"  # nobody: an application that brings its own promote and demote, and gives no lease


class ReplicationMode(StrEnum):
    SYNCHRONOUS = "synchronous"
    ASYNCHRONOUS = "asynchronous"


class Replication(Model):
    """How the cluster replicates; it decides which standby is certain to have every acknowledged write."""

    mode: ReplicationMode = ReplicationMode.ASYNCHRONOUS
    required_acks: int = Field(default=1, ge=1)
    """Synchronous only: standbys that must confirm a commit (`ANY k`)."""


class Database(Model):
    """Where a node's PostgreSQL listens."""

    host: str
    port: int = Field(default=5432, ge=1, le=65535)


class Route53Record(Model):
    """An address record in Amazon Route 53: a simple one, or one of several weighted or geolocation ones."""

    hosted_zone_id: str = Field(min_length=1)
    set_identifier: str | None = None
    """Which of the records of this name is the cluster's; None for a simple record. Its weight or location
    stays as it is."""


class Provider(Model):
    """A provider that a package of somebody else brings into the worker's environment."""

    name: Identifier
    """Of its entry point."""
    options: Mapping[str, JsonValue] = {}
    """What it is told. They travel with the topology, into Temporal's history too: of a secret they name the
    file, and they are no better proven than the topology is."""


class DnsService(Model):
    """The name that clients use, and who holds it: authoritative servers (RFC 2136, TSIG), Route 53, or what
    somebody else's provider speaks to."""

    zone: str
    name: str
    """Relative to the zone, or absolute with a final dot."""
    ttl_s: int = Field(default=30, ge=0, le=LONGEST_TTL_S)
    servers: tuple[str, ...] = ()
    """`host:port` of every authoritative server; the first takes the updates, all are read back."""
    tsig_key_file: str | None = None
    """A BIND-style key file on the worker's machine."""
    route53: Route53Record | None = None
    provider: Provider | None = None
    srv: str | None = Field(default=None, pattern=r"^_[a-z0-9-]+\._(tcp|udp)$")
    """Active/active, with servers: `_postgresql._tcp`. Below the name there is a record of this service (SRV)
    with each region's weight, which leads to `<region>.<name>`, the address of that region's primary."""

    @property
    def fqdn(self) -> str:
        """The name, absolute, with its final dot."""
        if self.name.endswith("."):
            return self.name
        return f"{self.name}.{self.zone.removesuffix('.')}."

    @property
    def record_name(self) -> str:
        """Of the record that is read and changed, absolute."""
        return self.fqdn if self.srv is None else f"{self.srv}.{self.fqdn}"

    def of_region(self, region: str) -> Self:
        """With `srv`: the address record of one region's primary."""
        return self.model_copy(update={"name": f"{region}.{self.name}", "srv": None})

    @property
    def places(self) -> tuple[str, ...]:
        """Where the record is read back from."""
        if self.provider is not None:
            return (f"provider:{self.provider.name}",)
        return self.servers if self.route53 is None else (f"route53:{self.route53.hosted_zone_id}",)

    @model_validator(mode="after")
    def _is_held_somewhere(self) -> Self:
        if [bool(self.servers), self.route53 is not None, self.provider is not None].count(True) != 1:
            raise ValueError("expected one of servers, route53 and provider")
        if self.srv is not None and not self.servers:
            raise ValueError("expected srv with servers only; in Route 53 each region has a weighted record")
        return self

    @field_validator("servers")
    @classmethod
    def _names_places(cls, servers: tuple[str, ...]) -> tuple[str, ...]:
        for server in servers:
            if host_and_port(server) is None:
                raise ValueError(f"expected host:port, found {server!r}")
        return servers


def host_and_port(server: str) -> tuple[str, int] | None:
    """Of a DNS server: `host:port`, `host` (port 53), or `[v6]:port`; None for anything else."""
    found = re.fullmatch(r"\[([^\]]+)\](?::(\d+))?|([^:]+)(?::(\d+))?", server)
    return None if found is None else (found[1] or found[3], int(found[2] or found[4] or 53))


class FencingHook(Model):
    """A power switch (STONITH): POST to the URL, with `{node_id}` and `{state}` (`off` or `on`) filled in; or
    somebody else's provider."""

    url: str | None = None
    provider: Provider | None = None
    timeout_s: float = Field(default=10.0, gt=0, le=3600)
    """How long one answer may take. A failover waits so long for a hook that is silent, and then goes on
    where the old primary's lease has run out; an undo leaves it to people two minutes and one answer
    later."""

    def asked(self, node_id: str, state: str) -> str:
        """Who is asked to switch the node, as people read it."""
        if self.provider is not None:
            return f"provider:{self.provider.name}/{node_id}/{state}"
        assert self.url is not None, "one of them is there"
        return self.url.replace("{node_id}", node_id).replace("{state}", state)

    @model_validator(mode="after")
    def _is_one_switch(self) -> Self:
        if (self.url is None) == (self.provider is None):
            raise ValueError("expected either url or provider")
        return self

    @field_validator("url")
    @classmethod
    def _names_the_node(cls, url: str | None) -> str | None:
        if url is not None and ("{node_id}" not in url or "{state}" not in url):
            raise ValueError("expected a URL that contains {node_id} and {state}")
        return url


class RegionRecord(Model):
    """Active/active in Route 53: the record of the service's name that sends clients to a node's region."""

    set_identifier: str = Field(min_length=1)
    geo: str | None = Field(default=None, pattern=r"^(continent:[A-Z]{2}|country:([A-Z]{2}|\*))$")
    """Which clients it is for, where it is a geolocation record: `continent:EU`, `country:DE`, `country:*`.
    Without, it is a weighted one."""


class Node(Model):
    node_id: Identifier
    hostname: str
    """Where the node is, and its database if `database.host` is not set. Where one of them is what
    `dns.servers` or `dns.route53` leads clients to, it is an IPv4 address."""
    role: NodeRole
    region: str
    site: str
    status: NodeStatus = NodeStatus.UNKNOWN
    priority: int = 0
    capacity: float = Field(default=100.0, ge=0, le=1e12)
    """Active/active: of all traffic, the percent that the region can take. Else any measure of its size."""
    weight: int | None = Field(default=None, ge=0, le=100)
    """Of a primary of an active/active cluster: the percent of the traffic that its region takes."""
    record: RegionRecord | None = None
    endpoint: str | None = None
    """The agent's base URL; by default `http://<hostname>:8443`."""
    database: Database | None = None
    patroni: PatroniMember | None = None
    """With `manager: patroni` only: its REST API."""
    http: HttpApplication | None = None
    """With `manager: http` only: how its application is asked."""

    @property
    def agent_url(self) -> str:
        return self.endpoint or f"http://{self.hostname}:{DEFAULT_AGENT_PORT}"

    @property
    def has_agent(self) -> bool:
        return self.patroni is None and self.http is None

    @property
    def holds_data(self) -> bool:
        return self.role is not NodeRole.WITNESS


class Cluster(Model):
    cluster_id: Identifier
    name: str
    quorum_size: int | None = None
    """Votes needed; by default floor(N / 2) + 1. Never below the majority."""
    regions: tuple[str, ...] = Field(min_length=1, max_length=MOST_NODES)
    nodes: tuple[Node, ...] = Field(min_length=1, max_length=MOST_NODES)
    deployment: Deployment = Deployment.ACTIVE_PASSIVE
    manager: Manager = Manager.AGENTS
    replication: Replication = Replication()
    heartbeat: HeartbeatConfig = HeartbeatConfig()
    vantages: tuple[Identifier, ...] = Field(default=("default",), min_length=1, max_length=MOST_NODES)
    """Names of the places that probe this cluster; each is a worker's task queue."""
    vantage_regions: Mapping[Identifier, str] = Field(default={}, max_length=MOST_NODES)
    """In which of the regions a vantage stands; of one that is not listed nobody knows. The loss of a region
    is seen from outside it."""
    active_database: str | None = None
    """Active/active: the database that is written in all regions. A worker that brings a region back looks
    into it, with the account that every PostgreSQL client would take (PGUSER, PGPASSFILE, …)."""
    dns: DnsService | None = None
    fencing: FencingHook | None = None

    @property
    def quorum(self) -> int:
        """Votes needed, resolved. The DCS of Patroni has a quorum of its own: whoever answers tells of
        that. Of an application nobody votes: each node but the target is seen not to write, or fenced."""
        if self.manager is not Manager.AGENTS:
            return 1
        return self.quorum_size if self.quorum_size is not None else majority(len(self.nodes))

    @property
    def by_patroni(self) -> bool:
        return self.manager is Manager.PATRONI

    @property
    def by_http(self) -> bool:
        return self.manager is Manager.HTTP

    def in_region(self, region: str) -> tuple[Node, ...]:
        """The nodes there; of a cluster by Patroni, the members of one Patroni cluster."""
        return tuple(node for node in self.nodes if node.region == region)

    def without(self, node_ids: Collection[str]) -> Cluster:
        """The cluster as if these nodes had never been in it; its quorum is the majority of the rest."""
        if not node_ids:
            return self
        left = tuple(node for node in self.nodes if node.node_id not in node_ids)
        return self.model_copy(update={"nodes": left, "quorum_size": None})

    @property
    def is_active_active(self) -> bool:
        return self.deployment is Deployment.ACTIVE_ACTIVE

    @property
    def primaries(self) -> tuple[Node, ...]:
        """By the topology: one, or in an active/active cluster one of each region."""
        return tuple(node for node in self.nodes if node.role is NodeRole.PRIMARY)

    @property
    def shares(self) -> tuple[Share, ...]:
        """Of an active/active cluster: what each region takes when all are well, and what it can take."""
        return tuple(
            Share(region=node.region, weight=node.weight or 0, capacity=int(node.capacity))
            for node in self.primaries
        )

    @property
    def lease_groups(self) -> tuple[Cluster, ...]:
        """Those that have one primary each: the cluster itself, or the regions of an active/active one."""
        if not self.is_active_active:
            return (self,)
        return tuple(self.lease_group(node.region) for node in self.primaries)

    def lease_group(self, region: str) -> Cluster:
        """Of an active/active cluster: one region's nodes, which agree among themselves on their primary.
        It is a cluster like any other, `<cluster_id>-<region>`. Raises KeyError for another region."""
        nodes = tuple(
            node.model_copy(update={"weight": None}) for node in self.nodes if node.region == region
        )
        if not nodes:
            raise KeyError(region)
        return self.model_copy(
            update={
                "cluster_id": f"{self.cluster_id}-{region}",
                "name": f"{self.name}, {region}",
                "quorum_size": None,
                "regions": (region,),
                "nodes": nodes,
                "deployment": Deployment.ACTIVE_PASSIVE,
                "vantage_regions": {v: place for v, place in self.vantage_regions.items() if place == region},
                "dns": self._dns_of(region),
            }
        )

    def _dns_of(self, region: str) -> DnsService | None:
        """The region's own record; None where the name's one record holds the addresses of all regions."""
        if self.dns is not None and self.dns.srv is not None:
            return self.dns.of_region(region)
        record = next((node.record for node in self.primaries if node.region == region), None)
        if self.dns is None or self.dns.route53 is None or record is None:
            return None
        own = self.dns.route53.model_copy(update={"set_identifier": record.set_identifier})
        return self.dns.model_copy(update={"route53": own})

    def node(self, node_id: str) -> Node:
        """The node of that id. Raises KeyError for an id the cluster does not have."""
        for node in self.nodes:
            if node.node_id == node_id:
                return node
        raise KeyError(node_id)

    @model_validator(mode="after")
    def _coherent(self) -> Self:
        # Of the older rules only: a run or guardian in progress has its topology in its history, and a rule
        # that came later must not keep it from being replayed.
        _raise_broken(_incoherent(_plain(self)))
        return self


def registrable(cluster: Cluster) -> Cluster:
    """The same, if `load_cluster` would take a file that says so. Raises ValidationError."""
    _raise_broken(broken_rules(_plain(cluster)))
    return cluster


def _plain(cluster: Cluster) -> dict[str, object]:
    """Of the plain form: what the rules between fields are about."""
    return {
        "deployment": cluster.deployment,
        "quorum_size": cluster.quorum_size,
        "regions": cluster.regions,
        "manager": cluster.manager,
        "replication": cluster.replication.model_dump(mode="json"),
        "dns": None if cluster.dns is None else cluster.dns.model_dump(),
        "vantages": cluster.vantages,
        "vantage_regions": cluster.vantage_regions,
        "nodes": [node.model_dump(exclude_none=True) for node in cluster.nodes],
    }


def _raise_broken(broken: Sequence[BrokenRule]) -> None:
    if broken:
        # A ValidationError of our own, so that each error's `loc` leads to the field that broke the rule.
        raise ValidationError.from_exception_data(Cluster.__name__, [rule.error for rule in broken])


def broken_rules(topology: Mapping[str, object]) -> list[BrokenRule]:
    """The rules between fields that `topology` breaks.

    Takes the plain form of a cluster, malformed parts included, so that one reading of a file can report
    these next to the errors of single fields. A part that is malformed itself breaks no rule here.
    """
    return [*_incoherent(topology), *broken_address_rules(_fields(topology), topology.get("dns"))]


def _incoherent(topology: Mapping[str, object]) -> list[BrokenRule]:
    """Those without which there is no reading the topology, wherever it comes from."""
    regions = topology.get("regions")
    fields = _fields(topology)
    return [
        *_repeated_ids([node.get("node_id") for node in fields]),
        *_unlisted_regions(
            [node.get("region") for node in fields], regions if isinstance(regions, list | tuple) else None
        ),
        *_misplaced_vantages(
            topology.get("vantage_regions"),
            topology.get("vantages", ("default",)),
            regions if isinstance(regions, list | tuple) else None,
        ),
        *_unsafe_quorum(topology.get("quorum_size"), len(fields)),
        *_wrong_primaries(
            [node.get("role") for node in fields],
            topology.get("deployment", Deployment.ACTIVE_PASSIVE),
        ),
        *(BrokenRule(*broken) for broken in broken_patroni_rules(topology, fields)),
        *(BrokenRule(*broken) for broken in broken_http_rules(topology, fields)),
        *(
            active_active_rules(fields, topology.get("dns"))
            if topology.get("deployment") == Deployment.ACTIVE_ACTIVE
            else _services_of_one_primary(topology.get("dns"))
        ),
    ]


def _fields(topology: Mapping[str, object]) -> list[Mapping[str, object]]:
    """The nodes, in their order; of a malformed one nothing."""
    nodes = topology.get("nodes")
    nodes = nodes if isinstance(nodes, list | tuple) else []
    return [node if isinstance(node, Mapping) else {} for node in nodes]


def _services_of_one_primary(dns: object) -> Iterator[BrokenRule]:
    if isinstance(dns, Mapping) and (srv := dns.get("srv")) is not None:
        yield BrokenRule(
            "srv_without_active_active",
            ("dns", "srv"),
            srv,
            "none: where one primary serves, the name's address record leads to it",
        )


def _repeated_ids(node_ids: Sequence[object]) -> Iterator[BrokenRule]:
    first: dict[str, int] = {}
    for index, node_id in enumerate(node_ids):
        if isinstance(node_id, str) and first.setdefault(node_id, index) != index:
            yield BrokenRule(
                "node_id_repeated",
                ("nodes", index, "node_id"),
                node_id,
                f"an id of its own; nodes[{first[node_id]}] already has this one",
            )


def _unlisted_regions(
    node_regions: Sequence[object], regions: Sequence[object] | None
) -> Iterator[BrokenRule]:
    if regions is None:
        return
    expected = f"one of `regions`: {_listed(regions)}"
    for index, region in enumerate(node_regions):
        if isinstance(region, str) and region not in regions:
            yield BrokenRule("region_not_listed", ("nodes", index, "region"), region, expected)


def _misplaced_vantages(
    places: object, vantages: object, regions: Sequence[object] | None
) -> Iterator[BrokenRule]:
    """A vantage in a region of another spelling would pass for one outside it."""
    if not isinstance(places, Mapping) or not isinstance(vantages, list | tuple):
        return
    known, listed = f"one of `vantages`: {_listed(vantages)}", f"one of `regions`: {_listed(regions or ())}"
    for vantage, region in places.items():
        loc = ("vantage_regions", str(vantage))
        if vantage not in vantages:
            yield BrokenRule("vantage_not_listed", loc, vantage, known)
        elif regions is not None and isinstance(region, str) and region not in regions:
            yield BrokenRule("region_not_listed", loc, region, listed)


def _listed(names: Sequence[object]) -> str:
    """For people, and not so long that it fills the answer: each node that breaks the rule repeats it."""
    text = ", ".join(map(str, names))
    return text if len(text) <= LONGEST_LIST else f"{text[:LONGEST_LIST]} …"


def _unsafe_quorum(quorum_size: object, node_count: int) -> Iterator[BrokenRule]:
    need = majority(node_count)
    if isinstance(quorum_size, int) and node_count and not need <= quorum_size <= node_count:
        yield BrokenRule(
            "quorum_size_unsafe",
            ("quorum_size",),
            quorum_size,
            f"{need} to {node_count} for {node_count} nodes; below the majority there can be two primaries",
        )


def _wrong_primaries(roles: Sequence[object], deployment: object) -> Iterator[BrokenRule]:
    if not roles or any(role not in list(NodeRole) for role in roles):
        return
    primaries = [index for index, role in enumerate(roles) if role == NodeRole.PRIMARY]
    if not primaries:
        yield BrokenRule("primary_missing", ("nodes",), "no primary", "one of role primary; no node is")
    for index in primaries[1:] if deployment == Deployment.ACTIVE_PASSIVE else ():
        yield BrokenRule(
            "primary_repeated",
            ("nodes", index, "role"),
            "primary",
            f"exactly one primary in an active_passive cluster, and nodes[{primaries[0]}] is one already; "
            "deployment: active_active allows several",
        )


def service_address(node: Node) -> str:
    """Where clients reach the node's database."""
    return node.database.host if node.database is not None else node.hostname


def majority(n: int) -> int:
    """floor(N / 2) + 1."""
    return n // 2 + 1
