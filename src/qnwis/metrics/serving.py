"""Serving `/metrics`, in a thread of its own."""

from __future__ import annotations

import gzip
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import AI_PASSIVE, SOCK_STREAM, getaddrinfo
from threading import Thread
from urllib.parse import parse_qs, urlsplit

from prometheus_client import disable_created_metrics
from temporalio.runtime import (
    LogForwardingConfig,
    LoggingConfig,
    PrometheusConfig,
    Runtime,
    TelemetryConfig,
    TelemetryFilter,
)

from .exposition import Exposition

log = logging.getLogger(__name__)

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


def _server(exposition: Exposition, host: str, port: int) -> ThreadingHTTPServer:
    """Raises OSError."""
    family, *_, bound = getaddrinfo(host, port, type=SOCK_STREAM, flags=AI_PASSIVE)[0]

    class Server(ThreadingHTTPServer):
        address_family = family
        daemon_threads = True

    class Scrape(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            names = parse_qs(urlsplit(self.path).query).get("name[]", [])
            body, content_type = exposition.text(self.headers.get("accept"), names)
            packed = "gzip" in (self.headers.get("accept-encoding") or "").lower()
            if packed:
                body = gzip.compress(body, GZIP_LEVEL)
            self.send_response(HTTPStatus.OK)
            self.send_header("content-type", content_type)
            self.send_header("content-length", str(len(body)))
            if packed:
                self.send_header("content-encoding", "gzip")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing: there is one every few seconds."""

    return Server((str(bound[0]), int(bound[1])), Scrape)


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
