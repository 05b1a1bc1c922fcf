"""`make soak`: slopes, bounds, gaps, violations, tables."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from statistics import fmean, stdev

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qnwis.agent.journal import Line, Mark
from qnwis.continuity.orders import FollowOrder, Receipt
from qnwis.continuity.run import RunKind, RunOutcome, RunResult
from qnwis.lab.acks import Ack, AckLog
from qnwis.lab.history import Event, Kind
from qnwis.lab.temporal_server import PROCESS_NAME as TEMPORAL
from tests.bench.document import markdown_table
from tests.bench.soak.__main__ import CYCLES, parse
from tests.bench.soak.cycles import Cycle, gaps_ms, unless_rewound, unverified
from tests.bench.soak.levels import (
    BOUNDS,
    BY_RIGHT,
    JUDGED_FROM,
    Measure,
    Reading,
    beyond,
    bound_of,
    trends,
    warm_up,
)
from tests.bench.soak.slope import theil_sen
from tests.bench.soak.spread import spread
from tests.bench.soak.table import GROWTH_HEAD, LEVELS_HEAD, TIMES_HEAD, growth, levels, line, section, times
from tests.bench.soak.violations import gone, violations
from tests.unit.metrics.records import PASSED

values = st.floats(min_value=-1e6, max_value=1e6)
slopes = st.integers(min_value=-1000, max_value=1000)


@given(slopes, slopes, st.lists(st.integers(0, 200), min_size=2, max_size=30, unique=True))
def test_of_a_line_it_is_the_lines_slope(slope: int, offset: int, at: list[int]) -> None:
    assert theil_sen([(x, offset + slope * x) for x in at]) == pytest.approx(slope)


@given(slopes, st.lists(values, min_size=5, max_size=5), st.permutations(range(25)))
def test_a_fifth_of_the_points_may_be_anything(slope: int, wild: list[float], order: list[int]) -> None:
    """The slope may lie between those of pairs of good points, which are all the same here."""
    points = [(float(x), float(slope * x)) for x in range(25)]
    for position, value in zip(order, wild, strict=False):
        points[position] = (float(position), value)
    assert theil_sen(points) == pytest.approx(slope)


@given(st.lists(values, min_size=2, max_size=20), values)
def test_a_shift_changes_nothing_and_a_mirror_image_falls(each: list[float], shift: float) -> None:
    points = list(enumerate(each))
    slope = theil_sen(points)
    assert theil_sen([(x, y + shift) for x, y in points]) == pytest.approx(slope, abs=1e-6)
    assert slope is not None
    assert theil_sen([(x, -y) for x, y in points]) == pytest.approx(-slope, abs=1e-9)
    assert theil_sen(points[::-1]) == pytest.approx(slope)
    assert min(b - a for a in each for b in each) <= slope <= max(b - a for a in each for b in each)


def test_without_two_cycles_there_is_no_slope() -> None:
    assert theil_sen([]) is None and theil_sen([(1, 2)]) is None and theil_sen([(1, 2), (1, 3)]) is None


@given(st.lists(values, min_size=1))
def test_at_least_95_of_100_values_are_no_greater_than_p95(each: list[float]) -> None:
    found = spread(each)
    assert found is not None and found.count == len(each)
    assert sum(value <= found.p95 for value in each) >= 0.95 * len(each)
    assert sum(value < found.p95 for value in each) < 0.95 * len(each), "and of no smaller value that holds"
    assert found.mean == pytest.approx(fmean(each), abs=1e-6)
    assert found.deviation == (pytest.approx(stdev(each)) if len(each) > 1 else 0)
    assert (found.least, found.most) == (min(each), max(each))


def test_of_no_values_there_is_no_spread() -> None:
    assert spread([]) is None


def series(measure: Measure, each: Sequence[float]) -> list[list[Reading]]:
    return [[Reading(measure=measure, of="worker", value=value)] for value in each]


def test_every_measure_levels_off_or_grows_by_right() -> None:
    assert set(BOUNDS) | set(BY_RIGHT) == set(Measure) and not set(BOUNDS) & set(BY_RIGHT)
    assert bound_of(Measure.MEMORY, TEMPORAL) != bound_of(Measure.MEMORY, "worker")


def test_what_grows_beyond_its_bound_fails_once_there_are_cycles_enough() -> None:
    bound = BOUNDS[Measure.MEMORY].per_cycle
    cycles = JUDGED_FROM + warm_up(JUDGED_FROM + 5)
    within = trends(series(Measure.MEMORY, [bound * n for n in range(cycles)]))
    assert [t.within for t in within] == [True] and beyond(within) == []
    leaking = trends(series(Measure.MEMORY, [1000 + 2 * bound * n for n in range(cycles)]))
    assert beyond(leaking) == [
        f"memory of worker grows by {2 * bound:.2f} KiB a cycle; its bound is {bound:g}"
    ]
    early = trends(series(Measure.MEMORY, [1000 + 2 * bound * n for n in range(JUDGED_FROM)]))
    assert [(t.within, t.judged) for t in early] == [(False, False)] and beyond(early) == []
    by_right = trends(series(Measure.AUDIT, [1000.0 * n for n in range(cycles)]))
    assert by_right[0].slope == 1000 and beyond(by_right) == []


def test_what_fills_in_the_first_cycles_does_not_count() -> None:
    filling = [min(n, 20) * 1000.0 for n in range(100)]
    (found,) = trends(series(Measure.MEMORY, filling))
    assert (found.slope, found.first, found.median, found.cycles) == (0, 0, 20_000, 80)


def test_a_series_that_lacks_cycles_is_told_of_those_that_it_has() -> None:
    early, one, other = (series(Measure.GUARDIAN_EVENTS, [value]) for value in (7, 9, 13))
    (found,) = trends([[], *early, *early, [], *one, [], *other])
    assert (found.first, found.last, found.cycles, found.slope) == (7, 13, 2, 2)


def acks(client: str, *at: float) -> tuple[Ack, ...]:
    return tuple(Ack(moment, client, number, "node-1") for number, moment in enumerate(at))


def test_each_move_has_its_own_gap() -> None:
    log = AckLog((*acks("0", 1, 4, 5, 6, 6.4, 7), *acks("1", 1, 2, 5, 6, 6.5, 7)), (), (), 7)
    there, back = gaps_ms(log, killed_s=1.5, moved_s=6.1, clients=2)
    assert (there, back) == (pytest.approx(3000), pytest.approx(600))
    silent = AckLog(acks("0", 1, 1.4, 6.2), (), (), 7)
    assert gaps_ms(silent, killed_s=1.5, moved_s=6.1, clients=1) == (None, pytest.approx(4800))


NOW = datetime(2026, 1, 1, tzinfo=UTC)


def ended(outcome: RunOutcome, old: str, new: str | None) -> RunResult:
    return RunResult(
        kind=RunKind.PRIMARY_FAILURE,
        outcome=outcome,
        reason="because",
        cluster_id="c1",
        run_id="run-1",
        old_primary=old,
        new_primary=new,
        verification=PASSED if outcome is RunOutcome.COMPLETED else None,
        started_at=NOW,
        ended_at=NOW,
    )


def test_only_a_verified_run_to_the_right_node_is_right() -> None:
    moved = ended(RunOutcome.COMPLETED, "node-1", "node-2")
    assert unverified(moved, "failover", old="node-1") == []
    assert unverified(moved, "switchover", old="node-1", new="node-2") == []
    assert unverified(moved, "switchover", old="node-1", new="node-3") == [
        "the switchover went node-1 → node-2, expected node-1 → node-3"
    ]
    assert unverified(moved, "failover", old="node-3") == [
        "the failover went node-1 → node-2, expected node-3 → another node"
    ]
    incomplete = ended(RunOutcome.INCOMPLETE, "node-1", "node-2")
    assert unverified(incomplete, "failover", old="node-1") == ["the failover ended incomplete: because"]


def test_a_killed_node_that_is_copied_anew_is_a_violation() -> None:
    assert unless_rewound("node-1 was rewound and streams from node-2 on timeline 2") == []
    copied = "node-1 was copied anew (old data: /x) and streams from node-2 on timeline 2"
    assert unless_rewound(copied) == [f"the killed node was not rewound: {copied}"]


def write(client: str, n: int, begins_s: float, *, server: str, timeline: int = 1) -> list[Event]:
    """Acknowledged a tenth of a second later."""
    return [
        Event(begins_s, Kind.INVOKED, client, n),
        Event(begins_s + 0.1, Kind.ACKNOWLEDGED, client, n, server=server, timeline=timeline, lsn=n),
    ]


WELL = (*write("0", 1, 1.0, server="node-1"), *write("0", 2, 2.0, server="node-2", timeline=2))


def done(effect_id: str, *, changed: bool = True) -> tuple[str, Line]:
    receipt = Receipt(effect_id=effect_id, changed=changed, epoch=1, detail="", at=NOW)
    order = FollowOrder(effect_id=effect_id, run_id="run-1", epoch=1, upstream="node-2")
    return "node-3", Line(at=NOW, mark=Mark.DONE, order=order, receipt=receipt)


def test_a_cycle_in_which_all_went_well_has_no_violation() -> None:
    kept = frozenset({("0", 1), ("0", 2)})
    journals = [done("run-1/a"), done("run-1/b"), done("run-1/a", changed=False)]
    assert violations(WELL, kept, journals, primary="node-2") == []


def test_what_is_lost_or_written_twice_over_or_done_twice_is_a_violation() -> None:
    kept = frozenset({("0", 1), ("0", 2), ("1", 3)})
    (lost,) = violations(WELL, frozenset({("0", 1)}), [], primary="node-2")
    assert lost.startswith("nothing_lost: ('0', 2)")
    late = (*WELL, *write("1", 3, 3.0, server="node-1"))
    (two,) = violations(late, kept, [], primary="node-2")
    assert two.startswith("one_primary: node-1 acknowledged ('1', 3)")
    (twice,) = violations(WELL, kept, [done("run-1/a"), done("run-1/a")], primary="node-2")
    assert twice == "each_effect_once: node-3/run-1/a changed the state 2 times"


def test_rows_of_earlier_cycles_that_are_gone_are_a_violation() -> None:
    assert gone(10, 10) == []
    assert gone(9, 10) == ["of 10 rows of earlier cycles 9 are there"]


def cycle(number: int, **changed: object) -> Cycle:
    fields: dict[str, object] = {
        "number": number,
        "failover_gap_ms": 3000,
        "switchover_gap_ms": 400,
        "started_ms": 2000,
        "failover_run_ms": 500,
        "switchover_run_ms": 2500,
        "rejoin_ms": 1500,
        "took_ms": 15_000,
        "writes": 1000,
        "violations": (),
        "readings": (
            Reading(measure=Measure.MEMORY, of="worker", value=100_000),
            Reading(measure=Measure.AUDIT, of="worker", value=10 * number),
        ),
    }
    return Cycle.model_validate({**fields, **changed})


def test_the_tables_have_a_row_for_each_time_and_each_series() -> None:
    cycles = [cycle(number) for number in range(1, 31)]
    cycles[3] = cycle(4, failover_gap_ms=None, violations=("a client never wrote again after the failover",))
    found = trends([one.readings for one in cycles])
    assert times(cycles)[0] == ("write gap, failover", "29", "3000", "3000", "0", "3000", "3000")
    assert levels(found) == [
        ("memory", "worker", "KiB", "100000", "100000", "100000", "0.00", "64", "levels off")
    ]
    assert growth(found)[0][:6] == ("audit trail", "worker", "10", "300", "300", "10.00")
    assert markdown_table(TIMES_HEAD, times(cycles)) and markdown_table(LEVELS_HEAD, levels(found))
    assert markdown_table(GROWTH_HEAD, growth(found))
    said = "\n\n".join(section(cycles, ["cycle 4: a client never wrote again"], ["this machine"]))
    assert "30 cycles, 30000 acknowledged writes, 1 violations." in said
    assert "**Failed:** cycle 4: a client never wrote again." in said
    assert line(cycles[3]).startswith("cycle 4: failover gap – (run 500 ms), rejoin 1500 ms")


def test_without_a_word_it_ends_after_a_hundred_cycles_and_else_when_told() -> None:
    assert (parse([]).cycles, parse([]).minutes) == (CYCLES, None)
    assert (parse(["--minutes", "5"]).cycles, parse(["--minutes", "5"]).minutes) == (None, 5)
    both = parse(["--minutes", "5", "--cycles", "3"])
    assert (both.cycles, both.minutes) == (3, 5)
    with pytest.raises(SystemExit):
        parse(["--cycles", "0"])
