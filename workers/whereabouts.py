"""Carries from workflows to their activities which run, cluster and step they belong to, in a header."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from temporalio import activity, workflow
from temporalio.api.common.v1 import Payload
from temporalio.converter import PayloadConverter
from temporalio.worker import (
    ActivityInboundInterceptor,
    ExecuteActivityInput,
    ExecuteWorkflowInput,
    HandleQueryInput,
    HandleSignalInput,
    HandleUpdateInput,
    Interceptor,
    StartActivityInput,
    WorkflowInboundInterceptor,
    WorkflowInterceptorClassInput,
    WorkflowOutboundInterceptor,
)
from temporalio.workflow import ActivityHandle

with workflow.unsafe.imports_passed_through():
    from qnwis.whereabouts import CLUSTER, REGION, RUN, standing_at, whereabouts

HEADER = "qnwis-whereabouts"


class Whereabouts(Interceptor):
    """Of every worker, traced or not: logs need it, too."""

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:
        return _Activities(next)

    def workflow_interceptor_class(
        self, input: WorkflowInterceptorClassInput
    ) -> type[WorkflowInboundInterceptor]:
        return _Workflows


class _Activities(ActivityInboundInterceptor):
    async def execute_activity(self, input: ExecuteActivityInput) -> Any:
        info = activity.info()
        told = _told(input.headers) or _named(input.args)
        with standing_at(**{RUN: info.workflow_run_id, **told, "activity": info.activity_type}):
            return await super().execute_activity(input)


class _Workflows(WorkflowInboundInterceptor):
    _named: Mapping[str, str] = {}

    def init(self, outbound: WorkflowOutboundInterceptor) -> None:
        super().init(_Outbound(outbound))

    async def execute_workflow(self, input: ExecuteWorkflowInput) -> Any:
        self._named = _named(input.args)
        with self._here():
            return await super().execute_workflow(input)

    async def handle_signal(self, input: HandleSignalInput) -> None:
        with self._here():
            await super().handle_signal(input)

    async def handle_query(self, input: HandleQueryInput) -> Any:
        with self._here():
            return await super().handle_query(input)

    def handle_update_validator(self, input: HandleUpdateInput) -> None:
        with self._here():
            super().handle_update_validator(input)

    async def handle_update_handler(self, input: HandleUpdateInput) -> Any:
        with self._here():
            return await super().handle_update_handler(input)

    def _here(self) -> Any:
        # The run's own name is that of its first execution, whatever a reset made of it.
        return standing_at(**{RUN: workflow.info().original_execution_run_id, **self._named})


class _Outbound(WorkflowOutboundInterceptor):
    def start_activity(self, input: StartActivityInput) -> ActivityHandle[Any]:
        told = PayloadConverter.default.to_payload(dict(whereabouts()))
        input.headers = {**input.headers, HEADER: told}
        return super().start_activity(input)


def _told(headers: Mapping[str, Payload]) -> dict[str, str]:
    payload = headers.get(HEADER)
    return {} if payload is None else PayloadConverter.default.from_payload(payload, dict[str, str])


def _named(arguments: Any) -> dict[str, str]:
    """What the first argument says it is about."""
    about = arguments[0] if arguments else None
    found = {name: getattr(about, name, None) for name in (CLUSTER, REGION)}
    return {name: value for name, value in found.items() if isinstance(value, str)}
