"""What `make bench` makes of what pytest-benchmark wrote, and what other benches print and write."""

from __future__ import annotations

import json

import pytest

from tests.bench import __main__ as bench
from tests.bench import newcomer, simulator
from tests.bench.newcomer import Newcomer
from tests.bench.simulator import Compared

WRITTEN = {
    "benchmarks": [
        {"name": "a", "extra_info": {"what": "planning, 3 nodes", "p95_ms": 0.26, "target_ms": 50}},
        {"name": "b", "extra_info": {"what": "`/status` with the door", "p50_ms": 3.0, "p99_ms": 9.5}},
    ]
}


def test_each_benchmark_is_a_row_and_a_figure() -> None:
    figures = bench.figures_of(WRITTEN)
    assert bench.domain_rows(figures) == [("planning, 3 nodes", "0.3", "50")]
    assert bench.api_rows(figures) == [("`/status` with the door", "3.0", "9.5")]
    told = json.loads(bench.report(figures, as_json=True))
    assert told["machine"] and told["figures"] == [one["extra_info"] for one in WRITTEN["benchmarks"]]
    section = "\n\n".join(bench.section(figures))
    assert (
        "| planning, 3 nodes | 0.3 | 50 |" in section and "| `/status` with the door | 3.0 | 9.5 |" in section
    )


def test_what_was_not_measured_has_no_table() -> None:
    only_one = bench.figures_of({"benchmarks": WRITTEN["benchmarks"][:1]})
    assert "P99" not in "\n".join(bench.section(only_one)) + bench.report(only_one, as_json=False)


def test_a_simulated_gap_beyond_the_bound_stands_in_its_row() -> None:
    near, far = Compared("name", 3000.0, 3100.0), Compared("hosts", 2000.0, 2400.0)
    assert simulator.rows([near, far]) == [
        ("name", "3000", "3100", "1.03", "yes"),
        ("hosts", "2000", "2400", "1.20", "NO"),
    ]


@pytest.mark.parametrize(("verified", "last"), [(True, "from the clone to"), (False, "NOT verified")])
def test_a_newcomer_who_saw_no_verified_failover_is_told_so(verified: bool, last: str) -> None:
    waited = Newcomer("c0ffee", 1.0, 40.0, 9.0, 5.0, None, None, 50.0, verified, {})
    *parts, total = newcomer.rows(waited)
    assert ("clients write before the kill", "–") in parts
    assert total[0].startswith(last) and total[1] == "50.0"
