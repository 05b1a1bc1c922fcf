"""Calling hooks. A run names a hook; what that calls is read from the worker's own `hooks.yaml`."""

from __future__ import annotations

import asyncio
from pathlib import Path

from temporalio import activity

from qnwis.config.hooks import FILE, load_hooks
from qnwis.config.problem import ConfigError
from qnwis.continuity.hooks import DueHook, HookContext, HookResult
from qnwis.continuity.model import Model
from qnwis.providers.calls import Caller

from .effect import heartbeating


class HookRequest(Model):
    hook: DueHook
    context: HookContext


class Hooks:
    def __init__(self, config_dir: Path, caller: Caller) -> None:
        self._file = config_dir / FILE
        self._caller = caller

    @activity.defn
    async def call_hook(self, asked: HookRequest) -> HookResult:
        """Call it once, within its time. A failure is an answer, and is not tried again: only a worker that
        dies leaves the call to the next one, which makes it under the same idempotency key."""
        async with heartbeating():
            return await self._called(asked.hook, asked.context)

    async def _called(self, due: DueHook, context: HookContext) -> HookResult:
        result = HookResult(
            hook=due.name,
            when=due.when,
            step=due.step,
            ok=False,
            detail="",
            attempts=activity.info().attempt,
        )
        try:
            file = await asyncio.to_thread(load_hooks, self._file)
        except ConfigError as error:
            return result.model_copy(update={"detail": f"{FILE} cannot be used: {error}"})
        hook = file.hook(due.name)
        if hook is None:
            return result.model_copy(update={"detail": f"{FILE} of this worker has no hook {due.name}"})
        came = await self._caller.make(
            hook,
            context.told(),
            context.environment(),
            default_method="POST",
            idempotency_key=context.idempotency_key,
            timeout_s=due.timeout_s,
        )
        return result.model_copy(
            update={"ok": came.ok, "detail": came.detail, "duration_ms": came.duration_ms}
        )
