"""Serving `/metrics`, in a thread of its own."""

from __future__ import annotations

import gzip
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from socket import AI_PASSIVE, SOCK_STREAM, getaddrinfo
from threading import Thread
from typing import TYPE_CHECKING
from urllib.parse import parse_qs
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import disable_created_metrics, make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer, gzip_accepted
from temporalio.runtime import (
    LogForwardingConfig,
    LoggingConfig,
    PrometheusConfig,
    Runtime,
    TelemetryConfig,
    TelemetryFilter,
)

from .exposition import Exposition

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

GZIP_LEVEL = 1
"""A scrape comes every few seconds and goes over a network nearby."""


class MetricsAddress(ValueError):
    """An address that is none, or at which nothing can be served."""


def host_and_port(address: str) -> tuple[str, int]:
    """Of `HOST:PORT`; an IPv6 host stands in brackets. Raises MetricsAddress."""
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise MetricsAddress(f"metrics address {address!r}: expected HOST:PORT, for example 127.0.0.1:9464")
    return host.strip("[]"), int(port)


@contextmanager
def served(exposition: Exposition, address: str) -> Iterator[None]:
    """Serve all figures, until the context ends. Raises MetricsAddress."""
    host, port = host_and_port(address)
    # Each counter would have a second series with the time at which this process made it.
    disable_created_metrics()  # type: ignore[no-untyped-call]
    try:
        server = _server(exposition, host, port)
    except OSError as error:
        raise MetricsAddress(f"metrics cannot be served at {address}: {error}") from error
    thread = Thread(target=server.serve_forever, name="metrics", daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _server(exposition: Exposition, host: str, port: int) -> WSGIServer:
    """Raises OSError."""
    family, *_, bound = getaddrinfo(host, port, type=SOCK_STREAM, flags=AI_PASSIVE)[0]

    class Server(ThreadingWSGIServer):
        address_family = family

    return make_server(str(bound[0]), port, _app(exposition), Server, _Silent)


def _app(exposition: Exposition) -> WSGIApplication:
    """The library's, with what it leaves out, and packed for a network nearby."""
    others = make_wsgi_app(exposition, disable_compression=True)

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
        said: list[tuple[str, list[tuple[str, str]]]] = []
        body = b"".join(others(environ, lambda *status_and_headers: said.append(status_and_headers)))
        ((status, headers),) = said
        if any(name == "Content-Type" for name, _ in headers):  # figures; refusals and the icon have none
            body = exposition.completed(body, parse_qs(environ.get("QUERY_STRING", "")).get("name[]", ()))
            if gzip_accepted(environ.get("HTTP_ACCEPT_ENCODING", "")):
                body = gzip.compress(body, GZIP_LEVEL)
                headers.append(("Content-Encoding", "gzip"))
        start_response(status, headers)
        return [body]

    return app


class _Silent(WSGIRequestHandler):
    def log_message(self, *_: object) -> None:
        """Nothing: there is one every few seconds."""


def sdk_runtime(address: str | None = None) -> Runtime:
    """A runtime of the Temporal SDK, which logs as this process does. It serves the SDK's own metrics at
    `address`, if there is one, until the process ends. Raises MetricsAddress."""
    if address is not None:
        host_and_port(address)
    metrics = None if address is None else PrometheusConfig(bind_address=address)
    try:
        return Runtime(telemetry=TelemetryConfig(logging=_through_python(), metrics=metrics))
    except (RuntimeError, ValueError) as error:
        raise MetricsAddress(f"the SDK's metrics cannot be served at {address}: {error}") from error


def _through_python() -> LoggingConfig:
    own = LogForwardingConfig(
        logging.getLogger("temporalio.core"), append_target_to_name=False, prepend_target_on_message=False
    )
    return LoggingConfig(TelemetryFilter(core_level="WARN", other_level="ERROR"), forwarding=own)
