"""What `make bench-rto` makes of the clients' writes: gaps, losses, goals, tables."""

from __future__ import annotations

from pathlib import Path

import pytest

from qnwis.lab.acks import Ack, AckLog
from qnwis.lab.errors import LabError
from tests.bench.document import markdown_table, text_table
from tests.bench.rto.__main__ import SYSTEMS, parse, prepare
from tests.bench.rto.figures import Event, Figure, gap_ms, lost, summaries
from tests.bench.rto.goals import failures, goals
from tests.bench.rto.measure import around
from tests.bench.rto.names import AUTO_FAILOVER, OURS, PATRONI, REPMGR
from tests.bench.rto.settings import DEFAULT, EQUAL, FASTEST, OUR_TERMS
from tests.bench.rto.table import HEAD, rows, section
from tests.bench.verdict import Verdict


def acks(client: str, *at: float) -> list[Ack]:
    return [Ack(moment, client, number, "node-1") for number, moment in enumerate(at)]


def test_the_gap_is_the_longest_of_any_client_from_the_event_on() -> None:
    seen = [*acks("0", 1, 4, 4.5, 7.5, 8), *acks("1", 1, 4.2, 6.5, 8)]
    # Of client 0 the three seconds before the event do not count, and the three across it do.
    assert gap_ms(seen, since_s=5, ended_s=8.1, clients=["0", "1"]) == 3000
    assert gap_ms(seen[5:], since_s=5, ended_s=8.1, clients=["1"]) == pytest.approx(2300)


def test_a_client_that_comes_back_and_falls_silent_shows() -> None:
    assert gap_ms(acks("0", 1, 2, 2.5), since_s=1, ended_s=9, clients=["0"]) == 6500


def test_a_client_that_never_came_back_leaves_no_gap_to_tell() -> None:
    assert gap_ms(acks("0", 1, 2), since_s=1.5, ended_s=9, clients=["0", "1"]) is None
    assert gap_ms(acks("0", 1), since_s=1.5, ended_s=9, clients=["0"]) is None


def test_lost_is_what_was_acknowledged_and_is_not_there() -> None:
    log = AckLog(acks=tuple(acks("0", 1, 2, 3)), unknown=(("0", 9),), errors=(), ended_at=3)
    assert lost(log, [("0", 0), ("0", 2), ("1", 1)]) == 1


def figure(system: str, setting: str, event: Event, gap: float | None, *, gone: int = 0) -> Figure:
    return Figure(
        round=1,
        system=system,
        setting=setting,
        event=event,
        gap_ms=gap,
        acknowledged=100,
        lost=gone,
        problem=None if gap is not None else "etcd does not start\nand more",
    )


HELD = [
    figure(OURS, FASTEST, Event.KILLED, 2500),
    figure(PATRONI, FASTEST, Event.KILLED, 20_000),
    figure(AUTO_FAILOVER, FASTEST, Event.KILLED, 10_000),
    figure(REPMGR, FASTEST, Event.KILLED, 900),
    figure(OURS, EQUAL, Event.KILLED, 3100),
    figure(REPMGR, EQUAL, Event.KILLED, 2600),
    figure(OURS, FASTEST, Event.CRASHED, 1000),
    figure(PATRONI, FASTEST, Event.CRASHED, 2500),
    figure(OURS, FASTEST, Event.SWITCHOVER, 500),
    figure(PATRONI, FASTEST, Event.SWITCHOVER, 2300),
    figure(AUTO_FAILOVER, FASTEST, Event.SWITCHOVER, 2000),
]


def test_goals_at_their_bounds_are_held() -> None:
    found = goals(summaries(HELD))
    assert [goal.verdict for goal in found] == [Verdict.HELD] * 4
    assert [goal.at_most_ms for goal in found] == [2500, 3100, 1000, 500]
    assert failures(summaries(HELD)) == []


@pytest.mark.parametrize("number", [0, 4, 6, 8])
def test_a_goal_is_missed_by_a_millisecond(number: int) -> None:
    ours = HELD[number]
    assert ours.gap_ms is not None
    slower = [*HELD[:number], ours.model_copy(update={"gap_ms": ours.gap_ms + 1}), *HELD[number + 1 :]]
    assert [goal.verdict for goal in goals(summaries(slower))].count(Verdict.MISSED) == 1
    assert len(failures(summaries(slower))) == 1


def test_ratios_are_of_medians() -> None:
    more = [*HELD, *(figure(OURS, FASTEST, Event.KILLED, gap) for gap in (1000, 90_000))]
    assert goals(summaries(more))[0].ours_ms == 2500
    (ours, *_) = summaries(more)
    assert (ours.min_ms, ours.median_ms, ours.max_ms, ours.of) == (1000, 2500, 90_000, 3)


def test_what_was_not_measured_is_neither_held_nor_missed() -> None:
    without_patroni = [f for f in HELD if f.system not in (PATRONI, AUTO_FAILOVER)]
    found = [goal.verdict for goal in goals(summaries(without_patroni))]
    assert found == [Verdict.NOT_MEASURED, Verdict.HELD, Verdict.NOT_MEASURED, Verdict.NOT_MEASURED]
    assert failures(summaries(without_patroni)) == []


def test_a_peer_that_never_came_back_bounds_nothing_and_ours_fails() -> None:
    silent = [f.model_copy(update={"gap_ms": None}) if f.system == AUTO_FAILOVER else f for f in HELD]
    assert goals(summaries(silent))[0].against.startswith(PATRONI)
    ours = [*HELD[1:], figure(OURS, FASTEST, Event.KILLED, None)]
    assert goals(summaries(ours))[0].verdict is Verdict.MISSED
    assert any("1 of 1 without a figure" in why for why in failures(summaries(ours)))


def test_only_our_losses_fail_the_run() -> None:
    theirs = [*HELD, figure(REPMGR, DEFAULT, Event.KILLED, 50_000, gone=2)]
    assert failures(summaries(theirs)) == []
    ours = [*HELD, figure(OURS, DEFAULT, Event.KILLED, 13_000, gone=2)]
    assert failures(summaries(ours)) == [f"{OURS}, default, killed node: 2 acknowledged writes lost"]


def test_tables_have_systems_beside_each_other_and_numbers_to_the_right() -> None:
    some = summaries([HELD[0], HELD[6], HELD[1], figure(REPMGR, EQUAL, Event.KILLED, None)])
    lines = text_table(HEAD, rows(some)).splitlines()
    assert [line.split("  ")[0].strip() for line in lines[1:]] == [OURS, PATRONI, REPMGR, OURS]
    assert lines[1].rstrip().endswith("100     0")
    assert "0 of 1" in lines[3] and "–" in lines[3]
    assert markdown_table(HEAD, rows(some)).splitlines()[1].endswith("---:|---:|")


def test_the_section_names_settings_goals_and_what_has_no_figure() -> None:
    problem = figure(REPMGR, EQUAL, Event.KILLED, None)
    each = summaries([*HELD, problem])
    paragraphs = section(
        each,
        goals(each),
        machine=["2 cores"],
        versions={"Patroni": "4"},
        settings={name: system.settings for name, system in SYSTEMS.items()},
        remarks=["a remark"],
        figures=[*HELD, problem],
    )
    new = "\n\n".join(paragraphs)
    assert "| this project | fastest | killed node | 1 | 2500 | 2500 | 2500 | 100 | 0 |" in new
    assert "| held |" in new and "etcd does not start" in new and "and more" not in new
    assert "`ttl = 20`" in new and "`wal_retrieve_retry_interval = 50ms`" in new
    assert "`lease.duration_s = 1.5`" in new


def test_a_round_measures_every_goal_and_systems_take_turns() -> None:
    measured = [(system.name, setting.name, event) for system, setting, event in parse([]).round()]
    assert len(measured) == len(set(measured))
    assert {(f.system, f.setting, f.event) for f in HELD} <= set(measured)
    events = [event for *_, event in measured]
    assert events == sorted(events, key=list(Event).index)


def test_unknown_names_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["--systems", "ours,stolon"])
    assert "--systems: stolon; expected some of ours, patroni" in capsys.readouterr().err


def test_a_folder_of_somebody_else_is_not_removed(tmp_path: Path) -> None:
    prepare(tmp_path / "new")
    (tmp_path / "new" / "logs").mkdir()
    prepare(tmp_path / "new")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["figures.jsonl"]
    with pytest.raises(LabError, match="give another one"):
        prepare(tmp_path)
    assert (tmp_path / "new").exists()


def test_our_settings_count_as_many_misses_as_the_default() -> None:
    assert {terms.heartbeat.failure_threshold for terms in OUR_TERMS.values()} == {3}


def test_a_blackholed_node_is_cut_from_everybody_both_ways() -> None:
    links = around("node-1")
    assert ("node-1", "clients") in links and ("clients", "node-1") in links
    assert all("node-1" in link for link in links) and ("node-2", "node-3") not in links
