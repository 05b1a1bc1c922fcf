"""What becomes of whatever somebody else's fencing provider raises."""

from __future__ import annotations

import asyncio
from typing import Literal

import pytest

from qnwis.continuity.refusal import Refusal
from qnwis.continuity.topology import FencingHook, Provider
from qnwis.providers import fencing
from qnwis.providers.errors import Refused, Unreachable
from qnwis.providers.fencing import HookAnswer, HookByMaker, PowerHook
from qnwis.transport import Transport

THEIRS = FencingHook(provider=Provider(name="theirs"), timeout_s=0.2)
NO = Refused(Refusal(rule="no", message="-", remedy="-"))
LATE = Unreachable("late")


class Theirs:
    def __init__(self, raised: BaseException | None) -> None:
        self._raised = raised

    async def switch(
        self, hook: FencingHook, node_id: str, state: Literal["off", "on"], effect_id: str
    ) -> HookAnswer:
        if self._raised is None:
            await asyncio.Event().wait()
        raise self._raised or AssertionError


async def raised(monkeypatch: pytest.MonkeyPatch, theirs: BaseException | None) -> BaseException:
    monkeypatch.setattr(fencing, "provider_of", lambda kind, provider: Theirs(theirs))
    with pytest.raises(BaseException) as told:
        await HookByMaker(PowerHook(Transport())).switch(THEIRS, "node-1", "off", "effect")
    return told.value


@pytest.mark.parametrize("theirs", [OSError("no route"), KeyError("token"), AssertionError()])
async def test_anything_else_that_is_raised_may_have_happened(
    monkeypatch: pytest.MonkeyPatch, theirs: Exception
) -> None:
    told = await raised(monkeypatch, theirs)
    assert isinstance(told, Unreachable)
    assert f"provider:theirs/node-1/off: {type(theirs).__name__}" in str(told)


async def test_what_it_says_of_itself_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await raised(monkeypatch, NO) is NO
    assert await raised(monkeypatch, LATE) is LATE
    assert "no answer within 0.2 s" in str(await raised(monkeypatch, None))


async def test_a_cancellation_stays_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(await raised(monkeypatch, asyncio.CancelledError()), asyncio.CancelledError)
