"""The one place where connections between parts are made."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx

from qnwis.tls.client import KEPT_ALIVE, KEPT_S, PinnedTransport
from qnwis.tls.files import ALLOWLIST_VARIABLE, IDENTITY_VARIABLE, TlsError, TlsFiles

_NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
ALLOWLIST, CONFIG_VARIABLE = "allowlist.yaml", "QNWIS_CONFIG_DIR"


@dataclass(frozen=True)
class Transport:
    """How this process speaks to other parts."""

    connect_timeout_s: float = 1.0
    """A connection not made within this is unreachable, seconds."""
    tls: TlsFiles | None = None
    """How agents are spoken to: with mutual TLS, or in the clear where there is no allowlist."""

    def client(self, *, timeout_s: float, ca_file: str | None = None) -> httpx.AsyncClient:
        """An HTTP client whose requests end within `timeout_s` seconds without progress. `ca_file`: whose
        certificates it trusts, instead of the usual ones. Raises OSError for one that cannot be read.

        `trust_env` is off: a proxy variable in a worker's environment must not stand between it and a node.
        """
        verify: ssl.SSLContext | bool = (
            True if ca_file is None else ssl.create_default_context(cafile=ca_file)
        )
        return httpx.AsyncClient(timeout=self._timeout(timeout_s), trust_env=False, verify=verify)

    def agents(self, *, timeout_s: float, connections: int = 16) -> httpx.AsyncClient:
        """The same for agents, and for nobody else; so many connections at once to each."""
        limits = httpx.Limits(max_connections=connections, keepalive_expiry=KEPT_S)
        return httpx.AsyncClient(
            timeout=self._timeout(timeout_s),
            trust_env=False,
            transport=PoolOfEach(limits) if self.tls is None else PinnedTransport(self.tls, limits),
        )

    def _timeout(self, timeout_s: float) -> httpx.Timeout:
        return httpx.Timeout(timeout_s, connect=min(self.connect_timeout_s, timeout_s))


class PoolOfEach(httpx.AsyncBaseTransport):
    """A pool of connections for each agent: httpx looks at every connection of a pool for each request, and a
    worker keeps one to each of thousands of nodes."""

    def __init__(self, limits: httpx.Limits) -> None:
        self._limits = limits
        self._pools: dict[tuple[str, str, int | None], httpx.AsyncHTTPTransport] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        origin = request.url.scheme, request.url.host, request.url.port
        if (pool := self._pools.get(origin)) is None:
            # Where nothing is secured no context is used, and the usual one takes long to make.
            verify = _NO_TLS if request.url.scheme == "http" else True
            pool = httpx.AsyncHTTPTransport(
                verify=verify, trust_env=False, limits=self._limits, socket_options=KEPT_ALIVE
            )
            self._pools[origin] = pool
        return await pool.handle_async_request(request)

    async def aclose(self) -> None:
        for pool in self._pools.values():
            await pool.aclose()


def transport_of(environment: Mapping[str, str], config_dir: Path | None = None) -> Transport:
    """How this process speaks to agents: with mutual TLS where there is an allowlist, which QNWIS_ALLOWLIST
    names, or which lies in the registry's folder: this one, or the one that QNWIS_CONFIG_DIR names.
    QNWIS_IDENTITY_DIR is the folder of its own certificate. Raises TlsError."""
    allowlist = _allowlist(environment, config_dir)
    if allowlist is None:
        return Transport()
    identity = environment.get(IDENTITY_VARIABLE)
    if not identity:
        raise TlsError(
            f"{allowlist} demands mutual TLS with every agent, and {IDENTITY_VARIABLE} is not set; set it to"
            " the folder that `qnwis-continuity pki client` made for this party"
        )
    return Transport(tls=TlsFiles(identity=Path(identity), allowlist_file=allowlist))


def _allowlist(environment: Mapping[str, str], config_dir: Path | None) -> Path | None:
    if named := environment.get(ALLOWLIST_VARIABLE):
        return Path(named)
    folders = [Path(folder) for folder in (config_dir, environment.get(CONFIG_VARIABLE)) if folder]
    return next((folder / ALLOWLIST for folder in folders if (folder / ALLOWLIST).exists()), None)


def transport_beside(cluster_file: Path, environment: Mapping[str, str]) -> Transport:
    """The same for the agents of a cluster whose file a command was given. The registry is the folder that it
    lies in, or the one that has it in `clusters/ID/`. Raises TlsError."""
    folder = cluster_file.absolute().parent
    return transport_of(environment, folder.parents[1] if folder.parent.name == "clusters" else folder)
