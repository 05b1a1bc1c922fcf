"""Lines of the log: JSON for programs, words for people, and each says where it belongs to."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from qnwis.logs import handler, log
from qnwis.whereabouts import standing_at, whereabouts


@contextmanager
def some_logger() -> Iterator[logging.Logger]:
    """A module's, which writes on stderr as processes do."""
    some, writing = logging.getLogger("qnwis.some"), handler()
    some.addHandler(writing)
    some.setLevel(logging.INFO)
    try:
        yield some
    finally:
        some.removeHandler(writing)


def test_modules_and_agents_write_an_event_a_line_that_names_run_cluster_and_step(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with some_logger() as some:
        with standing_at(run_id="r-1", cluster_id="c", step="execution"):
            some.warning("two\nlines of %s", "text")
            log("order_done", kind="promote")
        log("agent_stopped")
    text, event, outside = map(json.loads, capsys.readouterr().err.splitlines())
    where = {"run_id": "r-1", "cluster_id": "c", "step": "execution"}
    assert where.items() <= text.items() and where.items() <= event.items()
    assert (text["level"], text["logger"]) == ("warning", "qnwis.some")
    assert text["message"] == "two\nlines of text"
    assert (event["event"], event["kind"]) == ("order_done", "promote")
    assert outside.keys() == {"at", "level", "event"}


def test_an_exception_is_in_the_line_of_whoever_tells_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    with some_logger() as some:
        try:
            raise ValueError("why")
        except ValueError:
            some.exception("it failed")
    (line,) = map(json.loads, capsys.readouterr().err.splitlines())
    assert line["message"] == "it failed" and line["exception"].endswith("ValueError: why")


def test_on_a_terminal_words_come_first(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with some_logger() as some, standing_at(run_id="r-1"):
        some.info("worker polls %s", "a queue")
        log("lease_held", epoch=3)
    text, event = capsys.readouterr().err.splitlines()
    assert text.endswith("INFO    worker polls a queue  [run_id=r-1 logger=qnwis.some]")
    assert event.endswith("INFO    lease_held  [run_id=r-1 epoch=3]")


async def test_tasks_stand_where_they_were_made_and_others_where_they_were() -> None:
    inside = asyncio.Event()

    async def standing() -> dict[str, str]:
        await inside.wait()
        return dict(whereabouts())

    outside = asyncio.create_task(standing())
    with standing_at(run_id="r-1", step="detection"), standing_at(step="execution", run_id=None):
        made_there = asyncio.create_task(standing())
        inside.set()
    assert await made_there == {"step": "execution"}
    assert await outside == {} == dict(whereabouts())
