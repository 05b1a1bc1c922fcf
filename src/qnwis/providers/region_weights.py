"""The weights by which DNS sends clients to the regions of an active/active cluster: read, and shifted by
compare-and-swap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from qnwis.continuity.model import Model
from qnwis.continuity.refusal import Refusal
from qnwis.continuity.shifting import Steering, spread, steering_of
from qnwis.continuity.topology import Cluster, DnsService, Node, RegionRecord, service_address
from qnwis.continuity.weights import Weights

from .dns import Rfc2136Dns
from .errors import Refused
from .region_services import services, weights_of
from .route53 import RecordSet, Route53Dns

Pair = tuple[RecordSet, RecordSet]


class WeightsChange(Model):
    """What a shift found and left behind."""

    changed: bool
    """False where the weights were in force already."""
    detail: str


class RegionWeights(Protocol):
    """Reads and shifts weights. Raises Unreachable or Refused."""

    async def in_force(self, cluster: Cluster) -> Weights:
        """The percent of the traffic that each region takes by DNS. Where DNS knows no weights, what the
        topology gives to the regions whose address is there."""
        ...

    async def shift(self, cluster: Cluster, *, before: Weights, after: Weights) -> WeightsChange:
        """Have these weights in force, if and only if the former are; in force already changes nothing.
        Returns when whoever holds the record answers them everywhere."""
        ...


@dataclass(frozen=True)
class DnsWeights:
    """RegionWeights by whoever holds the record."""

    servers: Rfc2136Dns = field(default_factory=Rfc2136Dns)
    route53: Route53Dns = field(default_factory=Route53Dns)

    async def in_force(self, cluster: Cluster) -> Weights:
        service = _service(cluster)
        if service.srv is not None:
            return weights_of(cluster, service, await self._answered(service))
        match steering_of(cluster):
            case Steering.PRESENCE:
                return await self._by_presence(cluster, service)
            case Steering.WEIGHTED:
                found = await self._records(cluster, service)
                return {node.region: int(one["Weight"]) for node, one in found}
            case Steering.GEOLOCATION:
                found = await self._records(cluster, service)
                away = {node.region for node, one in found if _addresses(one) != {service_address(node)}}
                return _spread(cluster, away)

    async def shift(self, cluster: Cluster, *, before: Weights, after: Weights) -> WeightsChange:
        service, steering = _service(cluster), steering_of(cluster)
        told = ", ".join(f"{region} {before[region]} → {after[region]}" for region in sorted(after))
        if service.srv is not None:
            change = await self.servers.swap_all(
                service, services(cluster, service, before), services(cluster, service, after)
            )
            return WeightsChange(changed=change.changed, detail=told)
        if steering is Steering.PRESENCE:
            change = await self.servers.swap_all(
                service, _taking(cluster, before), _taking(cluster, after), ttl_s=service.ttl_s
            )
            return WeightsChange(changed=change.changed, detail=told)
        found = await self._records(cluster, service)
        wanted = [(one, _with(cluster, node, one, after)) for node, one in found]
        if all(one == other for one, other in wanted):
            await self.route53.confirm(service, [one for one, _ in wanted])
            return WeightsChange(changed=False, detail=told)
        expected = [(one, _with(cluster, node, one, before)) for node, one in found]
        if any(one != other for one, other in expected):
            raise Refused(_changed(cluster, service, found, before, after))
        await self.route53.replace(service, [pair for pair in wanted if pair[0] != pair[1]])
        return WeightsChange(changed=True, detail=told)

    async def _answered(self, service: DnsService) -> tuple[str, ...]:
        """What all of the servers answer."""
        answers = await self.servers.read(service)
        if len(set(answers.values())) != 1:
            raise Refused(
                Refusal(
                    rule="dns_servers_disagree",
                    message=f"The servers of {service.record_name} answer {answers}",
                    values={server: list(found) for server, found in answers.items()},
                    remedy="Check the zone transfer between them.",
                )
            )
        return next(iter(answers.values()))

    async def _by_presence(self, cluster: Cluster, service: DnsService) -> Weights:
        present = set(await self._answered(service))
        own = {service_address(node): node.region for node in cluster.primaries}
        if not present or present - own.keys():
            raise Refused(
                Refusal(
                    rule="dns_record_changed",
                    message=f"{service.fqdn} holds {sorted(present)}; expected some of {sorted(own)}",
                    values={"found": sorted(present), "expected": sorted(own)},
                    remedy="Find out who changed the record, or correct the topology.",
                )
            )
        return _spread(cluster, {region for address, region in own.items() if address not in present})

    async def _records(self, cluster: Cluster, service: DnsService) -> list[tuple[Node, RecordSet]]:
        """Each region's record, of the kind that the topology says."""
        sets = {one.get("SetIdentifier"): one for one in await self.route53.sets(service)}
        found: list[tuple[Node, RecordSet]] = []
        for node in cluster.primaries:
            record = _record(node)
            one = sets.get(record.set_identifier)
            if one is None or not _is_of_its_kind(record, one):
                raise Refused(_unfit(service, node, record, one))
            found.append((node, one))
        return found


def _with(cluster: Cluster, node: Node, one: RecordSet, weights: Weights) -> RecordSet:
    """The region's record under these weights."""
    if _record(node).geo is None:
        return {**one, "Weight": weights[node.region]}
    # Its clients stay its clients; whom they are sent to changes.
    home = (service_address(node),) if weights[node.region] else _taking(cluster, weights)
    if _addresses(one) == set(home):
        return one
    return {**one, "ResourceRecords": [{"Value": address} for address in home]}


def _taking(cluster: Cluster, weights: Weights) -> tuple[str, ...]:
    """The addresses of the regions that take traffic."""
    return tuple(service_address(node) for node in cluster.primaries if weights[node.region])


def _spread(cluster: Cluster, away: set[str]) -> Weights:
    weights = spread(cluster.shares, away)
    if isinstance(weights, Refusal):
        raise Refused(weights)
    return weights


def _service(cluster: Cluster) -> DnsService:
    if cluster.dns is None:
        raise Refused(
            Refusal(
                rule="no_dns_service",
                message=f"{cluster.cluster_id} has no DNS service, which its weights are in",
                values={"cluster_id": cluster.cluster_id},
                remedy="Add `dns` to its topology.",
            )
        )
    return cluster.dns


def _record(node: Node) -> RegionRecord:
    assert node.record is not None, "the topology demands it where Route 53 holds the name"
    return node.record


def _addresses(one: RecordSet) -> set[str]:
    return {each["Value"] for each in one.get("ResourceRecords", ())}


def _is_of_its_kind(record: RegionRecord, one: RecordSet) -> bool:
    if record.geo is None:
        return "Weight" in one
    kind, _, code = record.geo.partition(":")
    return bool(one.get("GeoLocation") == {f"{kind.capitalize()}Code": code})


def _unfit(service: DnsService, node: Node, record: RegionRecord, one: RecordSet | None) -> Refusal:
    has = "none of that identifier" if one is None else f"one with {sorted(one.keys() - {'ResourceRecords'})}"
    return Refusal(
        rule="dns_record_unfit",
        message=f"{service.fqdn} has {has}; expected record {record.set_identifier} of {node.region},"
        f" {'weighted' if record.geo is None else record.geo}",
        values={"region": node.region, **record.model_dump(mode="json")},
        remedy="Make the record in Route 53, or correct the topology.",
    )


def _changed(
    cluster: Cluster,
    service: DnsService,
    found: Sequence[tuple[Node, RecordSet]],
    before: Weights,
    after: Weights,
) -> Refusal:
    has = {node.region: one.get("Weight", sorted(_addresses(one))) for node, one in found}
    return Refusal(
        rule="dns_record_changed",
        message=f"{service.fqdn} of {cluster.cluster_id} has {has}; expected {dict(before)} (to shift them)"
        f" or {dict(after)} (shifted already)",
        values={"found": has, "expected": dict(before), "wanted": dict(after)},
        remedy="Find out who changed the records, then plan again.",
    )
