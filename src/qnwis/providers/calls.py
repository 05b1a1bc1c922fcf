"""Calls of what an operator declares in `hooks.yaml`: an HTTP request, or a command on this machine."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from time import monotonic

from qnwis.continuity.hooks_file import Call
from qnwis.transport import Transport

from .command import ProgramEnd, run_command
from .http_call import request


@dataclass(frozen=True)
class Came:
    """What came of one call."""

    ok: bool
    detail: str
    duration_ms: float


@dataclass(frozen=True)
class Caller:
    """Makes calls; each ends within the time that it is given."""

    transport: Transport

    async def make(
        self,
        call: Call,
        told: Mapping[str, str],
        environment: Mapping[str, str],
        *,
        default_method: str,
        idempotency_key: str | None,
        timeout_s: float,
    ) -> Came:
        """`told` is a request's body and a command's input, as JSON; `environment` is a command's, whole but
        for PATH and HOME. Raises nothing on purpose: a call that fails is an answer. A cancel ends it."""
        began = monotonic()
        if call.http is not None:
            came = await request(
                self.transport,
                call.http,
                told,
                method=call.http.method or default_method,
                idempotency_key=idempotency_key,
                timeout_s=timeout_s,
            )
        else:
            assert call.command is not None, "a call has one way"
            ended = await run_command(call.command, told, _whole(environment), timeout_s=timeout_s)
            came = ended.ok, _told_of(ended, timeout_s)
        return Came(*came, duration_ms=(monotonic() - began) * 1000)


def _whole(environment: Mapping[str, str]) -> dict[str, str]:
    """Nothing else of the worker's environment: it holds secrets."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return {**kept, "LANG": "C.UTF-8", **environment}


def _told_of(ended: ProgramEnd, timeout_s: float) -> str:
    if ended.problem:
        return ended.problem
    how = f"killed after {timeout_s:g} s" if ended.status is None else f"exit status {ended.status}"
    return f"{how}: {ended.output}" if ended.output else how
