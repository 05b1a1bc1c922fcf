"""What `make bench-scale` makes of its measurements."""

from __future__ import annotations

from pathlib import Path

import pytest

from qnwis.config.registry import Registry
from qnwis.continuity.run import RunOutcome
from tests.bench.scale.__main__ import parse
from tests.bench.scale.cost import Memory
from tests.bench.scale.counting import Counts, Heartbeats, deadline_s
from tests.bench.scale.dropping import ranges
from tests.bench.scale.figures import Evacuation, Figures, Party, Started, Steady, growth, percentile
from tests.bench.scale.goals import failures, goals
from tests.bench.scale.pictures import SHOWS, pictures
from tests.bench.scale.table import head, rows, section
from tests.bench.scale.world import (
    HEARTBEAT,
    MANY,
    NODES,
    ONE,
    WAVE,
    address,
    at_home_in,
    cluster_id,
    every_node,
    register,
)
from tests.bench.verdict import Verdict

BEFORE = Memory(rss=120_000, pss=100_000)
HELD = 1000


def party(cpu_s: float, pss: int = 150_000, idle_s: float = 1.0) -> Party:
    return Party(cpu_s=cpu_s, idle_cpu_s=idle_s, memory=Memory(rss=pss, pss=pss), idle_memory=BEFORE)


def steady(clusters: int, *, late: int = 0, events: int = 0, failed: int = 0) -> Steady:
    nodes = NODES * clusters
    counts = Counts(asked={"/health/live": 60, "/health/ready": 40}, late=late, heard=nodes, nodes=nodes)
    return Steady(
        seconds=10,
        counts=counts,
        errors={"timeout": failed} if failed else {},
        worker=party(3.0),
        temporal=party(2.0),
        agents_cpu_s=0.5,
        events=events,
        grown=events,
        hours=0.5,
    )


def left(region: str, clusters: int, took_s: float, *, moved: int | None = None) -> Evacuation:
    return Evacuation(
        region=region,
        clusters=clusters,
        moved=clusters if moved is None else moved,
        waves=1,
        took_s=took_s,
        outcome="completed",
        reason="told",
    )


def figures(clusters: int = HELD, **fields: object) -> Figures:
    good: dict[str, object] = {"clusters": clusters, "ready": clusters, "steady": steady(clusters)}
    return Figures.model_validate({**good, **fields})


# Heartbeats


def test_a_heartbeat_within_its_deadline_is_not_late_and_one_after_it_is() -> None:
    deadline = deadline_s(HEARTBEAT)
    assert deadline == pytest.approx(6.0)
    heartbeats = Heartbeats(2, deadline)
    for moment in (0.0, 6.0, 12.5, 17.0):
        heartbeats.asked(0, moment)
    counts = heartbeats.counts(17.0)
    assert (counts.late, counts.late_nodes, counts.longest_s) == (1, 1, 6.5)
    assert (counts.heard, counts.heard_twice, counts.nodes) == (1, 1, 2)


def test_one_that_is_overdue_now_is_late_though_it_has_not_come() -> None:
    heartbeats = Heartbeats(1, 6.0)
    heartbeats.asked(0, 0.0)
    assert heartbeats.counts(6.0).late == 0
    assert heartbeats.counts(6.1).late == 1


def test_a_mark_counts_anew_and_forgets_no_gap_that_is_open() -> None:
    heartbeats = Heartbeats(1, 6.0)
    for moment in (0.0, 7.0):
        heartbeats.asked(0, moment)
    heartbeats.mark()
    assert heartbeats.counts(8.0).late == 0
    heartbeats.asked(0, 14.0)
    assert heartbeats.counts(14.0).late == 1


# Figures


def test_percentiles_are_values_that_were_seen() -> None:
    values = [float(n) for n in range(100, 0, -1)]
    assert [percentile(values, share) for share in (0, 50, 99, 100)] == [1, 50, 99, 100]
    assert percentile([7.0], 50) == 7.0 and percentile([], 50) is None


@pytest.mark.parametrize(
    ("values", "exponent"),
    [
        ({10: 5.0, 100: 5.0, 1000: 5.0}, 0.0),
        ({10: 5.0, 100: 50.0, 1000: 500.0}, 1.0),
        ({10: 1.0, 100: 100.0}, 2.0),
        ({10: 1.0, 100: None, 1000: 100.0}, 1.0),
        ({10: 1.0, 100: None}, None),
        ({10: 0.0, 100: 0.0}, None),
    ],
)
def test_growth_is_the_exponent_of_a_power_law(
    values: dict[int, float | None], exponent: float | None
) -> None:
    found = growth(values)
    assert found is None if exponent is None else found == pytest.approx(exponent)


def test_costs_are_without_what_is_taken_idle() -> None:
    one = figures(10)
    assert one.steady is not None and one.steady.us_per_probe == pytest.approx(1e6 * (3.0 - 1.0) / 100)
    assert one.kib_per_cluster == pytest.approx(50_000 / 10)


def test_events_are_per_guardian_and_hour() -> None:
    assert figures(10, steady=steady(10, events=20)).events_per_hour == pytest.approx(20 / 10 / 0.5)


# Goals


def test_goals_hold() -> None:
    held = figures(evacuations=(left(WAVE, 5, 10.0), left(MANY, 100, 30.0)))
    assert [goal.verdict for goal in goals([held])] == [Verdict.HELD] * 3
    assert failures([held]) == []


@pytest.mark.parametrize(
    ("measured", "told"),
    [
        ({"steady": steady(HELD, late=1)}, "1 late"),
        ({"steady": steady(HELD, failed=2)}, "2 failed"),
        ({"steady": steady(HELD, events=3)}, "3 of 1,000"),
        ({"ready": 999}, "999 of 1000 guardians"),
        ({"evacuations": (left(WAVE, 5, 10.0), left(MANY, 100, 30.1))}, "3.0 times"),
        ({"evacuations": (left(WAVE, 5, 10.0), left(MANY, 100, 20.0, moved=99))}, "not every cluster"),
    ],
)
def test_a_goal_is_missed(measured: dict[str, object], told: str) -> None:
    why = failures([figures(HELD, **measured)])
    assert any(line.startswith("missed: ") and told in line for line in why), why


def test_what_was_not_tried_is_not_measured_and_fails_nothing() -> None:
    few = figures(10)
    verdicts = [goal.verdict for goal in goals([few])]
    assert verdicts == [Verdict.NOT_MEASURED, Verdict.HELD, Verdict.NOT_MEASURED]
    assert failures([few]) == []


@pytest.mark.parametrize("outcome", [RunOutcome.REFUSED.value, None])
def test_a_run_that_comes_to_no_good_end_fails_the_bench(outcome: str | None) -> None:
    good = Started(cluster=1, after_s=10.0, outcome=RunOutcome.COMPLETED.value)
    bad = Started(cluster=2, after_s=10.0, outcome=outcome)
    assert failures([figures(starts=(good,))]) == []
    assert "1 of 2 runs" in failures([figures(starts=(good, bad))])[0]


# What people read


def test_a_column_a_number_of_clusters_and_how_each_figure_grows() -> None:
    every = [figures(10), figures(100, steady=None, problem="not held")]
    body = rows(every)
    assert head(every) == ("", "10 clusters", "100 clusters", "growth")
    assert {len(row) for row in body} == {4}
    by_name = {row[0]: row[1:] for row in body}
    assert by_name["CPU per question: this project, µs"] == ("20000", "–", "–")
    assert by_name["guardians that saw every node healthy"] == ("10", "100", "1.00")
    paragraphs = section(
        every, goals(every), measured_on=["here"], how=["so"], pictures=[("a", "images/a.svg")], failures=[]
    )
    assert "![a](images/a.svg)" in paragraphs


def test_the_same_figures_make_the_same_pictures() -> None:
    every = [figures(10), figures(100, steady=None)]
    drawn = pictures(every)
    assert drawn == pictures(every) and drawn.keys() == SHOWS.keys()
    assert all(svg.rstrip().endswith("</svg>") for svg in drawn.values())


# The clusters


def test_each_node_has_an_address_of_its_own() -> None:
    addresses = [address(*node) for node in every_node(1000)]
    assert len(set(addresses)) == 1000 * NODES


def test_a_region_is_a_few_ranges_of_addresses() -> None:
    numbers = at_home_in(MANY, 1000, wave_size=5)
    assert len(numbers) == 100
    assert len(ranges(address(number, index) for number in numbers for index in (0, 1))) == 2
    assert ranges(["127.0.0.3", "127.0.0.1", "127.0.0.2", "127.0.0.9"]) == [
        (0x7F000001, 0x7F000003),
        (0x7F000009, 0x7F000009),
    ]


def test_a_worker_reads_what_is_registered(tmp_path: Path) -> None:
    register(tmp_path, 7, wave_size=5, dns="127.0.0.1", key_file=tmp_path / "key")
    registry = Registry(tmp_path)
    assert registry.cluster_ids() == [cluster_id(number) for number in range(7)]
    homes = [registry.load(one).cluster.regions[0] for one in registry.cluster_ids()]
    assert homes == [ONE, *[WAVE] * 5, MANY]


def test_numbers_of_clusters_are_taken_in_order_and_nothing_else_is() -> None:
    assert parse(["--clusters", "100,10"]).clusters == [10, 100]
    for wrong in ("ten", "10,", "0", ""):
        with pytest.raises(SystemExit):
            parse(["--clusters", wrong])
