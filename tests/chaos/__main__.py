"""`python -m tests.chaos`: play the stories, judge them, and end with 0 only if nothing was violated.

On real processes, or with `--simulated` in milliseconds. Composed stories come besides those in
`tests/scenarios`; one is named by its seed and its index, and played again by that name.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from random import SystemRandom

from qnwis.config.problem import ConfigError
from qnwis.lab.errors import LabError

from .compose import compose, seed_and_index, slug_of
from .report import Result, header, row, summary
from .simulated.playing import Tally, play_composed, play_index, play_stories
from .story import Story, all_stories, story_text

USAGE, VIOLATED, CANNOT = 2, 1, 4


def main() -> int:
    options = _options()
    try:
        stories = _chosen(options.only, options.lasts)
    except (ConfigError, ValueError) as error:
        print(error, file=sys.stderr)
        return USAGE
    seed = options.seed if options.seed is not None else SystemRandom().randrange(1_000_000)
    if options.write is not None:
        _write(options.write, {**stories, **_composed(seed, options.runs)})
        return 0
    try:
        ok = _simulate(stories, seed, options) if options.simulated else _really_play(stories, seed, options)
    except LabError as error:
        print(error, file=sys.stderr)
        return CANNOT
    return 0 if ok else VIOLATED


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description="Play fault stories.")
    parser.add_argument("--simulated", action="store_true", help="in simulated time instead of on processes")
    parser.add_argument("--only", metavar="SLUG", help="one story; composed-SEED-INDEX for a composed one")
    parser.add_argument("--lasts", type=float, metavar="SECONDS", help="of the one story, instead of its own")
    parser.add_argument("--seed", type=int, help="of the composed stories; random by default, and printed")
    parser.add_argument("--runs", type=int, default=0, help="how many composed stories besides")
    parser.add_argument("--processes", type=int, default=2, help="stories that are played at once")
    parser.add_argument("--write", type=Path, metavar="FOLDER", help="write the stories there, play none")
    return parser.parse_args()


def _chosen(only: str | None, lasts_s: float | None) -> dict[str, Story]:
    """Raises ValueError for a slug that there is not, ConfigError for a file that is no story."""
    if only is None:
        return all_stories()
    if (named := seed_and_index(only)) is not None:
        return {only: _lasting(compose(*named), lasts_s)}
    stories = all_stories()
    if only not in stories:
        raise ValueError(f"no story {only!r}; expected one of {', '.join(stories)}, or composed-SEED-INDEX")
    return {only: _lasting(stories[only], lasts_s)}


def _lasting(story: Story, lasts_s: float | None) -> Story:
    return story if lasts_s is None else Story.model_validate({**story.model_dump(), "ends_at_s": lasts_s})


def _composed(seed: int, runs: int) -> dict[str, Story]:
    return {slug_of(seed, index): compose(seed, index) for index in range(runs)}


def _write(folder: Path, stories: dict[str, Story]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for slug, story in stories.items():
        (folder / f"{slug}.yaml").write_text(story_text(story))
    print(f"{len(stories)} stories are in {folder}")


def _really_play(stories: dict[str, Story], seed: int, options: argparse.Namespace) -> bool:
    from tests.chaos.real import play_stories as play_really

    if options.runs:
        print(f"{options.runs} composed stories, SEED={seed}")
    everything = {**stories, **_composed(seed, options.runs)}
    results = _shown(play_really(everything, at_once=options.processes))
    print(summary(results))
    return all(result.ok for result in results)


def _simulate(stories: dict[str, Story], seed: int, options: argparse.Namespace) -> bool:
    began_s = time.monotonic()
    named = seed_and_index(options.only or "")
    told = play_stories(stories, seed=seed, processes=options.processes)
    results = _shown(told if named is None else [play_index(*named)])
    print(summary(results))
    tally = Tally()
    if options.runs:
        print(f"{options.runs} composed stories, SEED={seed}", flush=True)
        for part in play_composed(seed, options.runs, processes=options.processes):
            tally.add(part)
            for result in part.violated:
                print(row(result), flush=True)
        for outcome, count in tally.outcomes.most_common():
            print(f"{count:8d}  {outcome}")
        print(f"{options.runs} composed stories, {len(tally.violated)} with violations")
    print(f"{time.monotonic() - began_s:.1f} s")
    return all(result.ok for result in results) and not tally.violated


def _shown(results: Iterable[Result]) -> list[Result]:
    print(header(), flush=True)
    kept = []
    for result in results:
        print(row(result), flush=True)
        kept.append(result)
    return kept


if __name__ == "__main__":
    sys.exit(main())
