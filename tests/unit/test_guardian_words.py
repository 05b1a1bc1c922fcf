"""What a guardian's view says in words."""

from __future__ import annotations

from datetime import UTC, datetime

from qnwis.continuity.detection import Finding, Verdict
from qnwis.continuity.guardian_rules import Pause
from qnwis.continuity.region_wait import Heard, RegionFinding, RegionWord
from workflows.guardian_state import GuardianView
from workflows.guardian_words import details, in_words

NOON = datetime(2026, 11, 28, 12, tzinfo=UTC)


def view(**seen: object) -> GuardianView:
    return GuardianView.model_validate(
        {
            "cluster_id": "c",
            "primary_node_id": "node-1",
            "verdicts": {},
            "statuses": {},
            "statements": {},
            "abstaining": {},
            "changed_at": NOON,
            "watching_since": NOON,
            "pause": None,
            "holding": None,
            "last_refused": None,
            "last_result": None,
            "history": (),
            **seen,
        }
    )


def heard(region: str, finding: RegionFinding) -> Heard:
    return Heard(word=RegionWord(region=region, finding=finding, why="4 failed nodes of 2 clusters"))


def test_a_suspected_partition_is_shown_with_what_contradicts_what() -> None:
    verdict = Verdict(
        node_id="node-1",
        finding=Finding.PARTITION_SUSPECTED,
        why="node-1 does not answer, but it is still heard by node-2",
    )
    seen = view(verdicts={"node-1": verdict}, abstaining={"vantage-2": "not heard from for 4 s"})
    assert list(in_words(seen)) == [
        "node-1: partition suspected (node-1 does not answer, but it is still heard by node-2)",
        "vantage-2 abstains: not heard from for 4 s",
    ]


def test_a_region_that_is_well_takes_no_line() -> None:
    regions = {"us": heard("us", RegionFinding.LOST), "eu": heard("eu", RegionFinding.WELL)}
    assert list(in_words(view(regions=regions))) == ["us is lost (4 failed nodes of 2 clusters)"]


def test_a_page_says_who_paused_it_why_nothing_is_done_and_which_signal_was_refused() -> None:
    pause = Pause(by="ann", reason="storage work", since=NOON)
    page = details(view(pause=pause, holding="[paused] …", last_refused="resume by eve refused: no token"))
    assert page.splitlines() == [
        "**Primary node-1**",
        "",
        "",
        "**Paused** by ann since 2026-11-28 12:00:00 UTC: storage work",
        "",
        "**Not acting**: [paused] …",
        "",
        "resume by eve refused: no token",
    ]
    assert details(view(primary_node_id=None)) == "**Primary unknown**\n"
