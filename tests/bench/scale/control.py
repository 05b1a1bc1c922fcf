"""What the bench tells the agents' server, over HTTP as well."""

from __future__ import annotations

from enum import StrEnum

import httpx

from qnwis.continuity.model import Model

from .counting import Counts
from .world import AGENT_PORT

CONTROL = "127.0.0.1"
"""The address at which the server itself is asked, and no agent."""
FAIL, HEAL, MARK, COUNTS = "/control/fail", "/control/heal", "/control/mark", "/control/counts"


class How(StrEnum):
    """In what way nodes fail."""

    KILLED = "killed"  # connections are reset, and so is each new one
    SILENT = "silent"  # nothing comes back, and no new connection is made


class Which(Model):
    nodes: tuple[tuple[int, int], ...]
    """Cluster's number and node's index."""
    how: How = How.KILLED


class Done(Model):
    at: float
    """Seconds since the epoch: from then on they do not answer, or do."""


class Control:
    """The server, as the bench speaks to it."""

    def __init__(self, port: int = AGENT_PORT) -> None:
        self._client = httpx.AsyncClient(base_url=f"http://{CONTROL}:{port}", timeout=30, trust_env=False)

    async def aclose(self) -> None:
        await self._client.aclose()

    async def fail(self, *nodes: tuple[int, int], how: How) -> float:
        """When they stopped answering, seconds since the epoch."""
        return await self._tell(FAIL, Which(nodes=nodes, how=how))

    async def heal(self, *nodes: tuple[int, int]) -> None:
        await self._tell(HEAL, Which(nodes=nodes))

    async def mark(self) -> None:
        """Count anew from now on."""
        await self._tell(MARK, Which(nodes=()))

    async def counts(self) -> Counts:
        response = await self._client.get(COUNTS)
        return Counts.model_validate_json(response.raise_for_status().content)

    async def _tell(self, path: str, which: Which) -> float:
        response = await self._client.post(path, content=which.model_dump_json())
        return Done.model_validate_json(response.raise_for_status().content).at
