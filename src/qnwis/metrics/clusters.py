"""The registered clusters, by the ids under which their failovers are locked and recorded."""

from __future__ import annotations

import logging

from qnwis.config.problem import ConfigError
from qnwis.config.registry import Registry
from qnwis.continuity.policy import Policy
from qnwis.continuity.topology import Cluster

log = logging.getLogger(__name__)


def lease_groups(registry: Registry) -> dict[str, tuple[Cluster, Policy]]:
    """Each cluster with its policy; of an active/active one, each region's lease group under its id. A file
    that cannot be read leaves its cluster out, with a warning: a scrape answers what it can."""
    found: dict[str, tuple[Cluster, Policy]] = {}
    try:
        cluster_ids = registry.cluster_ids()
    except ConfigError as error:
        log.warning("metrics know no cluster: %s", error)
        return found
    for cluster_id in cluster_ids:
        try:
            registered = registry.load(cluster_id)
        except ConfigError as error:
            log.warning("metrics do not know %s: %s", cluster_id, error)
            continue
        groups = registered.cluster.lease_groups
        found |= {group.cluster_id: (group, registered.policy) for group in groups}
    return found
