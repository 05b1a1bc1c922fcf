"""The API's process: wire its parts, serve until told to stop."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

from qnwis.config.access import AccessFiles
from qnwis.config.api import FILE, load_api
from qnwis.config.registry import Registry
from qnwis.continuity.model import Identifier, Model
from qnwis.metrics.serving import sdk_runtime
from qnwis.providers.alarms import Alarms
from qnwis.providers.all_nodes import AllNodes
from qnwis.providers.audit_place import audit_store_of
from qnwis.providers.bundles import FOLDER, Bundles
from qnwis.providers.channels import channel_notifier
from qnwis.providers.jwt_bearer import Bearer
from qnwis.providers.key_store import FileKeyStore, key_store_of
from qnwis.providers.keys import read_key
from qnwis.providers.request_store import RequestStore
from qnwis.providers.service_tokens import FILE as TOKENS
from qnwis.providers.service_tokens import TokenFile
from qnwis.temporal import connect
from qnwis.tracing.asked import Tracing, traced
from qnwis.transport import transport_of

from . import connections
from .app import create_app
from .parts import Parts, Voucher

SERVICE = "qnwis-api"
GRACE_S = 5
"""How long requests may finish when the process is asked to stop."""


class ApiSettings(Model):
    config_dir: Path
    """Registry of clusters, with people.yaml, issuers.yaml, api.yaml and service-tokens.yaml."""
    state_dir: Path
    """The audit store, and what API processes remember together."""
    key_file: Path
    """The API's own key, whose public half is in issuers.yaml."""
    issuer: Identifier
    """Under which name."""
    host: str
    port: int
    tls_cert: Path | None = None
    tls_key: Path | None = None
    address: str | None = None
    """Temporal server; by default what Temporal's own environment variables and profiles say."""


class _Server(uvicorn.Server):
    """Told to stop, it stops, and the process ends in order. uvicorn's own sends itself the signal again when
    it has stopped, which ends the process as if it had been killed."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        yield


async def run_api(settings: ApiSettings) -> None:
    """Serve until SIGTERM or SIGINT. Raises NoServer, ConfigError, KeyFileError, KeyStoreError, and
    TracingError when traces are asked for in vain."""
    with traced(SERVICE) as tracing:
        await _serve(settings, tracing)


async def _serve(settings: ApiSettings, tracing: Tracing) -> None:
    api = load_api(settings.config_dir / FILE)
    key = read_key(settings.key_file)
    client = await connect(settings.address, runtime=sdk_runtime(), interceptors=tracing.client)
    settings.state_dir.mkdir(parents=True, exist_ok=True)
    transport = transport_of(os.environ, settings.config_dir)
    async with AllNodes(transport) as nodes:
        audit = audit_store_of(settings.state_dir, os.environ)
        keys = key_store_of(os.environ) or FileKeyStore(settings.state_dir / "audit-keys.json")
        parts = Parts(
            registry=Registry(settings.config_dir),
            access=AccessFiles(settings.config_dir),
            settings=api,
            bearer=Bearer(api.jwt, transport),
            tokens=TokenFile(settings.config_dir / TOKENS),
            store=RequestStore(settings.state_dir / "api.sqlite"),
            nodes=nodes,
            client=client,
            audit=audit,
            bundles=Bundles(audit, keys, settings.state_dir / FOLDER),
            voucher=Voucher(settings.issuer, key),
            alarms=Alarms(channel_notifier(settings.config_dir, settings.state_dir), api.alarms),
        )
        app = create_app(parts)
        if tracing.on:
            from .traced_requests import trace_requests

            trace_requests(app)
        await _Server(served(app, settings)).serve()
        await parts.alarms.settled()


def served(app: ASGIApp, settings: ApiSettings) -> uvicorn.Config:
    """How the application is served: over which connections, and within which limits."""
    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        ssl_certfile=settings.tls_cert,
        ssl_keyfile=settings.tls_key,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # whose address it is, nobody may say of himself
        http=connections.Http,
        ws="none",
        limit_concurrency=connections.MOST_CONNECTIONS,
        timeout_graceful_shutdown=GRACE_S,
    )
