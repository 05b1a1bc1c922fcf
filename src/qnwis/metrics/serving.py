"""Serving `/metrics`, in a thread of its own: a scrape must not hold up a watch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, disable_created_metrics, start_http_server
from temporalio.runtime import PrometheusConfig, Runtime, TelemetryConfig


class MetricsAddress(ValueError):
    """An address that is none, or at which nothing can be served."""


def host_and_port(address: str) -> tuple[str, int]:
    """Of `HOST:PORT`; an IPv6 host stands in brackets. Raises MetricsAddress."""
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise MetricsAddress(f"metrics address {address!r}: expected HOST:PORT, for example 127.0.0.1:9464")
    return host.strip("[]"), int(port)


@contextmanager
def served(registry: CollectorRegistry, address: str) -> Iterator[None]:
    """Serve what this registry has, until the context ends. Raises MetricsAddress."""
    host, port = host_and_port(address)
    # Each counter would have a second series with the time at which this process made it.
    disable_created_metrics()  # type: ignore[no-untyped-call]
    try:
        server, thread = start_http_server(port, addr=host, registry=registry)
    except OSError as error:
        raise MetricsAddress(f"metrics cannot be served at {address}: {error}") from error
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def runtime_with_metrics(address: str) -> Runtime:
    """A runtime of the Temporal SDK that serves the SDK's own metrics, until the process ends. Raises
    MetricsAddress."""
    host_and_port(address)
    try:
        return Runtime(telemetry=TelemetryConfig(metrics=PrometheusConfig(bind_address=address)))
    except (RuntimeError, ValueError) as error:
        raise MetricsAddress(f"the SDK's metrics cannot be served at {address}: {error}") from error
