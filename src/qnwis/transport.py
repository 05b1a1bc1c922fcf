"""The one place where connections between parts are made, so that mutual TLS comes in at one place."""

from __future__ import annotations

import ssl
from dataclasses import dataclass

import httpx


@dataclass(frozen=True)
class Transport:
    """How this process speaks to other parts, and how it listens."""

    connect_timeout_s: float = 1.0
    """A connection not made within this is unreachable, seconds."""

    def client(self, *, timeout_s: float, ca_file: str | None = None) -> httpx.AsyncClient:
        """An HTTP client whose requests end within `timeout_s` seconds without progress. `ca_file`: whose
        certificates it trusts, instead of the usual ones. Raises OSError for one that cannot be read.

        `trust_env` is off: a proxy variable in a worker's environment must not stand between it and a node.
        """
        connect_s = min(self.connect_timeout_s, timeout_s)
        verify: ssl.SSLContext | bool = (
            True if ca_file is None else ssl.create_default_context(cafile=ca_file)
        )
        return httpx.AsyncClient(
            timeout=httpx.Timeout(timeout_s, connect=connect_s), trust_env=False, verify=verify
        )
