"""Many stories in simulated time, over several processes."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial

from tests.chaos.compose import compose, slug_of
from tests.chaos.report import Result, judge
from tests.chaos.story import Story

from .play import play
from .world import Mistakes

AT_ONCE = 50


@dataclass
class Tally:
    """What many composed stories came to."""

    outcomes: Counter[str] = field(default_factory=Counter)
    violated: list[Result] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        self.outcomes += other.outcomes
        self.violated += other.violated


def play_stories(
    stories: Mapping[str, Story], *, seed: int, mistakes: Mistakes | None = None, processes: int = 1
) -> Iterator[Result]:
    """Play each story once, by its slug."""
    one = partial(_told, seed, mistakes)
    if processes == 1 or len(stories) == 1:
        yield from map(one, stories.items())
        return
    with _pool(processes) as pool:
        yield from pool.map(one, stories.items())


def play_composed(seed: int, runs: int, *, processes: int = 2) -> Iterator[Tally]:
    """Play the first `runs` stories of the seed; a tally of so many at a time."""
    chunks = [(seed, range(first, min(first + AT_ONCE, runs))) for first in range(0, runs, AT_ONCE)]
    with _pool(processes) as pool:
        yield from pool.map(_played, chunks)


def play_index(seed: int, index: int, mistakes: Mistakes | None = None) -> Result:
    """One composed story; the same each time."""
    story = compose(seed, index)
    return judge(slug_of(seed, index), story, *play(story, index, mistakes))


def _pool(processes: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(processes, initializer=_collect_by_hand)


def _collect_by_hand() -> None:
    """A played world is one tangle of cycles, collected when its story is over (`_played`): to look for it at
    every turn takes long, and so does a walk through all that was imported."""
    gc.disable()
    gc.freeze()


def _told(seed: int, mistakes: Mistakes | None, told: tuple[str, Story]) -> Result:
    slug, story = told
    return judge(slug, story, *play(story, seed, mistakes))


def _played(chunk: tuple[int, Sequence[int]]) -> Tally:
    seed, indices = chunk
    tally = Tally()
    for index in indices:
        result = play_index(seed, index)
        gc.collect(0)
        tally.outcomes[result.outcome.partition(" (run")[0]] += 1
        if not result.ok:
            tally.violated.append(result)
    return tally
