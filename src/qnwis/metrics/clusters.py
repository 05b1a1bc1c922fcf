"""The registered clusters, by the ids under which their failovers are locked and recorded."""

from __future__ import annotations

import logging

from qnwis.config.problem import ConfigError
from qnwis.config.registry import Registry
from qnwis.continuity.policy import Policy

log = logging.getLogger(__name__)


def policies(registry: Registry) -> dict[str, Policy]:
    """Of each cluster; of an active/active one, under the id of each region's lease group. A file that cannot
    be read leaves its cluster out, with a warning: a scrape answers what it can."""
    found: dict[str, Policy] = {}
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
        found |= {group.cluster_id: registered.policy for group in registered.cluster.lease_groups}
    return found
