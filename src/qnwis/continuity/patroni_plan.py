"""The actions by which a cluster that Patroni manages is moved: within a region, or to the other one.

Within a region one action has Patroni do it. Between regions the old one is made read-only or fenced before
the new one is promoted, so that never two of them accept writes."""

from __future__ import annotations

from collections.abc import Iterator

from .patroni_actions import (
    PatroniDemoteCluster,
    PatroniFailover,
    PatroniFenceCluster,
    PatroniPromoteCluster,
    PatroniSwitchover,
)
from .plan import Action, FlipDns, LowerTtl, RestoreTtl, VerifyService
from .policy import Policy
from .topology import Cluster, Node, service_address


def failover_actions(
    cluster: Cluster, policy: Policy, primary: Node, target: Node, *, attested_by: str | None = None
) -> Iterator[Action]:
    """Without the old primary's help. `attested_by`: who states that its whole region is off."""
    estimates = policy.estimates_ms
    if primary.region == target.region:
        yield PatroniFailover(
            action_id=f"1-failover-{target.node_id}",
            leader=primary.node_id,
            node_id=target.node_id,
            estimate_ms=estimates.fence_primary + estimates.promote_target,
        )
    else:
        members = _ids(cluster, primary.region)
        yield PatroniFenceCluster(
            action_id=f"1-fence-{primary.region}",
            node_id=primary.node_id,
            node_ids=members,
            attested_by=attested_by,
            estimate_ms=estimates.fence_primary,
        )
        yield PatroniPromoteCluster(
            action_id=f"2-promote-{target.region}",
            node_id=target.node_id,
            left=members,
            estimate_ms=estimates.promote_target,
        )
    ordinary_s = 0 if cluster.dns is None else cluster.dns.ttl_s
    yield _flip(cluster, policy, primary, target, "4-flip-dns", ordinary_s)
    yield VerifyService(
        action_id="5-verify-service", node_id=target.node_id, estimate_ms=estimates.verify_service
    )


def switchover_actions(cluster: Cluster, policy: Policy, primary: Node, target: Node) -> Iterator[Action]:
    """From a primary that is well. Nothing that was acknowledged is lost."""
    estimates, dns = policy.estimates_ms, cluster.dns
    ordinary_s = 0 if dns is None else dns.ttl_s
    low_s = min(policy.switchover.ttl_s, ordinary_s)
    lowered = low_s < ordinary_s and _moves(primary, target)
    if dns is not None and lowered:
        yield LowerTtl(
            action_id="1-lower-ttl",
            record=dns.fqdn,
            from_ttl_s=dns.ttl_s,
            to_ttl_s=low_s,
            estimate_ms=estimates.flip_dns + dns.ttl_s * 1000,
        )
    if primary.region == target.region:
        yield PatroniSwitchover(
            action_id=f"2-switchover-{target.node_id}",
            leader=primary.node_id,
            node_id=target.node_id,
            estimate_ms=estimates.release_primary + estimates.promote_target,
        )
    else:
        members = _ids(cluster, primary.region)
        assert target.database is not None, "the topology demands it of members"
        yield PatroniDemoteCluster(
            action_id=f"2-demote-{primary.region}",
            node_id=primary.node_id,
            node_ids=members,
            target=target.node_id,
            upstream_host=target.database.host,
            upstream_port=target.database.port,
            estimate_ms=estimates.prepare_nodes + estimates.release_primary,
        )
        yield PatroniPromoteCluster(
            action_id=f"3-promote-{target.region}",
            node_id=target.node_id,
            left=members,
            estimate_ms=estimates.promote_target,
        )
    yield _flip(cluster, policy, primary, target, "5-flip-dns", low_s if lowered else ordinary_s)
    if dns is not None and lowered:
        yield RestoreTtl(
            action_id="8-restore-ttl", record=dns.fqdn, to_ttl_s=dns.ttl_s, estimate_ms=estimates.flip_dns
        )
    yield VerifyService(
        action_id="9-verify-service", node_id=target.node_id, estimate_ms=estimates.verify_service
    )


def _flip(
    cluster: Cluster, policy: Policy, primary: Node, target: Node, action_id: str, ttl_s: int
) -> FlipDns:
    """`ttl_s`: of the record while it moves."""
    moves = cluster.dns is not None and _moves(primary, target)
    return FlipDns(
        action_id=action_id,
        record=None if cluster.dns is None else cluster.dns.fqdn,
        from_address=service_address(primary),
        to_address=service_address(target),
        ttl_s=ttl_s,
        estimate_ms=policy.estimates_ms.flip_dns + ttl_s * 1000 if moves else 0,
    )


def _moves(primary: Node, target: Node) -> bool:
    """Within a region the name leads to the same address before and after."""
    return service_address(primary) != service_address(target)


def _ids(cluster: Cluster, region: str) -> tuple[str, ...]:
    return tuple(node.node_id for node in cluster.in_region(region))
