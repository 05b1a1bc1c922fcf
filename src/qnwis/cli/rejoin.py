"""`rejoin`: bring a node back as a standby of the present primary."""

from __future__ import annotations

import asyncio
import os
import uuid
from pathlib import Path
from typing import Annotated

import typer

from qnwis.config.load import load_cluster
from qnwis.continuity.orders import Receipt
from qnwis.continuity.refusal import Refusal
from qnwis.continuity.rejoining import rejoin_order
from qnwis.continuity.topology import Cluster
from qnwis.providers.evidence import collect_evidence
from qnwis.providers.nodes import HttpNodes
from qnwis.transport import Transport, transport_beside

from .output import AsJson, Exit, clear_errors, fail, out, print_json, refuse_without_agents

REJOIN_TIMEOUT_S = 3600.0
"""A node that cannot be rewound takes a fresh copy of the whole database."""


def rejoin(
    node_id: Annotated[str, typer.Argument(help="The node that comes back.")],
    cluster: Annotated[Path, typer.Option(help="Topology, cluster.yaml.")],
    as_json: AsJson = False,
) -> None:
    """Rewind a node to the present primary's history and let it follow. First it exports what only it has."""
    with clear_errors(as_json=as_json):
        topology = load_cluster(cluster)
        if node_id not in {node.node_id for node in topology.nodes}:
            fail(Exit.USAGE, f"{cluster}: no node {node_id!r} in {topology.cluster_id}")
        refuse_without_agents(topology, "rejoin", as_json=as_json)
        receipt = asyncio.run(_rejoin(topology, transport_beside(cluster, os.environ), node_id))
    if as_json:
        print_json(receipt)
    else:
        out.print(receipt.detail, markup=False)


async def _rejoin(cluster: Cluster, transport: Transport, node_id: str) -> Receipt:
    async with HttpNodes(transport) as nodes:
        evidence = await collect_evidence(nodes, cluster)
        order = rejoin_order(cluster, evidence, node_id, by=f"cli-{uuid.uuid4().hex[:12]}")
        if isinstance(order, Refusal):
            fail(Exit.REFUSED, str(order))
        return await nodes.order(cluster.node(node_id), order, timeout_s=REJOIN_TIMEOUT_S)
