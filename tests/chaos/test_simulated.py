"""Every story and many composed ones in simulated time; and the mistakes that the checker must find there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from qnwis.continuity import leases, planner, promotion, targets
from qnwis.continuity.leases import Grantor

from .compose import compose, seed_and_index, slug_of
from .report import row
from .simulated.play import play
from .simulated.playing import play_composed, play_index, play_stories
from .simulated.world import Mistakes
from .story import Part, Story, all_stories, load_story, story_text

STORIES = all_stories()
SEED, COMPOSED = 1, 500
CARELESS = 200
WITHIN = 2000
"""Composed stories among which each mistake must show."""


def test_at_least_thirty_stories_are_told() -> None:
    assert len(STORIES) >= 30


@pytest.mark.parametrize("slug", STORIES)
def test_a_story_holds_in_simulated_time(slug: str) -> None:
    """Three times, with other delays, drifts and moments."""
    for seed in range(3):
        for result in play_stories({slug: STORIES[slug]}, seed=seed):
            assert result.ok, f"seed {seed}\n{row(result)}"


def test_composed_stories_violate_nothing() -> None:
    for tally in play_composed(SEED, COMPOSED):
        assert not tally.violated, "\n".join(map(row, tally.violated))


def test_some_composed_stories_end_well_and_others_must_refuse() -> None:
    outcomes = {play_index(SEED, index).outcome.partition(" (")[0] for index in range(150)}
    assert {"none", "completed", "refused: no_quorum", "refused: primary_is_healthy"} <= outcomes


@pytest.mark.parametrize("index", range(5))
def test_the_same_seed_plays_the_same_story_the_same_way(index: int) -> None:
    story = compose(SEED, index)
    assert story == compose(SEED, index) != compose(SEED + 1, index)
    assert play(story, index) == play(story, index)
    assert seed_and_index(slug_of(SEED, index)) == (SEED, index)


def test_a_composed_story_can_be_written_down_and_played_from_its_file(tmp_path: Path) -> None:
    path = tmp_path / "story.yaml"
    for index in range(40):
        story = compose(SEED, index)
        path.write_text(story_text(story))
        assert load_story(path) == story


def test_no_composed_story_strikes_an_agent_and_its_guards_apart_from_their_machine() -> None:
    """What no promise covers: while both are frozen or gone, nothing ends the database at its lease's end."""
    for index in range(500):
        struck = [
            operation.what.party
            for operation in compose(SEED, index).operations
            if (operation.verb == "freeze" and operation.what.party.startswith(("node-", "witness-")))
            or (operation.verb == "kill" and operation.what.part in (Part.AGENT, Part.GUARD))
        ]  # fmt: skip
        assert len(struck) == len(set(struck)), (index, struck)


# --- Mistakes: each must be found, or checker and composed stories are worth nothing -----------------------


def first_violation(mistakes: Mistakes | None = None) -> tuple[int, set[str]]:
    """Index of the first composed story that violates an invariant, and which ones it violates."""
    for index in range(WITHIN):
        result = play_index(SEED, index, mistakes)
        if not result.ok:
            return index, {violation.invariant for violation in result.violations}
    pytest.fail(f"nothing was found within {WITHIN} stories")


def test_without_guards_a_frozen_agent_s_database_is_found_to_write_on() -> None:
    index, violated = first_violation(Mistakes(no_guard=True))
    assert "one_primary" in violated, index


def test_grants_without_a_wait_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing_left(state: Grantor, now_s: float) -> float:
        return 0.0

    monkeypatch.setattr(leases, "_remaining_s", nothing_left)
    index, violated = first_violation()
    assert violated & {"one_primary", "nothing_lost"}, index


def test_without_a_fence_the_writes_of_a_primary_that_was_only_unheard_are_lost() -> None:
    """The lease still keeps the target from writing, until the old primary dies with what only node-3 has."""
    unheard = {"between": ["node-1", ["control", "vantage-2", "vantage-3"]]}
    story = Story.model_validate(
        {
            "name": "No fence",
            "operations": [
                {"at_s": 2, "cut": unheard},
                {"at_s": 3, "execute": {"by": "anna"}},
                {"at_s": 5, "cut": {"between": ["node-1", "node-2"]}},
                {"at_s": 7, "kill": "node-1"},
            ],
            "ends_at_s": 18,
        }
    )
    (fenced,) = play_stories({"story": story}, seed=0)
    assert fenced.ok, row(fenced)
    (result,) = play_stories({"story": story}, seed=0, mistakes=Mistakes(no_fence=True))
    assert {violation.invariant for violation in result.violations} == {"nothing_lost"}


def test_a_run_that_neither_fences_nor_compares_makes_no_second_primary() -> None:
    """Safety rests on the agents alone: whatever mistake a run makes, a target waits for the old lease."""
    careless = Mistakes(no_fence=True, any_target=True)
    for index in range(CARELESS):
        violated = {violation.invariant for violation in play_index(SEED, index, careless).violations}
        assert "one_primary" not in violated, index


def test_a_promotion_of_a_lagging_standby_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def without(rule: Callable[..., object]) -> tuple[Callable[..., object], ...]:
        return tuple(other for other in targets.LIVE if other is not rule)

    monkeypatch.setattr(targets, "LIVE", without(targets._has_the_log))
    for module in (planner, promotion):
        monkeypatch.setattr(module, "coverage_refusal", lambda view: None)
    index, violated = first_violation(Mistakes(any_target=True))
    assert "nothing_lost" in violated, index


def test_a_target_that_is_not_compared_again_after_the_fence_loses_writes() -> None:
    story = {"story": STORIES["target-falls-behind-during-fencing"]}
    (result,) = play_stories(story, seed=0, mistakes=Mistakes(any_target=True))
    assert "nothing_lost" in {violation.invariant for violation in result.violations}
