"""Bringing a node back as a standby, outside of any run's plan: what a drill leaves behind."""

from __future__ import annotations

import asyncio

from temporalio import activity
from temporalio.exceptions import ApplicationError

from qnwis.config.problem import ConfigError
from qnwis.config.registry import Registry
from qnwis.continuity.evidence import ClusterEvidence
from qnwis.continuity.executor import Outcome, OutcomeStatus
from qnwis.continuity.http_service import http_agents_only_refusal
from qnwis.continuity.model import Model
from qnwis.continuity.refusal import Refusal
from qnwis.continuity.rejoining import no_such_node, rejoin_order
from qnwis.providers.errors import Refused, Unreachable
from qnwis.providers.evidence import collect_evidence
from qnwis.providers.fencing import Hook
from qnwis.providers.nodes import Nodes

from .effect import carried_out

REJOIN_WITHIN_S = 3600.0
"""A node that cannot be rewound takes a fresh copy of the whole database."""
STATE_WITHIN_S = 5.0


def _brought_back_by_patroni(evidence: ClusterEvidence, node_id: str) -> Outcome:
    """Patroni brings its members back by itself. Raises Unreachable until it has."""
    state = evidence.of(node_id).state
    if state is None or not state.in_recovery or not state.streaming:
        raise Unreachable(f"Patroni has not brought {node_id} back yet")
    return Outcome(
        action_id=f"rejoin-{node_id}",
        status=OutcomeStatus.SUCCEEDED,
        changed=False,
        detail=f"{node_id} follows {state.upstream}; Patroni brought it back",
    )


class BringBack(Model):
    cluster_id: str
    node_id: str
    by: str
    """Names this request: the same for every attempt of it, another for each new one."""
    above_promises: bool = True
    """Whether a node that promised an epoch above the primary's is ordered too."""


class Rejoining:
    def __init__(self, registry: Registry, nodes: Nodes, hook: Hook) -> None:
        self._registry = registry
        self._nodes = nodes
        self._hook = hook

    @activity.defn
    async def bring_back(self, asked: BringBack) -> Outcome:
        """Have the node follow whoever is the primary now, and see that it streams; a node that does already
        is left as it is. One that does not answer gets its power back first, where a fencing hook may have
        taken it: a lease that it had has another holder since, so it serves nothing by itself."""
        try:
            cluster = (await asyncio.to_thread(self._registry.load, asked.cluster_id)).cluster
        except ConfigError as error:
            raise ApplicationError(str(error), type="cluster_not_loaded", non_retryable=True) from error

        async def rejoined() -> Outcome:
            if (refusal := http_agents_only_refusal(cluster, "rejoin")) is not None:
                raise Refused(refusal)
            if (refusal := no_such_node(cluster, asked.node_id)) is not None:
                raise Refused(refusal)
            evidence = await collect_evidence(self._nodes, cluster)
            if cluster.by_patroni:
                return _brought_back_by_patroni(evidence, asked.node_id)
            order = rejoin_order(
                cluster, evidence, asked.node_id, by=asked.by, above_promises=asked.above_promises
            )
            if isinstance(order, Refusal):
                raise Refused(order)
            node = cluster.node(asked.node_id)
            if cluster.fencing is not None and evidence.of(asked.node_id).state is None:
                await self._hook.switch(cluster.fencing, asked.node_id, "on", f"{asked.by}/on")
            receipt = await self._nodes.order(node, order, timeout_s=REJOIN_WITHIN_S)
            state = await self._nodes.state(node, timeout_s=STATE_WITHIN_S)
            if state.upstream != order.upstream or not state.streaming:
                # It may have much log to replay. Asked again, the agent does nothing anew.
                raise Unreachable(f"{asked.node_id} does not stream from {order.upstream}: {receipt.detail}")
            return Outcome(
                action_id=f"rejoin-{asked.node_id}",
                status=OutcomeStatus.SUCCEEDED,
                changed=receipt.changed,
                detail=receipt.detail,
            )

        return await carried_out(f"rejoin-{asked.node_id}", rejoined)
