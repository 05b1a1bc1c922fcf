"""What must hold of the addresses that DNS is to lead to."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping, Sequence

from .broken_rule import BrokenRule

Fields = Mapping[str, object]


def broken_address_rules(nodes: Sequence[Fields], dns: object) -> Iterator[BrokenRule]:
    """The rules that are broken, given the plain form of nodes and DNS; malformed parts break none here.

    The record is an A record: a name or an IPv6 address is refused by whoever holds it, and that would be
    past the promotion. What somebody else's provider takes is its own matter.
    """
    if not isinstance(dns, Mapping) or not (dns.get("servers") or dns.get("route53")):
        return
    for index, node in enumerate(nodes):
        place, address = _service_address(node)
        if node.get("role") != "witness" and isinstance(address, str) and not _is_ipv4(address):
            yield BrokenRule(
                "address_is_not_ipv4",
                ("nodes", index, *place),
                address,
                "an IPv4 address like 10.0.1.10: with dns.servers or dns.route53 clients are led there by an"
                " A record, which holds no name and no IPv6 address",
            )


def _service_address(node: Fields) -> tuple[tuple[str, ...], object]:
    """In which field clients find the node's database, and what stands there; see
    `topology.service_address`."""
    database = node.get("database")
    if database is None:
        return ("hostname",), node.get("hostname")
    return ("database", "host"), database.get("host") if isinstance(database, Mapping) else None


def _is_ipv4(address: str) -> bool:
    try:
        ipaddress.IPv4Address(address)
    except ValueError:
        return False
    return True
