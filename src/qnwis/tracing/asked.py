"""Whether traces are asked for. Where they are not, nothing of OpenTelemetry is loaded."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import temporalio.client
import temporalio.worker

ENDPOINT, TRACES_ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
EXPORTER, DISABLED = "OTEL_TRACES_EXPORTER", "OTEL_SDK_DISABLED"
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
HTTP = "http/protobuf"


class TracingError(Exception):
    """Traces are asked for and cannot be made; the text says why and what to do."""


@dataclass(frozen=True)
class Tracing:
    """What traces a process; as it is made here, nothing."""

    on: bool = False
    client: Sequence[temporalio.client.Interceptor] = ()
    worker: Sequence[temporalio.worker.Interceptor] = ()


def is_asked_for(environment: Mapping[str, str]) -> bool:
    """By an endpoint that is set, or by the exporter's name. Raises TracingError for what is not there."""
    exporter = environment.get(EXPORTER, "")
    if environment.get(DISABLED, "").lower() == "true" or exporter == "none":
        return False
    if exporter not in ("", "otlp"):
        raise TracingError(f"{EXPORTER} is {exporter!r}; expected otlp, or none for no traces")
    if not (exporter or environment.get(ENDPOINT) or environment.get(TRACES_ENDPOINT)):
        return False
    for name in PROTOCOLS:
        if (protocol := environment.get(name)) not in (None, "", HTTP):
            raise TracingError(
                f"{name} is {protocol!r}; expected {HTTP}, the protocol that traces are sent by"
            )
    return True


@contextmanager
def traced(service: str, environment: Mapping[str, str] = os.environ) -> Iterator[Tracing]:
    """Trace this process until the context ends. `service`: its name, unless OTEL_SERVICE_NAME has one.

    Raises TracingError.
    """
    if not is_asked_for(environment):
        yield Tracing()
        return
    try:
        from .spans import sending
    except ImportError as error:
        raise TracingError(
            f"traces are asked for ({ENDPOINT}), but OpenTelemetry is not installed ({error}): install"
            " qnwis-continuity[otel], or set OTEL_SDK_DISABLED=true"
        ) from error
    with sending(service) as tracing:
        yield tracing
