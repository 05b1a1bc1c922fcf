"""What the clients' log proves."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qnwis.lab.acks import Ack, AckLog, analyse, read_log
from qnwis.lab.history import Event, Kind, write_history

OLD, NEW = "node-1", "node-2"


def log(
    *acks: tuple[float, int, int, str], unknown: tuple[tuple[str, int], ...] = (), end: float | None = None
) -> AckLog:
    return AckLog(tuple(Ack(at, str(client), n, s) for at, client, n, s in acks), unknown, (), end)


def rows(of: AckLog) -> set[tuple[str, int]]:
    return {(ack.client, ack.n) for ack in of.acks}


def test_the_gap_is_the_worst_clients_and_the_outage_is_everybodys() -> None:
    seen = log((10.0, 0, 1, OLD), (10.1, 1, 1, OLD), (12.0, 1, 2, NEW), (12.5, 0, 2, NEW))
    report = analyse(seen, rows(seen), since=10.2)
    assert report.gap_ms_per_client == pytest.approx({"0": 2500, "1": 1900})
    assert report.gap_ms == pytest.approx(2500)
    assert report.outage_ms == pytest.approx(1900)
    assert report.first_ack_after_ms == pytest.approx(1800)
    assert report.per_server == {OLD: 2, NEW: 2}


def test_a_client_that_never_came_back_has_a_gap_to_the_end() -> None:
    seen = log((10.0, 0, 1, OLD), (10.0, 1, 1, OLD), (11.0, 0, 2, NEW), end=15.0)
    assert analyse(seen, rows(seen)).gap_ms_per_client == {"0": 4000.0, "1": 5000.0}


def test_an_ack_still_on_its_way_from_the_old_server_is_not_the_recovery() -> None:
    seen = log((10.0, 0, 1, OLD), (10.201, 0, 2, OLD), (12.2, 0, 3, NEW))
    assert analyse(seen, rows(seen), since=10.2).first_ack_after_ms == pytest.approx(2000)
    assert analyse(log((10.0, 0, 1, OLD), (10.3, 0, 2, OLD)), set(), since=10.2).first_ack_after_ms is None


@given(st.sets(st.tuples(st.integers(0, 3), st.integers(1, 50))), st.data())
def test_lost_is_exactly_what_was_acknowledged_and_is_not_there(
    acked: set[tuple[int, int]], data: st.DataObject
) -> None:
    present = data.draw(st.sets(st.tuples(st.integers(0, 3), st.integers(1, 50))))
    seen = log(*((float(n), client, n, OLD) for client, n in acked), unknown=(("9", 9),))
    report = analyse(seen, {(str(client), n) for client, n in present})
    assert set(report.lost) == {(str(client), n) for client, n in acked - present}
    assert (report.acked, report.unknown) == (len(acked), 1)


def test_an_empty_log_has_no_gap() -> None:
    report = analyse(log(), set(), since=1.0)
    assert (report.acked, report.gap_ms, report.outage_ms, report.first_ack_after_ms) == (0, 0.0, 0.0, None)


def test_a_log_is_read_while_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    events = [
        Event(1.4, Kind.INVOKED, "0", 1),
        Event(1.5, Kind.ACKNOWLEDGED, "0", 1, server=OLD, timeline=1, lsn=100),
        Event(1.6, Kind.UNKNOWN, "0", 2, server=OLD, error="broken"),
        Event(1.7, Kind.FAILED, "0", 3, error="refused"),
        Event(1.8, Kind.FAILED, "0", 4, error="refused"),
        Event(1.9, Kind.ACKNOWLEDGED, "pinned-node-1", 1, True, OLD, 1, 120),
    ]
    write_history(path, events)
    with path.open("a") as file:
        file.write('{"at_s": 2.0, "ki')
    log = read_log(path)
    assert log == AckLog((Ack(1.5, "0", 1, OLD),), (("0", 2),), (("refused", 2), ("broken", 1)), 1.8)
    assert read_log(tmp_path / "none") == AckLog((), (), (), None)
