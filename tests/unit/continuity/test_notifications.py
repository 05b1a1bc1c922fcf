"""Who is told what, what was sent already, and that no address gets out: the decisions and the file."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qnwis.config.notifications import FILE, load_channels
from qnwis.config.problem import ConfigError
from qnwis.config.shipped import shipped
from qnwis.continuity.notifications import (
    HIDDEN,
    Channel,
    Due,
    Notification,
    RunEvent,
    SendState,
    Sent,
    approval_text,
    due,
    without_secrets,
)

NOON = datetime(2025, 1, 11, 12, 0, tzinfo=UTC)
LONGEST = timedelta(seconds=5)
SECRETS = st.text("abcdefghijkXYZ0123456789-_.~+! ä", min_size=1, max_size=12).filter(str.strip)


def notification(event: RunEvent = RunEvent.STARTED, cluster_id: str = "prod") -> Notification:
    return Notification(cluster_id=cluster_id, run_id="run-1", event=event, title="title", text="text")


@pytest.mark.parametrize(
    ("state", "age_s", "answer"),
    [
        (None, 0, Due.SEND),
        (SendState.FAILED, 0, Due.SEND),
        (SendState.DELIVERED, 10**6, Due.DELIVERED_BEFORE),
        (SendState.BEGUN, 5, Due.ON_ITS_WAY),
        (SendState.BEGUN, 6, Due.SEND),  # interrupted: twice is better than never
    ],
)
def test_what_was_sent_is_not_due_again(state: SendState | None, age_s: int, answer: Due) -> None:
    known = None if state is None else Sent(state=state, at=NOON - timedelta(seconds=age_s))
    assert due(known, NOON, longest=LONGEST) is answer


def test_a_channel_hears_of_the_events_and_clusters_it_names_and_by_default_of_all() -> None:
    every = Channel(name="all", url_env="URL")
    some = Channel(name="some", url_env="URL", events=(RunEvent.FAILED,), clusters=("prod",))
    assert all(every.wants(notification(event)) for event in RunEvent)
    assert [event for event in RunEvent if some.wants(notification(event))] == [RunEvent.FAILED]
    assert not some.wants(notification(RunEvent.FAILED, cluster_id="other"))


@given(st.lists(SECRETS, min_size=1, max_size=4), st.booleans())
def test_no_part_of_an_address_is_left_in_a_text(secrets: list[str], quoted: bool) -> None:
    url = "https://" + "/".join(map(quote, secrets)) + "?token=" + quote(secrets[0])
    told = [quote(secret) if quoted else secret for secret in secrets]
    text = without_secrets(" | ".join(["refused by", *told]), url)
    after = text.removeprefix("refused by")
    for secret in secrets:
        assert re.search(rf"(?<!\w){re.escape(secret.strip())}(?!\w)", after.replace(HIDDEN, "")) is None


def test_a_reason_without_secrets_stays_readable() -> None:
    url = "jsons://ann:pa%20ss@hooks.example.com:8443/T0AAA/b?key=s3cr3t"
    said = "Failed to send to hooks.example.com as ann:pa ss,\nT0AAA/b s3cr3t: Forbidden, error=403."
    assert (
        without_secrets(said, url)
        == "Failed to send to *** as ***:*** ***, ***/*** ***: Forbidden, error=403."
    )


def test_who_may_approve_reads_what_to_type_for_which_plan_and_until_when() -> None:
    text = approval_text(
        command="region approve region-1",
        digest="sha256:ab",
        left_s=600,
        until=NOON,
        needs="1 of continuity_admin",
    )
    assert "qnwis-continuity region approve region-1" in text
    assert "600 s, until 2025-01-11 12:00:00 UTC" in text
    assert "sha256:ab" in text and "1 of continuity_admin" in text


def test_the_shipped_file_has_no_channel_and_none_is_needed(tmp_path: Path) -> None:
    assert load_channels(shipped("config") / "continuity" / FILE).channels == ()
    assert load_channels(tmp_path / FILE).channels == ()


def test_a_channel_is_loaded_and_its_address_is_not_printed(tmp_path: Path) -> None:
    file = tmp_path / FILE
    file.write_text("channels:\n  - {name: a, url: 'json://hunter2', events: [done]}\n")
    (channel,) = load_channels(file).channels
    assert channel.events == (RunEvent.DONE,) and channel.url is not None
    assert channel.url.get_secret_value() == "json://hunter2"
    assert "hunter2" not in f"{channel!r} {channel} {channel.model_dump_json()}"


@pytest.mark.parametrize(
    ("text", "line", "field", "expected"),
    [
        ("- {name: a, url: hunter2}", 2, "channels[0].url", "an apprise URL"),
        ("- {name: a, ulr: 'json://hunter2'}", 2, "channels[0]", "the field `url`"),
        ("- {name: a, 'json://hunter2': 1, url_env: A}", 2, "channels[0]", "one of the fields name, url"),
        ("- {name: 'json://hunter2', url_env: A}", 2, "channels[0].name", "text that matches"),
        ("- {name: a, url: 'json://hunter2', url_env: A}", 2, "channels[0]", "exactly one of url, url_env"),
        ("- {name: a}", 2, "channels[0]", "exactly one of url, url_env"),
        ("- {name: a, url_env: A, events: [begun]}", 2, "channels[0].events[0]", "'started'"),
        ("- {name: a, url: ['json://hunter2']}", 2, "channels[0].url", "valid string"),
        ("- {name: a, url: *hunter2 }", 2, "", "valid YAML"),
        ("- {name: a, url: 'json://hunter2'\n  - b", 3, "", "valid YAML"),
        ("- {name: a, url_env: A}\n  - {name: a, url_env: B}", 2, "channels", "a name of their own"),
    ],
)
def test_a_problem_names_the_line_and_the_field_and_shows_no_secret(
    tmp_path: Path, text: str, line: int, field: str, expected: str
) -> None:
    file = tmp_path / FILE
    file.write_text(f"channels:\n  {text}\n")
    with pytest.raises(ConfigError) as caught:
        load_channels(file)
    problem = caught.value.problems[0]
    assert problem.field == field and expected in problem.expected, problem
    assert problem.line == line
    assert "hunter2" not in str(caught.value) and str(file) in str(problem)
    assert caught.value.__cause__ is None and caught.value.__context__ is None
