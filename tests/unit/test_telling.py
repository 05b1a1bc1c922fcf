"""Telling people through apprise, over real HTTP on loopback: delivered, refused, hanging, and once each."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from qnwis.cli.qnwis_continuity import app
from qnwis.config.notifications import FILE
from qnwis.continuity.notifications import Notification, RunEvent, Told
from qnwis.providers.apprise_send import apprise_send
from qnwis.providers.notifier import ChannelNotifier, Send
from qnwis.providers.sent import SentStore
from tests.receiver import HANGS_S, SECRET, Receiver, channels, impatient, receiving

NOBODY = f"json://ann:{SECRET}@127.0.0.1:9/{SECRET}"


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as made:
        yield made


def notifier(folder: Path, deliver: Send = impatient, *, longest_s: float = 60) -> ChannelNotifier:
    """As a new worker on the same state directory has it."""
    store = SentStore(folder / "notifications.sqlite", longest=timedelta(seconds=longest_s))
    return ChannelNotifier(folder, store, deliver)


def notification(event: RunEvent = RunEvent.STARTED, **fields: str) -> Notification:
    known = {"cluster_id": "prod", "run_id": "run-1", "title": "failover of prod", "text": "by ann: because"}
    return Notification(**{**known, **fields}, event=event)


def said(told: Told) -> dict[str, str]:
    return {one.channel: "" if one.delivered else one.reason for one in told.deliveries}


async def test_a_message_arrives_with_its_title_text_and_kind(tmp_path: Path, receiver: Receiver) -> None:
    channels(tmp_path, {"name": "chat", "url": receiver.url("takes")})
    told = await notifier(tmp_path).send(notification(RunEvent.FAILED))
    assert said(told) == {"chat": ""}
    (message,) = receiver.took
    assert (message["title"], message["message"]) == ("failover of prod", "by ann: because")
    assert message["type"] == "failure"


@pytest.mark.parametrize("event", [*RunEvent])
async def test_every_event_that_there_is_arrives(tmp_path: Path, receiver: Receiver, event: RunEvent) -> None:
    channels(tmp_path, {"name": "chat", "url": receiver.url("takes")})
    assert said(await notifier(tmp_path).send(notification(event))) == {"chat": ""}


async def test_a_channel_that_refuses_or_hangs_holds_up_no_other(tmp_path: Path, receiver: Receiver) -> None:
    channels(
        tmp_path,
        *({"name": manner, "url": receiver.url(manner)} for manner in ("hangs", "refuses", "takes")),
        {"name": "nobody", "url": NOBODY},
        {"name": "unknown", "url": f"nosuch://{SECRET}"},
        {"name": "unset", "url_env": "QNWIS_TEST_UNSET"},
        {"name": "gone", "url_file": "gone.url"},
    )
    told = said(await notifier(tmp_path).send(notification()))
    assert receiver.held.is_set() and len(receiver.took) == 1
    assert told["takes"] == ""
    assert told["hangs"] == f"no answer within {HANGS_S:g} s; it may still arrive"
    assert "error=403" in told["refuses"]
    assert "Connection error" in told["nobody"]
    assert "no apprise URL" in told["unknown"]
    assert "url_env" in told["unset"]
    assert "No such file" in told["gone"]


async def test_no_log_line_and_no_reason_holds_a_part_of_an_address(
    tmp_path: Path, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    for library in ("apprise", "urllib3", "urllib3.connectionpool"):
        caplog.set_level(logging.NOTSET, library)
    urls = [
        *map(receiver.url, ("takes", "refuses", "hangs")),
        NOBODY,
        f"nosuch://{SECRET}",
        f"json://{SECRET}:x",
    ]
    channels(tmp_path, *({"name": f"c{number}", "url": url} for number, url in enumerate(urls)))
    told = await notifier(tmp_path).send(notification())
    assert [one.delivered for one in told.deliveries] == [True, *[False] * 5]
    assert "failover of prod: by ann: because" in caplog.text, "the log always tells"
    assert SECRET not in caplog.text and SECRET not in told.model_dump_json()
    assert not [record for record in caplog.records if record.name.split(".")[0] in ("apprise", "urllib3")]


async def test_an_event_of_a_run_is_sent_once_whatever_asks_again(tmp_path: Path, receiver: Receiver) -> None:
    channels(tmp_path, {"name": "chat", "url": receiver.url("takes")})
    for _ in range(2):  # another worker, too
        assert said(await notifier(tmp_path).send(notification())) == {"chat": ""}
    assert len(receiver.took) == 1
    pending = partial(notification, RunEvent.APPROVAL_PENDING)
    for other in (pending(about="sha256:1"), pending(about="sha256:2"), notification(run_id="run-2")):
        await notifier(tmp_path).send(other)
    assert len(receiver.took) == 4


async def test_two_attempts_at_once_send_once(tmp_path: Path, receiver: Receiver) -> None:
    channels(tmp_path, {"name": "chat", "url": receiver.url("hangs")})
    patient = partial(apprise_send, timeout_s=60)
    first = asyncio.create_task(notifier(tmp_path, patient).send(notification()))
    await receiver.held.wait()
    second = await notifier(tmp_path).send(notification())
    assert "another attempt is sending it" in said(second)["chat"]
    receiver.go_on.set()
    assert said(await first) == {"chat": ""} and len(receiver.took) == 1


async def test_what_a_dying_worker_began_is_sent_by_the_next(tmp_path: Path, receiver: Receiver) -> None:
    channels(tmp_path, {"name": "chat", "url": receiver.url("takes")})

    async def dies(url: str, notification: Notification) -> None:
        raise SystemError("the worker is killed here")

    with pytest.raises(SystemError):
        await notifier(tmp_path, dies).send(notification())
    assert said(await notifier(tmp_path, longest_s=0).send(notification())) == {"chat": ""}


async def test_what_failed_is_sent_when_it_is_asked_again(tmp_path: Path, receiver: Receiver) -> None:
    channels(tmp_path, {"name": "chat", "url": receiver.url("refuses")})
    assert said(await notifier(tmp_path).send(notification()))["chat"] != ""
    channels(tmp_path, {"name": "chat", "url": receiver.url("takes")})
    assert said(await notifier(tmp_path).send(notification())) == {"chat": ""}


async def test_an_edit_counts_at_once_and_a_broken_file_is_told(tmp_path: Path, receiver: Receiver) -> None:
    worker = notifier(tmp_path)
    assert said(await worker.send(notification())) == {}, "there is no file"
    (tmp_path / "chat.url").write_text(receiver.url("takes") + "\n")
    channels(tmp_path, {"name": "chat", "url_file": "chat.url", "events": ["done"]})
    assert said(await worker.send(notification())) == {}
    assert said(await worker.send(notification(RunEvent.DONE))) == {"chat": ""}
    (tmp_path / FILE).write_text(f"channels:\n- name: chat\n  url: {SECRET}\n")
    told = said(await worker.send(notification()))
    assert f"{tmp_path / FILE}:3" in told[FILE] and SECRET not in told[FILE]


async def test_a_store_that_fails_keeps_no_message_from_people(tmp_path: Path, receiver: Receiver) -> None:
    (tmp_path / "notifications.sqlite").mkdir()
    channels(tmp_path, {"name": "chat", "url": receiver.url("takes")})
    assert said(await notifier(tmp_path).send(notification())) == {"chat": ""}


def type_(folder: Path, *arguments: str) -> Result:
    command = ["notify", "test", "--config-dir", str(folder), *arguments]
    return CliRunner().invoke(app, command, env={"COLUMNS": "300", "NO_COLOR": "1"})


async def test_a_test_message_says_how_each_channel_went(tmp_path: Path, receiver: Receiver) -> None:
    manners = ("takes", "refuses")
    channels(tmp_path, *({"name": m, "url": receiver.url(m), "events": ["failed"]} for m in manners))
    done = await asyncio.to_thread(type_, tmp_path)
    assert done.exit_code == 1
    assert "takes: delivered" in done.output and "refuses: failed: " in done.output
    one = await asyncio.to_thread(type_, tmp_path, "--channel", "takes", "--json")
    assert one.exit_code == 0 and said(Told.model_validate_json(one.stdout)) == {"takes": ""}
    assert len(receiver.took) == 2 and SECRET not in done.output


def test_a_test_of_no_channel_or_an_unknown_one_is_wrong_usage(tmp_path: Path) -> None:
    assert type_(tmp_path).exit_code == 2
    channels(tmp_path, {"name": "chat", "url": NOBODY})
    done = type_(tmp_path, "--channel", "pager")
    assert done.exit_code == 2 and "one of the channels there: chat" in done.output
