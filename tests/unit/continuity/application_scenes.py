"""A cluster of an application that brings its own promote and demote, and what it says of itself."""

from __future__ import annotations

from typing import Any

from qnwis.continuity.evidence import NodeState
from qnwis.continuity.topology import Cluster, Node, NodeRole
from tests.unit.continuity.scenes import cluster, node

HOOK = {"url": "http://power/{node_id}/{state}"}


def member(node_id: str, role: str = "secondary", *, position: bool = True, **fields: Any) -> Node:
    http: dict[str, Any] = {
        "state": {"url": "http://{hostname}:80/state", "writable": "/writable"},
        "demote": {"url": "http://{hostname}:80/demote"},
        "promote": {"url": "http://{hostname}:80/promote"},
    }
    if position:
        http["state"]["position"] = "/position"
    return node(node_id, role, "east", **{"hostname": f"host-{node_id}", "http": http, **fields})


def by_http(*names: str, position: bool = True, **fields: Any) -> Cluster:
    """Of t1, by the topology the primary, and t2; or of these names, the first the primary."""
    first, *rest = names or ("t1", "t2")
    nodes = (
        member(first, "primary", position=position),
        *(member(name, position=position) for name in rest),
    )
    return cluster(*nodes, **{"manager": "http", **fields})


def says(node_id: str, *, writable: bool, position: int | None = 7) -> NodeState:
    role = NodeRole.PRIMARY if writable else NodeRole.SECONDARY
    return NodeState(node_id=node_id, role=role, database_up=True, writable=writable, position=position)
