"""The one place where connections between parts are made, so that mutual TLS comes in at one place."""

from __future__ import annotations

from dataclasses import dataclass

import httpx


@dataclass(frozen=True)
class Transport:
    """How this process speaks to other parts, and how it listens."""

    connect_timeout_s: float = 1.0
    """A connection not made within this is unreachable, seconds."""

    def client(self, *, timeout_s: float) -> httpx.AsyncClient:
        """An HTTP client whose requests end within `timeout_s` seconds without progress.

        `trust_env` is off: a proxy variable in a worker's environment must not stand between it and a node.
        """
        connect_s = min(self.connect_timeout_s, timeout_s)
        return httpx.AsyncClient(timeout=httpx.Timeout(timeout_s, connect=connect_s), trust_env=False)
