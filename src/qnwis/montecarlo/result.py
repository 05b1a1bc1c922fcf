"""What `simulate --runs` answers: figures, what each setting buys, and a comparison on the same failures."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np

from qnwis.continuity.model import Model

from .bought import Bought, bought, in_words, moves
from .figures import Distribution, Figures, rounded
from .study import Outcomes, Played, Settings, play

ASSUMPTIONS = (
    "every effect on a node that is alive succeeds, and a standby is there to take over",
    "failures of the primary are independent of each other, and come at any time alike (Poisson)",
    "a client's outage begins with the failure",
    "of a silence that ends by itself, a failover is false; questions that are lost alone begin none, because"
    " the agent's answer or what a standby hears contradicts them",
)


class Comparison(Model):
    """Other settings, on the same failures."""

    name: str
    """Of the other settings: the files that they come from."""
    cluster_id: str
    policy_id: str
    figures: Figures
    rto_shorter_percent: float
    """Of the failures, those of which the other settings' RTO is shorter."""
    rto_difference_s: Distribution
    """Theirs minus the first one's, failure by failure; below zero it is shorter."""
    words: str


class StudyResult(Model):
    cluster_id: str
    policy_id: str
    world: str
    seed: int
    runs: int
    years: float
    """In which so many failures happen."""
    figures: Figures
    settings: tuple[Bought, ...]
    comparison: Comparison | None = None
    assumptions: tuple[str, ...] = ASSUMPTIONS
    sources: dict[str, str]
    """Of the world's figures."""


@dataclass(frozen=True)
class Other:
    """Settings to compare with."""

    name: str
    settings: Settings


@dataclass(frozen=True)
class Study:
    """The answer, and what pictures are drawn from."""

    result: StudyResult
    outcomes: Outcomes
    other: Outcomes | None


def study(
    settings: Settings, runs: int, seed: int, other: Other | None = None, *, processes: int = 1
) -> Study:
    """The same answer from any number of processes. Raises ValueError for settings that are `unplayable`."""
    steps = list(moves(settings))
    asked = [settings, *([] if other is None else [other.settings]), *(move.settings for move in steps)]
    first, *others = _each(asked, runs, seed, processes)
    second = None if other is None else others.pop(0)
    steps_bought = tuple(
        bought(move, first.figures, played.figures) for move, played in zip(steps, others, strict=True)
    )
    result = StudyResult(
        cluster_id=settings.cluster.cluster_id,
        policy_id=settings.policy.policy_id,
        world=settings.world.name,
        seed=seed,
        runs=runs,
        years=rounded(runs / sum(settings.world.faults.rates().values()), 1),
        figures=first.figures,
        settings=steps_bought,
        comparison=None
        if second is None or other is None
        else _compared(other, first.figures, first.outcomes, second.figures, second.outcomes),
        sources=settings.world.sources(),
    )
    return Study(result, first.outcomes, None if second is None else second.outcomes)


def _each(asked: Sequence[Settings], runs: int, seed: int, processes: int) -> list[Played]:
    if processes == 1:
        return [play(one, runs, seed) for one in asked]
    with ProcessPoolExecutor(processes) as pool:
        return list(pool.map(play, asked, [runs] * len(asked), [seed] * len(asked)))


def _compared(
    other: Other, first: Figures, first_outcomes: Outcomes, second: Figures, second_outcomes: Outcomes
) -> Comparison:
    difference_s = second_outcomes.rto_s - first_outcomes.rto_s
    return Comparison(
        name=other.name,
        cluster_id=other.settings.cluster.cluster_id,
        policy_id=other.settings.policy.policy_id,
        figures=second,
        rto_shorter_percent=rounded(100 * np.mean(difference_s < 0)),
        rto_difference_s=Distribution.of(difference_s),
        words=in_words(f"{other.name} instead, on the same failures", first, second),
    )
