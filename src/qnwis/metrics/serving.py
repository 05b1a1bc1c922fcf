"""Serving `/metrics`, in a thread of its own: a scrape must not hold up a watch."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, disable_created_metrics, start_http_server
from temporalio.runtime import (
    LogForwardingConfig,
    LoggingConfig,
    PrometheusConfig,
    Runtime,
    TelemetryConfig,
    TelemetryFilter,
)


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
