"""Temporal's own interceptor, for what has a beginning and an end.

A guardian goes on for months: its spans would never be sent, and all that it starts would be one trace
without an end. So it has none, and each failover that it starts is a trace of its own. The review of an
override waits for people for days, so it has none either. An activity has a span where its workflow has one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from temporalio import client, worker
from temporalio.api.common.v1 import Payload
from temporalio.contrib.opentelemetry import OpenTelemetryInterceptor
from temporalio.worker import (
    ExecuteActivityInput,
    ExecuteWorkflowInput,
    HandleQueryInput,
    HandleSignalInput,
    HandleUpdateInput,
    WorkflowInboundInterceptor,
    WorkflowOutboundInterceptor,
)

HEADER = "_tracer-data"
"""Temporal's own, in which a trace goes from a workflow to its activities and children."""
WITHOUT_END = frozenset({"Guardian", "RegionGuardian", "Reprotect", "OverrideReview"})


def _own() -> OpenTelemetryInterceptor:
    return OpenTelemetryInterceptor(add_temporal_spans=True)


class ClientSpans(client.Interceptor):
    """Of starts, signals, updates and queries."""

    def intercept_client(self, next: client.OutboundInterceptor) -> client.OutboundInterceptor:
        return _own().intercept_client(next)


class WorkerSpans(worker.Interceptor):
    """Of workflows and activities."""

    def intercept_activity(
        self, next: worker.ActivityInboundInterceptor
    ) -> worker.ActivityInboundInterceptor:
        return _Activities(next, _own().intercept_activity(next))

    def workflow_interceptor_class(
        self, input: worker.WorkflowInterceptorClassInput
    ) -> type[WorkflowInboundInterceptor]:
        own = _own().workflow_interceptor_class(input)

        class Workflows(_Workflows):
            def __init__(self, next: WorkflowInboundInterceptor) -> None:
                super().__init__(next, own(next))

        return Workflows


class _Activities(worker.ActivityInboundInterceptor):
    def __init__(
        self, next: worker.ActivityInboundInterceptor, spans: worker.ActivityInboundInterceptor
    ) -> None:
        super().__init__(next)
        self._spans = spans

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:
        way = self._spans if HEADER in input.headers else self.next
        return await way.execute_activity(input)


class _Workflows(WorkflowInboundInterceptor):
    """Gives every call to the interceptor that makes spans, or past it.

    What is asked of and said to a run has a span where the caller is traced: each look of somebody who only
    looks on would be a trace of its own.
    """

    def __init__(self, next: WorkflowInboundInterceptor, spans: WorkflowInboundInterceptor) -> None:
        super().__init__(next)
        self._way = spans

    def init(self, outbound: WorkflowOutboundInterceptor) -> None:
        if outbound.info().workflow_type in WITHOUT_END:
            self._way = self.next
        self._way.init(outbound)

    async def execute_workflow(self, input: ExecuteWorkflowInput) -> Any:
        return await self._way.execute_workflow(input)

    async def handle_signal(self, input: HandleSignalInput) -> None:
        await self._of(input.headers).handle_signal(input)

    async def handle_query(self, input: HandleQueryInput) -> Any:
        return await self._of(input.headers).handle_query(input)

    def handle_update_validator(self, input: HandleUpdateInput) -> None:
        self._of(input.headers).handle_update_validator(input)

    async def handle_update_handler(self, input: HandleUpdateInput) -> Any:
        return await self._of(input.headers).handle_update_handler(input)

    def _of(self, headers: Mapping[str, Payload]) -> WorkflowInboundInterceptor:
        return self._way if HEADER in headers else self.next
