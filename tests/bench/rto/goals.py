"""What this project must keep to, beside others measured in the same run: pure."""

from __future__ import annotations

from collections.abc import Sequence

from qnwis.continuity.model import Model
from tests.bench.verdict import Verdict, verdict

from .figures import Event, Summary
from .names import AUTO_FAILOVER, OURS, PATRONI, REPMGR
from .settings import EQUAL, FASTEST

FENCED = (PATRONI, AUTO_FAILOVER)
"""Of the others, those that see to it that the old primary takes no more writes."""
OF_A_FENCED_PEER, OF_PATRONI = 0.25, 0.4
ABOVE_REPMGR_MS = 500.0


class Goal(Model):
    """A goal and how it went. Medians, in milliseconds."""

    text: str
    ours_ms: float | None
    at_most_ms: float | None
    against: str
    """Whose median bounds it."""
    ratio: float | None
    """Ours to theirs."""
    verdict: Verdict


def goals(summaries: Sequence[Summary]) -> list[Goal]:
    medians = {(s.system, s.setting, s.event): s.median_ms for s in summaries}

    def best(event: Event, systems: Sequence[str], setting: str) -> tuple[str, float] | None:
        found = [(medians.get((system, setting, event)), system) for system in systems]
        known = [(median, system) for median, system in found if median is not None]
        return (min(known)[1], min(known)[0]) if known else None

    def goal(
        text: str,
        event: Event,
        setting: str,
        systems: Sequence[str],
        *,
        factor: float = 1.0,
        plus_ms: float = 0.0,
    ) -> Goal:
        # A system of this run that never brought writes back bounds nothing.
        ours, peer = medians.get((OURS, setting, event)), best(event, systems, setting)
        asked = (OURS, setting, event) in medians and peer is not None
        at_most = None if peer is None else factor * peer[1] + plus_ms
        held = None if not asked or at_most is None else ours is not None and ours <= at_most
        return Goal(
            text=text,
            ours_ms=ours,
            at_most_ms=at_most,
            against="" if peer is None else f"{peer[0]}, {peer[1]:.0f} ms",
            ratio=None if ours is None or peer is None else ours / peer[1],
            verdict=verdict(held),
        )

    return [
        goal(
            "killed node, fastest settings: at most a quarter of the best fenced peer",
            Event.KILLED,
            FASTEST,
            FENCED,
            factor=OF_A_FENCED_PEER,
        ),
        goal(
            "killed node, equal detection (1 s, 3 misses): at most repmgr, which does not fence, plus 0.5 s",
            Event.KILLED,
            EQUAL,
            (REPMGR,),
            plus_ms=ABOVE_REPMGR_MS,
        ),
        goal(
            "crashed database under a living agent, fastest settings: at most 0.4 of Patroni",
            Event.CRASHED,
            FASTEST,
            (PATRONI,),
            factor=OF_PATRONI,
        ),
        goal(
            "switchover, fastest settings: at most a quarter of the best peer",
            Event.SWITCHOVER,
            FASTEST,
            (*FENCED, REPMGR),
            factor=OF_A_FENCED_PEER,
        ),
    ]


def failures(summaries: Sequence[Summary]) -> list[str]:
    """Why the run fails: a goal missed, an acknowledged write that this project lost, or a round without a
    figure of it."""
    ours = [s for s in summaries if s.system == OURS]
    said = [f"missed: {goal.text}" for goal in goals(summaries) if goal.verdict is Verdict.MISSED]
    said += [
        f"{s.system}, {s.setting}, {s.event}: {s.lost} acknowledged writes lost" for s in ours if s.lost > 0
    ]
    said += [
        f"{s.system}, {s.setting}, {s.event}: {s.of - s.measured} of {s.of} without a figure"
        for s in ours
        if s.measured < s.of
    ]
    return said
