"""The actions of a plan for an application that brings its own promote and demote, in their order: the old
node is seen not to write, or fenced, before the new one is promoted."""

from __future__ import annotations

from collections.abc import Iterator

from .http_actions import HttpDemote, HttpFence, HttpPromote
from .plan import Action, FlipDns, LowerTtl, RestoreTtl, VerifyService
from .policy import Policy
from .topology import Cluster, Node, service_address


def http_failover_actions(
    cluster: Cluster, policy: Policy, primary: Node, target: Node, *, attested_by: str | None = None
) -> Iterator[Action]:
    """`attested_by`: who states that the primary is off. The power switch is surer than the word of an
    application that has failed, so where there is one it is asked."""
    estimates = policy.estimates_ms
    if attested_by is not None or cluster.fencing is not None:
        yield HttpFence(
            action_id=f"1-fence-{primary.node_id}",
            node_id=primary.node_id,
            attested_by=attested_by,
            estimate_ms=estimates.fence_primary,
        )
    else:
        yield _demote("1", policy, primary, target)
    yield _promote("2", policy, primary, target)
    yield _flip("4", cluster, policy, primary, target, 0 if cluster.dns is None else cluster.dns.ttl_s)
    yield _verify("5", policy, target)


def http_switchover_actions(
    cluster: Cluster, policy: Policy, primary: Node, target: Node
) -> Iterator[Action]:
    """From a primary that is well."""
    estimates, dns = policy.estimates_ms, cluster.dns
    ordinary_s = 0 if dns is None else dns.ttl_s
    low_s = min(policy.switchover.ttl_s, ordinary_s)
    if dns is not None and low_s < ordinary_s:
        yield LowerTtl(
            action_id="1-lower-ttl",
            record=dns.fqdn,
            from_ttl_s=dns.ttl_s,
            to_ttl_s=low_s,
            estimate_ms=estimates.flip_dns + dns.ttl_s * 1000,
        )
    yield _demote("2", policy, primary, target)
    yield _promote("3", policy, primary, target)
    yield _flip("5", cluster, policy, primary, target, low_s)
    if dns is not None and low_s < ordinary_s:
        yield RestoreTtl(
            action_id="8-restore-ttl", record=dns.fqdn, to_ttl_s=dns.ttl_s, estimate_ms=estimates.flip_dns
        )
    yield _verify("9", policy, target)


def _demote(place: str, policy: Policy, primary: Node, target: Node) -> HttpDemote:
    return HttpDemote(
        action_id=f"{place}-demote-{primary.node_id}",
        node_id=primary.node_id,
        target=target.node_id,
        estimate_ms=policy.estimates_ms.release_primary,
    )


def _promote(place: str, policy: Policy, primary: Node, target: Node) -> HttpPromote:
    return HttpPromote(
        action_id=f"{place}-promote-{target.node_id}",
        node_id=target.node_id,
        left=primary.node_id,
        estimate_ms=policy.estimates_ms.promote_target,
    )


def _flip(place: str, cluster: Cluster, policy: Policy, primary: Node, target: Node, ttl_s: int) -> FlipDns:
    return FlipDns(
        action_id=f"{place}-flip-dns",
        record=None if cluster.dns is None else cluster.dns.fqdn,
        from_address=service_address(primary),
        to_address=service_address(target),
        ttl_s=ttl_s,
        estimate_ms=0 if cluster.dns is None else policy.estimates_ms.flip_dns + ttl_s * 1000,
    )


def _verify(place: str, policy: Policy, target: Node) -> VerifyService:
    return VerifyService(
        action_id=f"{place}-verify-service",
        node_id=target.node_id,
        estimate_ms=policy.estimates_ms.verify_service,
    )
