"""Spans: made by Temporal's own interceptor and the web framework's, and sent by OTLP over HTTP.

What leaves the process is what is named here and nothing else: a span could carry a request's address or an
exception's text, and those can have the name of a person in them.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from opentelemetry import context as otel
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.propagate import set_global_textmap
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import Event, ReadableSpan, Span, SpanProcessor
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import Status
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from temporalio.contrib.opentelemetry import create_tracer_provider

from qnwis.logs import log_traces
from qnwis.whereabouts import whereabouts

from .asked import Tracing
from .temporal import ClientSpans, WorkerSpans

PREFIX = "qnwis."
"""Of the attributes that say where a span belongs to."""
SENT = frozenset(
    {
        *("temporalWorkflowID", "temporalRunID", "temporalActivityID"),
        *("http.method", "http.request.method", "http.route", "http.scheme", "url.scheme"),
        *("http.status_code", "http.response.status_code", "error.type"),
    }
)
"""Attributes of others that are sent."""
EXCEPTION_TYPE = "exception.type"
LAST_SPANS_WITHIN_S = 3.0
"""How long the end of a process waits for a collector that does not take the last spans."""


@contextmanager
def sending(service: str) -> Iterator[Tracing]:
    """Send spans until the context ends."""
    # A caller's baggage is not carried into workflows: nobody knows what is in it.
    set_global_textmap(TraceContextTextMapPropagator())
    provider = create_tracer_provider(resource=_resource(service), shutdown_on_exit=False)
    provider.add_span_processor(_Marks())
    provider.add_span_processor(BatchSpanProcessor(_Bare(OTLPSpanExporter())))
    trace.set_tracer_provider(provider)
    log_traces(_trace_id)

    try:
        yield Tracing(on=True, client=(ClientSpans(),), worker=(WorkerSpans(),))
    finally:
        last = threading.Thread(target=provider.shutdown, daemon=True)
        last.start()
        last.join(LAST_SPANS_WITHIN_S)


def _resource(service: str) -> Resource:
    """What OTEL_RESOURCE_ATTRIBUTES and OTEL_SERVICE_NAME say, and `service` where they name none."""
    said = Resource.create()
    unnamed = str(said.attributes[SERVICE_NAME]).startswith("unknown_service")
    return said.merge(Resource({SERVICE_NAME: service})) if unnamed else said


def _trace_id() -> str | None:
    context = trace.get_current_span().get_span_context()
    return trace.format_trace_id(context.trace_id) if context.is_valid else None


class _Marks(SpanProcessor):
    """Has every span say which run, cluster and step it belongs to."""

    def on_start(self, span: Span, parent_context: otel.Context | None = None) -> None:
        for name, at in whereabouts().items():
            span.set_attribute(PREFIX + name, at)


class _Bare(SpanExporter):
    """Sends spans without what could name a person or hold a secret."""

    def __init__(self, to: SpanExporter) -> None:
        self._to = to

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return self._to.export([bare(span) for span in spans])

    def shutdown(self) -> None:
        self._to.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._to.force_flush(timeout_millis)


def bare(span: ReadableSpan) -> ReadableSpan:
    """The span as it is sent."""
    kept = {
        name: value
        for name, value in (span.attributes or {}).items()
        if name in SENT or name.startswith(PREFIX)
    }
    return ReadableSpan(
        name=span.name,
        context=span.context,
        parent=span.parent,
        resource=span.resource,
        attributes=kept,
        events=[_bare_event(event) for event in span.events],
        links=span.links,
        kind=span.kind,
        status=Status(span.status.status_code),
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


def _bare_event(event: Event) -> Event:
    """An exception's type; its text may name people."""
    kind = (event.attributes or {}).get(EXCEPTION_TYPE)
    return Event(event.name, {} if kind is None else {EXCEPTION_TYPE: kind}, event.timestamp)
