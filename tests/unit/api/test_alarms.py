"""Refused credentials, replays and floods reach people, and no channel holds a request up."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path

import pytest

from qnwis.config.api import ApiFile
from qnwis.continuity.notifications import Notification, Told
from qnwis.continuity.requests import Limits
from qnwis.continuity.suspicions import AlarmLimits
from qnwis.providers.alarms import Alarms
from qnwis.providers.channels import channel_notifier
from qnwis.providers.keys import new_key
from tests.receiver import channels, receiving

from .scene import ApiScene, rule_of

TOLD_AT = AlarmLimits(refused_credentials=3, flood=2, window_s=1e9)  # no window ends meanwhile


def alarmed(scene: ApiScene) -> Alarms:
    """Alarms through the channels of the scene's own notifications.yaml, as one more process has them."""
    assert scene.registry is not None
    alarms = Alarms(channel_notifier(scene.registry, scene.home), TOLD_AT)
    scene.parts = dataclasses.replace(scene.parts, alarms=alarms)
    return alarms


async def test_guessed_credentials_are_told_once_whichever_process_saw_them(tmp_path: Path) -> None:
    scene = ApiScene(tmp_path)
    async with receiving() as receiver:
        channels(scene.home / "config", {"name": "chat", "url": receiver.url("takes")})
        for _ in range(2):
            alarms = alarmed(scene)
            async with scene.http() as api:
                for _ in range(4):
                    guess = await api.get("/clusters", headers=scene.signed_in("ann", signer=new_key()))
                    assert rule_of(guess) == "credentials_refused"
            await alarms.settled()
    (message,) = receiver.took
    assert message["title"] == "3 credentials were refused" and "127.0.0.1: 3" in message["message"]


async def test_a_replay_and_a_flood_are_told_with_whose_they_are(tmp_path: Path) -> None:
    scene = ApiScene(tmp_path, ApiFile(limits=Limits(per_minute=1, burst=3)))
    async with receiving() as receiver:
        channels(scene.home / "config", {"name": "chat", "url": receiver.url("takes")})
        alarms, headers = alarmed(scene), scene.acting("bob")
        async with scene.http() as api:
            answers = [
                rule_of(
                    await api.post("/trigger", json={"cluster_id": "gone", "reason": "x"}, headers=headers)
                )
                for _ in range(5)
            ]
        await alarms.settled()
    assert answers == ["cluster_unknown", *["request_replayed"] * 2, *["rate_limited"] * 2]
    told = {message["title"]: message["message"] for message in receiver.took}
    assert told.keys() == {"1 requests were sent a second time", "2 requests were refused as too many"}
    assert "bob: 1" in told["1 requests were sent a second time"]


class Held:
    """A notifier that comes back when it is let."""

    def __init__(self) -> None:
        self.asked, self.go_on = asyncio.Event(), asyncio.Event()

    async def send(self, notification: Notification) -> Told:
        self.asked.set()
        await self.go_on.wait()
        return Told()


class Broken:
    async def send(self, notification: Notification) -> Told:
        raise RuntimeError("broken")


async def test_a_channel_that_hangs_or_breaks_holds_no_request_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    scene, held = ApiScene(tmp_path), Held()
    for notifier in (held, Broken()):
        alarms = Alarms(notifier, AlarmLimits(refused_credentials=1))
        scene.parts = dataclasses.replace(scene.parts, alarms=alarms)
        async with scene.http() as api:
            guess = await api.get("/clusters", headers={"Authorization": "Bearer qnwis_none_none"})
            assert rule_of(guess) == "credentials_refused"
            assert (await api.get("/clusters", headers=scene.signed_in("ann"))).status_code == 200
        if notifier is held:
            await held.asked.wait()
            held.go_on.set()
        await alarms.settled()
    assert "nobody was told: 1 credentials were refused" in caplog.text
