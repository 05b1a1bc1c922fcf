"""Waiting for the end of a workflow that another has started."""

from __future__ import annotations

from typing import Any, cast

import pytest
from temporalio.service import RPCError, RPCStatusCode
from temporalio.testing import ActivityEnvironment

from activities.regions import AwaitRun, Regions

NOBODY = cast(Any, None)


class Server:
    """That answers every question for an end alike."""

    def __init__(self, status: RPCStatusCode) -> None:
        self._status = status

    def get_workflow_handle(self, workflow_id: str) -> Server:
        return self

    async def result(self) -> None:
        raise RPCError("-", self._status, b"")


async def test_one_that_is_kept_no_longer_has_ended() -> None:
    """While nobody waited, longer than the server keeps what has ended."""
    asked = AwaitRun(workflow_id="reprotect-c")
    gone = Regions(NOBODY, NOBODY, NOBODY, cast(Any, Server(RPCStatusCode.NOT_FOUND)))
    await ActivityEnvironment().run(gone.await_run, asked)
    away = Regions(NOBODY, NOBODY, NOBODY, cast(Any, Server(RPCStatusCode.UNAVAILABLE)))
    with pytest.raises(RPCError):
        await ActivityEnvironment().run(away.await_run, asked)
