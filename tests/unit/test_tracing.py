"""Traces: only where they are asked for, and without what could name a person."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from unittest.mock import Mock

import pytest
from typer.testing import CliRunner

from qnwis.cli.qnwis_continuity import app
from qnwis.tracing.asked import TracingError, is_asked_for


@pytest.mark.parametrize(
    ("environment", "asked"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),
        ({"OTEL_SERVICE_NAME": "mine"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4318/v1/traces"}, True),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, False),
        ({"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, False),
    ],
)
def test_the_standard_variables_ask(environment: Mapping[str, str], asked: bool) -> None:
    assert is_asked_for(environment) is asked


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [("OTEL_TRACES_EXPORTER", "jaeger", "otlp"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "http/protobuf")],
)
def test_what_is_not_there_is_refused_by_name(name: str, value: str, expected: str) -> None:
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317", name: value}
    with pytest.raises(TracingError, match=f"{name} is '{value}'; expected {expected}"):
        is_asked_for(environment)


def test_a_worker_that_cannot_trace_as_it_is_told_ends_and_says_so(tmp_path: Path) -> None:
    command = ["worker", "--config-dir", str(tmp_path), "--vantages-only", "--vantage", "v"]
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
    ended = CliRunner().invoke(app, command, env=environment)
    assert ended.exit_code == 2 and "http/protobuf" in ended.output


def test_nothing_of_it_is_loaded_where_nobody_asks() -> None:
    code = """if True:
        import sys
        from qnwis.tracing.asked import traced
        with traced("qnwis-worker", {}) as tracing:
            assert (tracing.on, tracing.client, tracing.worker) == (False, (), ())
            assert not [name for name in sys.modules if "opentelemetry" in name]
    """
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr


def test_a_span_leaves_without_texts_and_addresses() -> None:
    pytest.importorskip(
        "opentelemetry.exporter.otlp.proto.http",
        reason="OpenTelemetry is not installed (the extra `otel`)",
    )
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import StatusCode

    from qnwis.tracing.spans import bare

    tracer = TracerProvider().get_tracer("test")
    told = {"http.url": "http://api/audit?by=ann", "http.route": "/audit", "qnwis.cluster_id": "c"}
    with tracer.start_as_current_span("GET /audit", attributes=told) as span:
        span.record_exception(ValueError("ann may not"))
        span.set_status(StatusCode.ERROR, "ValueError: ann may not")
    sent = bare(span)  # type: ignore[arg-type]
    assert "ann" not in sent.to_json()
    assert sent.attributes == {"http.route": "/audit", "qnwis.cluster_id": "c"}
    assert sent.status.status_code is StatusCode.ERROR
    assert [dict(event.attributes or {}) for event in sent.events] == [{"exception.type": "ValueError"}]
    assert sent.context == span.get_span_context()


def test_what_has_no_end_or_waits_for_days_makes_no_span() -> None:
    pytest.importorskip(
        "temporalio.contrib.opentelemetry",
        reason="OpenTelemetry is not installed (the extra `otel`)",
    )
    from qnwis.tracing.temporal import _Workflows
    from workers.wiring import WORKFLOWS

    def traced(workflow_type: str) -> bool:
        past, spans, outbound = Mock(), Mock(), Mock()
        outbound.info.return_value.workflow_type = workflow_type
        _Workflows(past, spans).init(outbound)
        return bool(spans.init.called)

    untraced = {kind.__name__ for kind in WORKFLOWS if not traced(kind.__name__)}
    assert untraced == {"Guardian", "RegionGuardian", "Reprotect", "OverrideReview"}
