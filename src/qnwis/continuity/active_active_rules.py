"""What must hold between the fields of an active/active topology."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from .broken_rule import BrokenRule
from .weights import TOTAL

Fields = Mapping[str, object]


def active_active_rules(nodes: Sequence[Fields], dns: object) -> Iterator[BrokenRule]:
    """The rules that are broken, given the plain form of nodes and DNS; malformed parts break none here."""
    primaries = [(index, node) for index, node in enumerate(nodes) if node.get("role") == "primary"]
    yield from _one_primary_a_region(nodes, primaries)
    yield from _weights(primaries)
    yield from _records(primaries, dns)
    yield from _region_names(primaries, dns)


def _one_primary_a_region(
    nodes: Sequence[Fields], primaries: Sequence[tuple[int, Fields]]
) -> Iterator[BrokenRule]:
    """Each region is a lease group of its own, which has one primary."""
    first: dict[object, int] = {}
    for index, node in primaries:
        if first.setdefault(node.get("region"), index) != index:
            yield BrokenRule(
                "primary_repeated_in_region",
                ("nodes", index, "role"),
                "primary",
                f"one primary a region; nodes[{first[node.get('region')]}] of {node.get('region')} is one",
            )
    for index, node in enumerate(nodes):
        if primaries and node.get("region") not in first:
            yield BrokenRule(
                "region_without_primary",
                ("nodes", index, "region"),
                node.get("region"),
                "a region that has a primary: of an active/active cluster each region decides alone, so that"
                " a node elsewhere has no vote in any",
            )


def _weights(primaries: Sequence[tuple[int, Fields]]) -> Iterator[BrokenRule]:
    weights = [node.get("weight") for _, node in primaries]
    for index, node in primaries:
        if node.get("weight") is None:
            yield BrokenRule(
                "weight_missing",
                ("nodes", index, "weight"),
                None,
                "the percent of the traffic that the region takes; each primary of an active_active cluster"
                " has a weight",
            )
    known = [weight for weight in weights if isinstance(weight, int)]
    if len(known) == len(weights) and known and sum(known) != TOTAL:
        yield BrokenRule(
            "weights_do_not_sum",
            ("nodes", primaries[-1][0], "weight"),
            known[-1],
            f"weights that sum to {TOTAL} percent; {' + '.join(map(str, known))} = {sum(known)}",
        )
    for index, node in primaries:
        weight, capacity = node.get("weight"), node.get("capacity", 100.0)
        if isinstance(weight, int) and isinstance(capacity, int | float) and weight > capacity:
            yield BrokenRule(
                "weight_above_capacity",
                ("nodes", index, "weight"),
                weight,
                f"at most the region's capacity, {capacity:g} percent of the traffic",
            )


def _records(primaries: Sequence[tuple[int, Fields]], dns: object) -> Iterator[BrokenRule]:
    """In Route 53 each region has a record of its own; where servers hold the name, one record is for all."""
    if not isinstance(dns, Mapping):
        return
    if dns.get("provider") is not None:
        yield BrokenRule(
            "provider_of_one_address",
            ("dns", "provider"),
            "a provider",
            "servers or route53: a provider moves one address, and here each region has its own",
        )
    in_route53 = dns.get("route53") is not None
    records = [(index, node.get("record")) for index, node in primaries]
    identifiers: dict[object, int] = {}
    for index, record in records:
        loc = ("nodes", index, "record")
        if (record is not None) is not in_route53:
            yield BrokenRule(
                "record_missing" if in_route53 else "record_without_route53",
                loc,
                None if record is None else "a record",
                "the set_identifier of the region's own record in Route 53"
                if in_route53
                else "none: without Route 53 the name has one record, with the addresses of all regions",
            )
        if (
            isinstance(record, Mapping)
            and identifiers.setdefault(record.get("set_identifier"), index) != index
        ):
            yield BrokenRule(
                "record_repeated", (*loc, "set_identifier"), record.get("set_identifier"), "one of its own"
            )
    kinds = {record.get("geo") is not None for _, record in records if isinstance(record, Mapping)}
    if len(kinds) > 1:
        index = next(i for i, r in records if isinstance(r, Mapping) and r.get("geo") is None)
        yield BrokenRule(
            "records_of_two_kinds",
            ("nodes", index, "record", "geo"),
            None,
            "a geo rule in every region's record, or in none: Route 53 has one kind for a name",
        )


def _region_names(primaries: Sequence[tuple[int, Fields]], dns: object) -> Iterator[BrokenRule]:
    """With service records each region is a part of a DNS name."""
    if not isinstance(dns, Mapping) or dns.get("srv") is None:
        return
    for index, node in primaries:
        region = node.get("region")
        if isinstance(region, str) and not re.fullmatch(
            r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?", region
        ):
            yield BrokenRule(
                "region_is_no_label",
                ("nodes", index, "region"),
                region,
                "letters, digits and hyphens: with dns.srv the region's primary is at <region>.<name>",
            )
