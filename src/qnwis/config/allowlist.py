"""Loads `allowlist.yaml`, and compares it with a topology."""

from __future__ import annotations

from pathlib import Path

from qnwis.continuity.allowlist import Allowlist
from qnwis.continuity.topology import Cluster

from .load import validated
from .problem import Problem
from .yaml_source import read_yaml


def load_allowlist(path: Path) -> Allowlist:
    """Raises ConfigError."""
    return validated(Allowlist, read_yaml(path))


def unlisted(cluster: Cluster, allowlist: Allowlist, file: Path) -> list[Problem]:
    """Where an agent of the topology is not listed as it stands there: nobody would speak to it. Nodes under
    Patroni, and those of an application, have no agent."""
    problems = []
    for index, node in enumerate(cluster.nodes):
        if not node.has_agent:
            continue
        entry = allowlist.node_at(node.agent_url)
        expected = f"an endpoint that {file} lists, for {node.node_id} in {node.region}"
        if entry is None or (entry.node_id, entry.region) != (node.node_id, node.region):
            found = "nobody" if entry is None else f"{entry.node_id} in {entry.region}"
            problems.append(
                Problem(file, None, None, f"nodes[{index}].endpoint", f"{node.agent_url} ({found})", expected)
            )
    return problems
