"""The regions of an active/active cluster as service records (SRV, RFC 2782): each with its weight.

A region without traffic has no record: to clients a weight of 0 is still a small one.
"""

from __future__ import annotations

from collections.abc import Collection

import dns.name

from qnwis.continuity.refusal import Refusal
from qnwis.continuity.topology import Cluster, DnsService
from qnwis.continuity.weights import Weights

from .errors import Refused

DEFAULT_PORT = 5432


def services(cluster: Cluster, service: DnsService, weights: Weights) -> tuple[str, ...]:
    """The records of the regions that take traffic: priority, weight, port and name."""
    return tuple(
        f"0 {weights[node.region]} {DEFAULT_PORT if node.database is None else node.database.port}"
        f" {service.of_region(node.region).fqdn}"
        for node in cluster.primaries
        if weights[node.region]
    )


def weights_of(cluster: Cluster, service: DnsService, records: Collection[str]) -> Weights:
    """The weights that these records give. Raises Refused for one that leads to none of the regions."""
    regions = {_name(service.of_region(node.region).fqdn): node.region for node in cluster.primaries}
    found = {node.region: 0 for node in cluster.primaries}
    for record in records:
        _, weight, _, target = record.split()
        region = regions.get(_name(target))
        if region is None or found[region]:
            expected = ", ".join(sorted(name.to_text() for name in regions))
            raise Refused(
                Refusal(
                    rule="dns_record_changed",
                    message=f"{service.record_name} holds {sorted(records)}; expected one record at most to"
                    f" each of {expected}",
                    values={"found": sorted(records), "expected": expected},
                    remedy="Find out who changed the records, or correct the topology.",
                )
            )
        found[region] = int(weight)
    return found


def _name(text: str) -> dns.name.Name:
    """Names differ in more than the case of letters, or are the same."""
    return dns.name.from_text(text)
