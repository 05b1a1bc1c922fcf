"""A span for each request, by the web framework's own instrumentation. Loaded where traces are asked for."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.trace import Span

from qnwis.tracing.spans import PREFIX

from .paths import named_in

NOT_TRACED = "/health/live"


def trace_requests(app: FastAPI) -> None:
    """Before the application serves."""
    FastAPIInstrumentor.instrument_app(
        app,
        server_request_hook=_about,
        excluded_urls=NOT_TRACED,
        exclude_spans=["receive", "send"],
    )


def _about(span: Span, scope: dict[str, Any]) -> None:
    for name, about in named_in(scope["path"]).items():
        span.set_attribute(PREFIX + name, about)
