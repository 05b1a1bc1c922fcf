"""What the other agents say."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import httpx
from pydantic import ValidationError

from qnwis.continuity.evidence import NodeState
from qnwis.transport import Transport

from .config import Peer

ANSWER_WITHIN_S = 1.5
"""Longer than a peer needs to find that its own database is frozen."""


async def ask_peers(transport: Transport, peers: tuple[Peer, ...]) -> Mapping[str, NodeState | None]:
    """The state of every peer, asked at the same time; None of one that did not answer."""
    async with transport.client(timeout_s=ANSWER_WITHIN_S) as client:
        states = await asyncio.gather(*(_ask(client, peer) for peer in peers))
    return {peer.node_id: state for peer, state in zip(peers, states, strict=True)}


async def _ask(client: httpx.AsyncClient, peer: Peer) -> NodeState | None:
    try:
        async with asyncio.timeout(ANSWER_WITHIN_S):
            response = await client.get(f"{peer.agent_url}/state")
        state = NodeState.model_validate_json(response.raise_for_status().content)
    except (httpx.HTTPError, ValidationError, TimeoutError):
        return None
    return state if state.node_id == peer.node_id else None
