"""Studies: reproducible, on the same failures, bound to the cluster's rules."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from qnwis.cli.qnwis_continuity import app
from qnwis.config.problem import ConfigError
from qnwis.config.shipped import shipped
from qnwis.continuity.policy import Policy
from qnwis.montecarlo import study as played
from qnwis.montecarlo.bought import in_words, moves
from qnwis.montecarlo.pictures import pictures
from qnwis.montecarlo.result import Other, study
from qnwis.montecarlo.study import play, unplayable
from qnwis.montecarlo.world import Faults, Network, Rate, Spread, load_world
from qnwis.montecarlo.years import held_for_s

from .parts import POLICY, cluster, settings

SHIPPED = shipped("config")
FILES = ("--cluster", f"{SHIPPED}/continuity/cluster.yaml", "--policy", f"{SHIPPED}/continuity/policy.yaml")


def call(*arguments: str) -> tuple[int, str]:
    ran = CliRunner().invoke(app, ["simulate", *FILES, *arguments])
    return ran.exit_code, ran.output


def test_the_same_seed_gives_the_same_bytes_in_every_process_and_from_any_number_of_them(
    tmp_path: Path,
) -> None:
    pages = set()
    for hash_seed, processes in (("0", "1"), ("4711", "2")):
        page, answer = tmp_path / f"{hash_seed}.html", tmp_path / f"{hash_seed}.json"
        files = ("--report", str(page), "--output", str(answer), "--processes", processes)
        command = ("-m", "qnwis.cli.qnwis_continuity", "simulate", *FILES, "--runs", "100", *files)
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONHASHSEED": hash_seed}
        subprocess.run([sys.executable, *command], env=environment, check=True, stdout=subprocess.DEVNULL)
        pages.add((page.read_bytes(), answer.read_bytes()))
    assert len(pages) == 1


def test_another_seed_gives_other_failures_and_nearly_the_same_figures() -> None:
    one, other = (play(settings(), 4000, seed).figures for seed in (1, 2))
    assert one != other
    assert abs(one.rto_s.p95 / other.rto_s.p95 - 1) < 0.05


def test_blocks_change_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a study answers of its first failures does not depend on how many follow."""
    monkeypatch.setattr(played, "BLOCK", 100)
    few, many = (play(settings(), runs, 1).outcomes for runs in (100, 300))
    assert (few.rto_s == many.rto_s[:100]).all()


def test_the_same_settings_differ_in_no_failure_and_others_do() -> None:
    here = settings()
    faster = replace(
        here, cluster=cluster(heartbeat=here.cluster.heartbeat.model_copy(update={"interval_sec": 2.0}))
    )
    same, other = (study(here, 300, 1, Other("other.yaml", one)).result.comparison for one in (here, faster))
    assert same is not None and other is not None
    assert same.rto_difference_s.most == same.rto_difference_s.mean == 0 and same.rto_shorter_percent == 0
    assert other.rto_difference_s.mean < -3 and other.rto_shorter_percent > 50


def test_a_shorter_interval_buys_recovery_and_costs_false_failovers() -> None:
    found = study(settings(), 1000, 1).result
    (step,) = (one for one in found.settings if one.setting == "interval")
    assert step.figures.rto_s.p95 < found.figures.rto_s.p95
    assert step.figures.false_failovers_per_year > found.figures.false_failovers_per_year
    assert step.words.startswith("interval 5 s to 2 s: P95 RTO from ")
    names = {one.setting for one in found.settings}
    assert names == {"interval", "misses", "timeout", "lease", "DNS TTL", "replication"}


def test_only_watchers_that_are_cut_off_begin_no_failover() -> None:
    world = load_world("cloud")
    cut = tuple(one for one in world.silences if one.standbys_hear_it)
    assert cut
    figures = play(settings(world.model_copy(update={"silences": cut})), 1000, 1).figures
    assert figures.false_failovers_per_year == 0


def test_synchronous_replication_loses_nothing() -> None:
    lossy, safe = (
        play(settings(cluster=cluster(asynchronous=mode)), 500, 1).figures.rpo_s for mode in (True, False)
    )
    assert lossy.p95 > 0 and safe.most == 0


def test_a_failure_soon_after_a_failover_waits_for_the_cooldown_of_the_real_rules() -> None:
    policy = Policy(policy_id="p", name="P", cooldown_s=300, max_failovers_per_hour=2)
    at_s = np.asarray([0.0, 100.0, 10_000.0, 10_350.0, 11_000.0])
    acted_s, ends_s = np.full(5, 10.0), np.full(5, 20.0)
    # The second waits for the cooldown of the first; the last one for the hourly cap.
    held = held_for_s(policy, at_s, acted_s, ends_s)
    assert held == pytest.approx({1: 20 + 300 - 110, 4: 10_020 + 3600 - 11_010})


def test_failures_come_as_often_as_the_world_says() -> None:
    rate = Rate(per_year=2, source="test")
    world = load_world("cloud").model_copy(
        update={"faults": Faults(killed=rate, blackholed=rate, crashed_database=rate), "silences": ()}
    )
    outcomes = play(settings(world), 6000, 1).outcomes
    assert len(outcomes.down_by_year_s) == pytest.approx(1000, rel=0.05)


def test_a_lost_packet_is_sent_again_until_the_timeout() -> None:
    network = Network(round_trip_ms=Spread(median=1, p99=1), loss_percent=10, retransmit_s=1.0, source="test")
    lost = 1 - 0.9**2
    assert network.miss_chance(0.5) == pytest.approx(lost)
    assert network.miss_chance(2.0) == pytest.approx(lost**2)
    assert network.miss_chance(0.0005) == pytest.approx(1)


def test_every_move_is_one_that_the_planner_allows() -> None:
    narrow = settings(policy=POLICY.model_copy(update={"max_failover_time_s": 25.0}))
    assert unplayable(narrow, 1) is not None
    assert list(moves(narrow)) == [move for move in moves(narrow) if unplayable(move.settings, 1) is None]


def test_what_changes_is_said_in_one_sentence() -> None:
    one = play(settings(), 200, 1).figures
    rto_s = one.rto_s.model_copy(update={"p95": 21.04})
    before = one.model_copy(
        update={"rto_s": rto_s, "false_failovers_per_year": 0.2, "downtime_s_per_year": 150.2}
    )
    after = before.model_copy(
        update={"rto_s": rto_s.model_copy(update={"p95": 12.0}), "false_failovers_per_year": 0.5}
    )
    assert in_words("interval 5 s to 2 s", before, after) == (
        "interval 5 s to 2 s: P95 RTO from 21.0 s to 12.0 s, false failovers from 0.20 to 0.50 a year,"
        " downtime unchanged at 150 s a year"
    )


def test_pictures_show_both_policies_and_every_setting() -> None:
    here = settings()
    other = replace(here, policy=POLICY.model_copy(update={"policy_id": "other-policy"}))
    found = study(here, 200, 1, Other("other-policy.yaml", other))
    drawn = pictures(found)
    assert len(drawn) == 4 and all(svg.startswith("<svg") for svg in drawn.values())
    assert "other-policy.yaml" in drawn["RTO: how many failures are over by then"]
    for one in found.result.settings:
        assert f"{one.setting} {one.after}" in drawn["What each setting buys"]


# --- what people type


def test_text_and_json_say_the_same() -> None:
    code, text = call("--runs", "200")
    _, answer = call("--runs", "200", "--json")
    result = json.loads(answer)
    assert code == 0 and result["runs"] == 200
    for one in result["settings"]:
        assert one["words"] in text


def test_a_world_with_mistakes_is_refused_with_each_of_them(tmp_path: Path) -> None:
    text = (SHIPPED / "simulator" / "cloud.yaml").read_text()
    wrong = text.replace("{median: 1, p99: 5}", "{median: 5, p99: 1}").replace(
        "loss_percent: 0.01", "loss_percent: 80"
    )
    (tmp_path / "mine.yaml").write_text(wrong)
    with pytest.raises(ConfigError) as error:
        load_world(str(tmp_path / "mine.yaml"))
    told = str(error.value)
    line = 1 + text[: text.index("loss_percent")].count("\n")
    assert f"mine.yaml:{line}" in told and "network.loss_percent" in told and "80" in told
    assert "expected p99 (1) of at least the median (5)" in told


def test_a_world_that_there_is_not_is_answered_with_those_there_are() -> None:
    code, text = call("--runs", "10", "--world", "moon")
    assert code == 2 and "moon" in text and "cloud, lab, wan" in text


@pytest.mark.parametrize(("missing", "more"), [("numpy", []), ("matplotlib", ["--report", "x.html"])])
def test_without_the_extra_it_says_what_to_install(missing: str, more: list[str], tmp_path: Path) -> None:
    script = (
        f"import sys; sys.modules[{missing!r}] = None; from qnwis.cli.qnwis_continuity import app;"
        f" app({['simulate', *FILES, '--runs', '10', '--processes', '1', *more]!r})"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    ran = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert ran.returncode == 2 and "pip install 'qnwis-continuity[simulator]'" in ran.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--runs", "10", "--scenario", "flapping"), "--scenario flapping"),
        (("--against-policy", "x.yaml"), "--runs"),
        (("--runs", "10", "--report", "x.json"), ".html or .md"),
    ],
)
def test_what_does_not_go_together_is_said(arguments: tuple[str, ...], told: str) -> None:
    code, text = call(*arguments)
    assert code == 2 and told in text


def test_a_policy_that_could_never_fail_over_is_refused_with_its_rule(tmp_path: Path) -> None:
    text = (SHIPPED / "continuity" / "policy.yaml").read_text()
    (tmp_path / "policy.yaml").write_text(text.replace("max_failover_time_s: 60", "max_failover_time_s: 5"))
    code, told = call("--runs", "10", "--policy", str(tmp_path / "policy.yaml"))
    assert code == 3 and "too_slow" in told
