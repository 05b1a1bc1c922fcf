"""The report as a page: nobody's text is markup, nothing comes from elsewhere, each bar is in the picture."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qnwis.continuity.report_text import document_of
from qnwis.continuity.report_timeline import Bar
from qnwis.report_page.page import WIDTH, draw, html
from tests.unit.continuity.reports import failover, reported, step
from tests.unit.continuity.test_report import HOSTILE

LENGTHS = st.none() | st.floats(min_value=0, max_value=1e9)
QUOTES = """x" onload="alert(1)' </title></style></svg><svg onload=alert(1)>{{ 7 * 7 }}<!--"""


class Tags(HTMLParser):
    """Every tag with its attributes' names, in their order, and the text between."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, tuple[str, ...]]] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, tuple(name for name, _ in attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("hostile", [HOSTILE, QUOTES])
def test_no_text_of_a_run_is_markup_in_the_page(hostile: str) -> None:
    def page(text: str) -> Tags:
        steps = (step("detection", 100.0, title=text, note=text), step("execution", 250.0))
        return Tags(
            html(document_of(reported(failover(reason=text, person=text, steps=steps, notes=(text,)))))
        )

    honest, attacked = page("what somebody wrote"), page(hostile)
    assert attacked.tags == honest.tags and "script" not in {tag for tag, _ in attacked.tags}
    assert "\u202e" not in attacked.text and "\x1b" not in attacked.text and "alert(1)" in attacked.text


def test_the_page_needs_nothing_from_elsewhere_and_no_script() -> None:
    page = html(document_of(reported(failover())))
    assert "default-src 'none'" in page
    assert not re.findall(r"\b(?:src|href)=|url\(|@import|<script|<link", page)


def test_the_page_has_what_the_record_has_and_a_bar_for_each_step() -> None:
    report = reported(failover())
    page = Tags(html(document_of(report)))
    for said in ("10.0.1.11", "node-1 missed 3 beats", "3000 ms", report.proof.record_hash, "12:00:03 UTC"):
        assert said in page.text, said
    assert sum(tag == "svg" and "aria-label" in names for tag, names in page.tags) == len(report.timeline)


@given(
    st.lists(st.builds(lambda *a: a, st.floats(min_value=0, max_value=1e9), LENGTHS, LENGTHS), max_size=20)
)
def test_every_bar_lies_in_the_picture(rows: list[tuple[float, float | None, float | None]]) -> None:
    timeline = [
        Bar(name="n", title="t", action=False, became="done", from_ms=at, actual_ms=took, expected_ms=planned)
        for at, took, planned in rows
    ]
    for drawn, bar in zip(draw(timeline), timeline, strict=False):
        assert drawn.x >= 0 and drawn.x + max(drawn.actual, drawn.expected) <= WIDTH + 0.1
        assert (drawn.actual > 0) == bool(bar.actual_ms), "what took a time can be seen"
        assert drawn.over == bool(bar.expected_ms and (bar.actual_ms or 0) > bar.expected_ms)
