"""Speaking to peers' agents: one question to some of them at once, each answer a model or a refusal."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TypeVar

import httpx
from pydantic import ValidationError

from qnwis.continuity.membership import Peer
from qnwis.continuity.model import Model
from qnwis.continuity.refusal import Refusal
from qnwis.requests_at_large import RequestsAtLarge
from qnwis.transport import Transport

ANSWER_WITHIN_S = 1.0
"""A peer that takes longer is asked again anyway."""

CONNECTIONS = 4
"""To one peer at once: a lease that is sought is asked for many times a second."""

M = TypeVar("M", bound=Model)


class Speaker:
    """The agent's client of its peers' agents."""

    def __init__(self, transport: Transport) -> None:
        self._client = transport.agents(timeout_s=ANSWER_WITHIN_S, connections=CONNECTIONS)
        self._requests = RequestsAtLarge()

    async def aclose(self) -> None:
        self._requests.cancel()
        await self._client.aclose()

    async def tell_all(
        self, peers: Iterable[Peer], path: str, body: Model, kind: type[M]
    ) -> list[M | Refusal]:
        """What those say that answered."""
        answers = await asyncio.gather(*(self.tell(peer, path, body, kind) for peer in peers))
        return [answer for answer in answers if answer is not None]

    async def tell(self, peer: Peer, path: str, body: Model, kind: type[M]) -> M | Refusal | None:
        """POST to one peer; None where no answer came that can be read."""
        # A peer of an earlier version refuses fields it does not know, those that say nothing too.
        return await self._answer(peer, "POST", path, kind, body.model_dump_json(exclude_none=True))

    async def ask(self, peer: Peer, path: str, kind: type[M]) -> M | Refusal | None:
        """GET from one peer; None where no answer came that can be read."""
        return await self._answer(peer, "GET", path, kind, None)

    async def _answer(
        self, peer: Peer, method: str, path: str, kind: type[M], content: str | None
    ) -> M | Refusal | None:
        request = self._client.request(
            method,
            f"{peer.agent_url}/{path}",
            content=content,
            headers={"content-type": "application/json"},
        )
        try:
            response = await self._requests.within(ANSWER_WITHIN_S, request)
            if response.status_code == httpx.codes.CONFLICT:
                return Refusal.model_validate_json(response.content)
            return kind.model_validate_json(response.raise_for_status().content)
        except (httpx.HTTPError, ValidationError, TimeoutError):
            return None
