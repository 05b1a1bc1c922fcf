"""What must hold: pure."""

from __future__ import annotations

from collections.abc import Sequence

from qnwis.continuity.model import Model
from qnwis.continuity.run import RunOutcome
from tests.bench.verdict import Verdict, verdict

from .figures import Figures
from .world import MANY, MOST_IN_MANY, WAVE

HELD_CLUSTERS = 1000
TIMES_A_WAVE = 3.0


class Goal(Model):
    text: str
    found: str
    verdict: Verdict


def goals(every: Sequence[Figures]) -> list[Goal]:
    return [_deadlines(every), _histories(every), _region(every)]


def _deadlines(every: Sequence[Figures]) -> Goal:
    text = f"{HELD_CLUSTERS:,} clusters held with no missed deadline"
    largest = next((one for one in every if one.clusters >= HELD_CLUSTERS), None)
    if largest is None:
        return Goal(text=text, found="–", verdict=verdict(None))
    if largest.ready < largest.clusters or largest.steady is None:
        found = largest.problem or f"{largest.ready} of {largest.clusters} guardians saw every node"
        return Goal(text=text, found=found, verdict=verdict(False))
    counts, failed = largest.steady.counts, sum(largest.steady.errors.values())
    unheard = counts.nodes - counts.heard
    found = f"{counts.late} late, {failed} failed, {unheard} nodes not asked"
    return Goal(text=text, found=found, verdict=verdict(counts.late == failed == unheard == 0))


def _histories(every: Sequence[Figures]) -> Goal:
    text = "no history grows while nothing happens"
    measured = [one for one in every if one.steady is not None]
    if not measured:
        return Goal(text=text, found="–", verdict=verdict(None))
    events = {one.clusters: one.steady.events for one in measured if one.steady is not None}
    found = ", ".join(f"{n} of {clusters:,}" for clusters, n in events.items())
    return Goal(text=text, found=f"events: {found} clusters", verdict=verdict(not any(events.values())))


def _region(every: Sequence[Figures]) -> Goal:
    """Of the largest number of clusters with which it was tried; with fewer the region is smaller."""
    text = f"a region of {MOST_IN_MANY} clusters is left within {TIMES_A_WAVE:g} times what one wave takes"
    tried = [
        one
        for one in every
        if any(left.region == MANY and left.clusters == MOST_IN_MANY for left in one.evacuations)
    ]
    if not tried:
        return Goal(text=text, found="–", verdict=verdict(None))
    last = tried[-1]
    wave, many = last.took_s(WAVE), last.took_s(MANY)
    if wave is None or many is None:
        return Goal(text=text, found="not every cluster left", verdict=verdict(False))
    found = f"{many:.1f} s, one wave in {wave:.1f} s: {many / wave:.1f} times (beside {last.clusters:,} held)"
    return Goal(text=text, found=found, verdict=verdict(many <= TIMES_A_WAVE * wave))


def failures(every: Sequence[Figures]) -> list[str]:
    """Why the bench fails: a goal missed, something that could not be measured, or a run that came to no
    good end."""
    said = [f"missed: {goal.text} ({goal.found})" for goal in goals(every) if goal.verdict is Verdict.MISSED]
    said += [f"{one.clusters} clusters: {one.problem}" for one in every if one.problem is not None]
    for one in every:
        bad = [s for s in one.starts if s.outcome != RunOutcome.COMPLETED.value]
        if bad:
            ends = ", ".join(sorted({str(s.outcome or "none in time") for s in bad}))
            said.append(f"{one.clusters} clusters: {len(bad)} of {len(one.starts)} runs ended as {ends}")
        said += [
            f"{one.clusters} clusters: {left.moved} of {left.clusters} left region {left.region}:"
            f" {left.outcome}, {left.reason}"
            for left in one.evacuations
            if left.moved < left.clusters
        ]
    return said
