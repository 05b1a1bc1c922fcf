"""What holds for clusters whose nodes have no agents, whoever manages those."""

from __future__ import annotations

from .http_service import http_agents_only_refusal, http_automatic_refusal
from .patroni import patroni_agents_only_refusal, patroni_automatic_refusal
from .refusal import Refusal
from .topology import Cluster


def automatic_refusal(cluster: Cluster) -> Refusal | None:
    """Why nothing fails over by itself here."""
    return patroni_automatic_refusal(cluster) or http_automatic_refusal(cluster)


def agents_only_refusal(cluster: Cluster, what: str) -> Refusal | None:
    """Why `what` is not for this cluster: it speaks to agents, or models them."""
    return patroni_agents_only_refusal(cluster, what) or http_agents_only_refusal(cluster, what)
