"""One study: so many failures of a primary, played under some settings in some world.

Same seed, same bytes: every number depends on the seed, its name and the block of failures that it is for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from random import Random

import numpy as np

from qnwis.continuity.access import ApprovalWorkflow
from qnwis.continuity.planner import make_plan
from qnwis.continuity.policy import Policy
from qnwis.continuity.refusal import Refusal
from qnwis.continuity.scenarios import at_rest, first_primary
from qnwis.continuity.topology import Cluster

from .acting import Acted, act
from .draws import Draws, Flags, Floats
from .figures import Availability, Distribution, Figures, rounded
from .losing import lost_s
from .watching import Chances, Silent, failed_at_s, shortest_failed_s
from .world import FaultKind, Silence, World
from .years import YEAR_S, downtime_by_year, held_for_s

BLOCK = 20_000
"""Failures that are computed at once; so much memory it takes."""
MOST_RUNS = 10_000_000
MOST_SILENCES = 20_000_000
AT = datetime(2000, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Settings:
    """What may differ between two studies of the same failures."""

    cluster: Cluster
    policy: Policy
    world: World
    approval: ApprovalWorkflow
    """For `strategy: manual`."""


@dataclass(frozen=True)
class Outcomes:
    """Failure by failure, in the order of time: what pictures and comparisons are made of."""

    detection_s: Floats
    rto_s: Floats
    rpo_s: Floats
    down_by_year_s: Floats


@dataclass(frozen=True)
class Played:
    figures: Figures
    outcomes: Outcomes


def candidates(settings: Settings) -> tuple[str, ...] | Refusal:
    """Who could take over when the primary's node is gone, by the real planner; or why nobody would."""
    cluster, policy = settings.cluster, settings.policy
    world = at_rest(cluster, policy, Random(0))
    world.lose({first_primary(cluster).node_id})
    planned = make_plan(cluster, policy, world.evidence(AT), trigger_reason="simulation")
    if planned.plan is None:
        assert planned.refusal is not None
        return planned.refusal
    eligible = [c for c in planned.candidates if c.eligible and c.rank is not None]
    return tuple(c.node_id for c in sorted(eligible, key=lambda c: c.rank or 0))


def unplayable(settings: Settings, runs: int) -> Refusal | None:
    """Why these settings are not played."""
    if settings.cluster.is_active_active:
        return Refusal(
            rule="one_primary_only",
            message=f"{settings.cluster.cluster_id} has several primaries; failures of one are played",
            values={"deployment": settings.cluster.deployment.value},
            remedy="Leave --runs out: the scenarios play active/active clusters.",
        )
    silences = sum(count for _, count in _silences(settings.world, runs))
    if silences > MOST_SILENCES:
        return Refusal(
            rule="too_many_silences",
            message=f"{runs} failures come in years that have {silences} silences; at most {MOST_SILENCES}"
            " are played",
            values={"runs": runs, "silences": silences, "most": MOST_SILENCES},
            remedy="Play fewer failures, or a world with more failures a year or fewer silences.",
        )
    found = candidates(settings)
    return found if isinstance(found, Refusal) else None


def play(settings: Settings, runs: int, seed: int) -> Played:
    """Play so many failures, and the silences of their years. Raises ValueError for what is `unplayable`."""
    standbys = candidates(settings)
    if isinstance(standbys, Refusal):
        raise ValueError(str(standbys))
    faults_at_s = _arrivals(settings.world, runs, seed)
    span_s = float(faults_at_s[-1])
    faults = [_faults(settings, block, seed, standbys) for block in _blocks("faults", runs)]
    acted = _joined([one.acted for one in faults])
    rpo_s = np.concatenate([one.rpo_s for one in faults])
    silences = [
        block
        for silence, count in _silences(settings.world, runs)
        for block in _of_kind(settings, silence, count, seed, span_s)
    ]
    return _told(settings, runs, faults_at_s, acted, rpo_s, silences)


# --- the failures -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Block:
    name: str
    count: int


@dataclass(frozen=True)
class _Faults:
    acted: Acted
    rpo_s: Floats


@dataclass(frozen=True)
class _Silences:
    """Those of one block that begin a failover, and the downtime of the others."""

    at_s: Floats
    acted_s: Floats
    done_s: Floats
    down_s: Floats
    """With a failover."""
    lasts_down_s: Floats
    """Without one."""
    others_at_s: Floats
    others_down_s: Floats


def _blocks(name: str, count: int) -> Iterator[_Block]:
    for number, begin in enumerate(range(0, count, BLOCK)):
        yield _Block(f"{name} {number}", min(BLOCK, count - begin))


def _arrivals(world: World, runs: int, seed: int) -> Floats:
    per_s = sum(world.faults.rates().values()) / YEAR_S
    gaps = [
        -np.log1p(-Draws(seed, block.name).uniform("gap", block.count)) / per_s
        for block in _blocks("faults", runs)
    ]
    return np.cumsum(np.concatenate(gaps))


def _faults(settings: Settings, block: _Block, seed: int, standbys: tuple[str, ...]) -> _Faults:
    draws, count = Draws(seed, block.name), block.count
    rates = settings.world.faults.rates()
    kinds = np.asarray([kind.value for kind in rates])[draws.choice("kind", list(rates.values()), count)]
    silent = Silent(
        lasts_s=np.full(count, np.inf),
        refused=kinds == FaultKind.KILLED.value,
        told=kinds == FaultKind.CRASHED_DATABASE.value,
    )
    acted = _watched(settings, silent, np.zeros(count, dtype=np.bool_), draws)
    rpo_s = lost_s(settings.cluster, settings.policy, settings.world, standbys, draws, count)
    return _Faults(acted, rpo_s)


def _silences(world: World, runs: int) -> list[tuple[Silence, int]]:
    """How often each kind happens in the years of so many failures."""
    years = runs / sum(world.faults.rates().values())
    return [(silence, round(silence.per_year * years)) for silence in world.silences]


def _of_kind(settings: Settings, kind: Silence, count: int, seed: int, span_s: float) -> Iterator[_Silences]:
    """The longest first, under whatever settings: only the first blocks can be taken for a failure."""
    blocks = list(_blocks(f"silence {kind.name}", count))
    drawn = [Draws(seed, block.name).spread("lasts", kind.lasts_s, block.count) for block in blocks]
    longest_first = np.sort(np.concatenate([np.zeros(0), *drawn]))[::-1]
    heartbeat = settings.cluster.heartbeat
    shortest_s = shortest_failed_s(heartbeat, settings.world.network.miss_chance(heartbeat.timeout_sec))
    for number, block in enumerate(blocks):
        lasts_s = longest_first[number * BLOCK : number * BLOCK + block.count]
        yield _silence(settings, kind, block, seed, span_s, lasts_s, watched=lasts_s[0] >= shortest_s)


def _silence(
    settings: Settings,
    kind: Silence,
    block: _Block,
    seed: int,
    span_s: float,
    lasts_s: Floats,
    *,
    watched: bool,
) -> _Silences:
    draws, count = Draws(seed, block.name), block.count
    at_s = draws.uniform("at", count) * span_s
    lease = settings.world.lease
    renewed_ago_s = draws.uniform("renewed", count) * lease.renew_every_s
    back_s = draws.spread("back", lease.back_s, count)
    if kind.standbys_hear_it:
        down_s = np.zeros(count)
    else:
        down_s = lasts_s + np.where(lasts_s > lease.duration_s - renewed_ago_s, back_s, 0.0)
    # Whom a standby hears is never acted on.
    if not watched or kind.standbys_hear_it:
        nothing = np.zeros(0)
        return _Silences(nothing, nothing, nothing, nothing, nothing, at_s, down_s)
    never = np.zeros(count, dtype=np.bool_)
    acted = _watched(settings, Silent(lasts_s, refused=never, told=never), never, draws)
    moved = acted.moved
    return _Silences(
        at_s=at_s[moved],
        acted_s=acted.acted_s[moved],
        done_s=acted.done_s[moved],
        down_s=acted.clients_s[moved],
        lasts_down_s=down_s[moved],
        others_at_s=at_s[~moved],
        others_down_s=down_s[~moved],
    )


def _watched(settings: Settings, silent: Silent, heard: Flags, draws: Draws) -> Acted:
    cluster, world = settings.cluster, settings.world
    chances = Chances.draw(
        draws,
        cluster.heartbeat,
        len(silent),
        len(cluster.vantages),
        world.network.miss_chance(cluster.heartbeat.timeout_sec),
    )
    failed_s = failed_at_s(cluster.heartbeat, silent, chances)
    return act(cluster, settings.policy, world, silent, failed_s, heard, settings.approval, draws)


# --- what they come to ------------------------------------------------------------------------------------


def _told(
    settings: Settings, runs: int, at_s: Floats, acted: Acted, rpo_s: Floats, silences: list[_Silences]
) -> Played:
    false = _all(silences, ("at_s", "acted_s", "done_s", "down_s", "lasts_down_s"))
    # Failures and false failovers in the order of time: each holds back those that come soon after it.
    all_at_s = np.concatenate([at_s, false["at_s"]])
    order = np.argsort(all_at_s, kind="stable")
    held = held_for_s(
        settings.policy,
        all_at_s[order],
        np.concatenate([acted.acted_s, false["acted_s"]])[order],
        np.concatenate([acted.done_s, false["done_s"]])[order],
    )
    rto_s, false_down_s = acted.clients_s.copy(), false["down_s"].copy()
    prevented = 0
    for place, waits_s in held.items():
        index = int(order[place])
        if index < runs:
            rto_s[index] += waits_s
        else:
            # What was held back until the silence was over has not happened.
            false_down_s[index - runs] = false["lasts_down_s"][index - runs]
            prevented += 1
    years = max(1, int(at_s[-1] / YEAR_S))
    others = _all(silences, ("others_at_s", "others_down_s"))
    down_s = downtime_by_year(
        years,
        np.concatenate([all_at_s, others["others_at_s"]]),
        np.concatenate([rto_s, false_down_s, others["others_down_s"]]),
    )
    figures = Figures(
        detection_s=Distribution.of(acted.detected_s),
        rto_s=Distribution.of(rto_s),
        run_s=Distribution.of(acted.run_s),
        overrun_percent=rounded(100 * np.mean(acted.run_s > settings.policy.max_failover_time_s)),
        rpo_s=Distribution.of(rpo_s),
        availability_percent=Availability.of(down_s, YEAR_S),
        downtime_s_per_year=rounded(np.mean(down_s)),
        false_failovers_per_year=rounded((len(false_down_s) - prevented) / float(at_s[-1] / YEAR_S)),
        held_back=len(held),
    )
    return Played(figures, Outcomes(acted.detected_s, rto_s, rpo_s, down_s))


def _all(silences: list[_Silences], names: tuple[str, ...]) -> dict[str, Floats]:
    return {name: np.concatenate([np.zeros(0), *(getattr(one, name) for one in silences)]) for name in names}


def _joined(parts: list[Acted]) -> Acted:
    names = ("detected_s", "acted_s", "served_s", "done_s", "clients_s", "run_s")
    return Acted(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})
