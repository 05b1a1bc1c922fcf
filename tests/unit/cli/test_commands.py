"""The commands that need no server, as a user types them: output, exit codes, clear errors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError
from typer.testing import CliRunner, Result

from qnwis.cli import processes, settings
from qnwis.cli.qnwis_continuity import app
from qnwis.cli.typed import not_usable
from qnwis.config.shipped import shipped
from qnwis.continuity.run import FailoverRequest, PauseRunRequest, RunKind
from qnwis.lab.layout import Block, Folder
from qnwis.lab.state import LabState, write_state
from tests.integration.continuity.world import three_nodes, write_registry
from workers.settings import WorkerSettings

CONFIG = shipped("config") / "continuity"
CLUSTER, POLICY = CONFIG / "cluster.yaml", CONFIG / "policy.yaml"
SCHEDULE = ["maintenance", "schedule", "lab-1", "--cron", "0 3 * * SUN", "--reason", "quarterly"]
FILES = ["--cluster", str(CLUSTER), "--policy", str(POLICY)]


def call(*arguments: str, env: dict[str, str] | None = None) -> Result:
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200", "NO_COLOR": "1", **(env or {})})


def test_plan_writes_the_file_that_execute_reads(tmp_path: Path) -> None:
    output = tmp_path / "plan.json"
    done = call("plan", *FILES, "--output", str(output))
    assert done.exit_code == 0, done.output
    plan = json.loads(output.read_text())
    assert plan["plan"]["primary_node_id"] == "node-1"
    assert plan["plan"]["failover_target_id"] == "node-2"
    assert plan["action_count"] == len(plan["plan"]["actions"]) == 5
    assert plan["digest"].startswith("sha256:") and plan["digest"] in done.output


def test_plan_as_json_is_one_document() -> None:
    done = call("plan", *FILES, "--json")
    assert json.loads(done.stdout)["plan"]["failover_target_id"] == "node-2"


@pytest.mark.parametrize(
    ("options", "missing"),
    [
        (("--override", "--lost", "node-1"), "--lost goes with --live"),
        (("--live", "--lost", "node-1"), "--lost goes with --override"),
        (("--live", "--override", "--attest-off"), "--attest-off with --lost"),
    ],
)
def test_options_that_give_nodes_up_go_together(options: tuple[str, ...], missing: str) -> None:
    result = call("plan", *FILES, *options)
    assert (result.exit_code, missing in result.output) == (2, True), result.output


def test_a_refused_plan_names_the_rule_its_values_and_the_remedy(tmp_path: Path) -> None:
    broken = tmp_path / "cluster.yaml"
    text = CLUSTER.read_text()
    broken.write_text(text.replace("status: healthy", "status: failed"))
    done = call("plan", "--cluster", str(broken), "--policy", str(POLICY))
    assert done.exit_code == 3
    assert "Refused [no_quorum]" in done.stderr
    assert "quorum_size = 2" in done.stderr and "→" in done.stderr


@pytest.mark.parametrize(
    ("change", "field", "value"),
    [
        (("capacity: 95.0", "capacity: -1"), "capacity", "-1"),
        (("role: secondary", "role: primry"), "role", "primry"),
        (("quorum_size: 2", "quorum_size: 1"), "quorum_size", "1"),
    ],
)
def test_a_bad_file_is_named_with_line_field_value_and_what_was_expected(
    tmp_path: Path, change: tuple[str, str], field: str, value: str
) -> None:
    text = CLUSTER.read_text()
    assert change[0] in text
    bad = tmp_path / "cluster.yaml"
    bad.write_text(text.replace(*change, 1))
    line = next(n for n, t in enumerate(bad.read_text().splitlines(), 1) if change[1] in t)
    done = call("validate", "--cluster", str(bad))
    assert done.exit_code == 2
    for part in (f"{bad}:{line}", field, value, "expected"):
        assert part in done.output


@pytest.mark.parametrize("kind", ["people", "issuers"])
def test_who_may_do_what_is_checked_before_somebody_has_to_be_proved(tmp_path: Path, kind: str) -> None:
    """As `api key` and `people key` print it: an entry, and not the file that it goes into."""
    file = tmp_path / f"{kind}.yaml"
    file.write_text("- name: api\n  public_key: ed25519:AAAA\n")
    done = call("validate", "--cluster", str(CLUSTER), f"--{kind}", str(file))
    assert done.exit_code == 2 and str(file) in done.output and "expected" in done.output
    file.write_text(f"{kind}: []\n")
    assert call("validate", "--cluster", str(CLUSTER), f"--{kind}", str(file)).exit_code == 0


def test_validate_says_what_the_cluster_survives() -> None:
    done = call("validate", "--cluster", str(CLUSTER))
    assert done.exit_code == 0
    lines = {line.split("  ")[0]: line for line in done.output.splitlines()}
    assert "fails over" in lines["node-1"] and "goes on" in lines["node-2"]
    assert "stops" in lines["region region-1"]
    assert "in a third region" in done.output


def test_validate_compares_the_wait_for_a_region_with_how_long_a_loss_must_last(tmp_path: Path) -> None:
    regions = tmp_path / "regions.yaml"
    for dwell_s, odd in ((200, True), (100, False)):
        regions.write_text(f"dwell_s: {dwell_s}\n")
        files = ("--cluster", str(CLUSTER), "--policy", str(POLICY), "--regions", str(regions))
        done = call("validate", *files)
        assert done.exit_code == 0 and ("region_wait_s 180" in done.output) is odd


def test_a_cluster_of_two_nodes_is_an_error_that_proposes_a_witness(tmp_path: Path) -> None:
    text = CLUSTER.read_text()
    two = tmp_path / "cluster.yaml"
    two.write_text(text[: text.rindex("  - node_id: node-3")])
    done = call("validate", "--cluster", str(two))
    assert done.exit_code == 2
    assert f"{two}: nodes: found 2 nodes; expected at least 3 nodes" in done.output
    assert "add a witness" in done.output


def test_a_missing_file_is_one_clear_line(tmp_path: Path) -> None:
    done = call("plan", "--cluster", str(tmp_path / "no.yaml"), "--policy", str(POLICY))
    assert done.exit_code == 2
    assert str(tmp_path / "no.yaml") in done.output and "Traceback" not in done.output


@pytest.mark.parametrize("seed", ["42", "7"])
def test_the_same_seed_gives_the_same_bytes(tmp_path: Path, seed: str) -> None:
    files = []
    for name in ("a.json", "b.json"):
        files.append(tmp_path / name)
        scenario = ["--scenario", "primary_failure", "--seed", seed, "--output", str(files[-1])]
        assert call("simulate", *FILES, *scenario).exit_code == 0
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_plan_changed_by_hand_is_refused(tmp_path: Path) -> None:
    output = tmp_path / "plan.json"
    call("plan", *FILES, "--output", str(output))
    output.write_text(output.read_text().replace("node-2", "node-3"))
    done = call("execute", "--plan", str(output))
    assert done.exit_code == 2
    assert "digest" in done.output


@pytest.mark.parametrize("command", ["execute", "break-glass record --state-dir s --reason r"])
def test_a_file_that_is_no_text_is_one_clear_line(tmp_path: Path, command: str) -> None:
    binary = tmp_path / "plan.json"
    binary.write_bytes(b"\x7fELF\xd0")
    done = call(*command.split(), "--plan", str(binary))
    assert done.exit_code == 2, done.output
    assert f"{binary}: found the byte 0xd0, which is no UTF-8; expected a file written by" in done.output


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("maintenance run c --reason x --window 0s", "window_s: found 0.0; expected greater than 0"),
        ("maintenance run c%c --reason x", "cluster_id: found 'c%c'; expected text that matches ^"),
        ("run pause c --reason=", "reason: found ''; expected at least 1 character"),
        ("region evacuate r --reason=", "reason: found ''; expected at least 1 character"),
        ("execute --plan PLAN --reason=", "reason: found ''; expected at least 1 character"),
    ],
)
def test_what_makes_no_request_is_named_with_its_field_value_and_what_was_expected(
    tmp_path: Path, typed: str, told: str
) -> None:
    plan = tmp_path / "plan.json"
    call("plan", *FILES, "--output", str(plan))
    done = call(*(str(plan) if word == "PLAN" else word for word in typed.split()))
    assert (done.exit_code, told in done.stderr) == (2, True), done.output


def test_what_was_read_is_no_fault_of_whoever_types() -> None:
    with pytest.raises(ValidationError) as typed:
        PauseRunRequest(by="ann", reason="")
    with pytest.raises(ValidationError) as read:
        PauseRunRequest.model_validate_json('{"by": "ann", "reason": ""}')
    assert not_usable(typed.value) and not_usable(read.value) is None and not_usable(ValueError()) is None


def test_without_a_server_one_line_says_what_to_do(tmp_path: Path) -> None:
    output = tmp_path / "plan.json"
    call("plan", *FILES, "--output", str(output))
    done = call("execute", "--plan", str(output), "--address", "127.0.0.1:1")
    assert done.exit_code == 4
    assert len(done.stderr.strip().splitlines()) == 1
    assert "127.0.0.1:1" in done.stderr and "TEMPORAL_ADDRESS" in done.stderr


@pytest.mark.parametrize(("options", "deed"), [([], "start"), (["--override"], "override")])
def test_who_starts_a_run_signs_for_what_the_run_asks_a_proof_of(
    tmp_path: Path, options: list[str], deed: str
) -> None:
    plan, key = tmp_path / "plan.json", tmp_path / "key.pem"
    call("plan", *FILES, "--output", str(plan))
    call("people", "key", "--name", "ann", "--role", "continuity_admin", "--key", str(key))
    done = call("execute", "--plan", str(plan), "--key", str(key), "--print", *options)
    claim = json.loads(done.stdout)["token"]["claim"]
    assert (claim["person"], claim["deed"]) == ("ann", deed)


def test_a_drill_prints_what_starts_a_failover_of_a_healthy_primary_and_the_way_back() -> None:
    done = call("execute", "lab-1", "--drill", "--reason", "quarterly", "--print")
    request = FailoverRequest.model_validate_json(done.stdout)
    assert request.even_if_healthy and request.maintenance is not None
    assert (request.maintenance.there_by, request.maintenance.drill) == (RunKind.PRIMARY_FAILURE, True)
    assert request.maintenance.back_after_s is not None


@pytest.mark.parametrize(
    "arguments",
    [
        ["execute"],
        ["execute", "lab-1"],
        ["execute", "--drill"],
        ["execute", "lab-1", "--drill", "--dry-run"],
        [*SCHEDULE, "--drill"],
        [*SCHEDULE, "--runbook", "primary_failure"],
    ],
)
def test_a_drill_that_is_not_whole_is_wrong_usage(arguments: list[str]) -> None:
    done = call(*arguments)
    assert done.exit_code == 2 and "expected" in done.stderr


def test_a_drill_is_scheduled_by_a_runbook_of_one_cluster_only() -> None:
    done = call(*SCHEDULE, "--drill", "--back-after", "30s", "--runbook", "region_failure")
    assert done.exit_code == 2 and "'primary_failure', 'planned_maintenance'" in done.stderr


@pytest.mark.parametrize("longer", ["0s", "2d", "soon"])
def test_a_window_is_extended_by_more_than_nothing_and_at_most_a_day(longer: str) -> None:
    done = call("run", "extend", "lab-1", "--for", longer, "--reason", "late", "--address", "127.0.0.1:1")
    assert done.exit_code == 2 and longer in done.stderr


@pytest.mark.parametrize(
    ("options", "missing"), [(["--vantages-only"], "--vantage"), (["--vantage", "site-b"], "--state-dir")]
)
def test_a_worker_says_what_it_cannot_do_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], missing: str
) -> None:
    monkeypatch.setattr(settings, "DEFAULT_STATE_DIR", tmp_path / "none")
    done = call("worker", "--config-dir", str(tmp_path), *options, env={"QNWIS_STATE_DIR": ""})
    assert done.exit_code == 2
    assert missing in done.output


def test_a_worker_keeps_its_state_where_commands_look_for_it_if_that_exists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[WorkerSettings] = []

    async def begin(told: WorkerSettings) -> None:
        begun.append(told)

    monkeypatch.setattr(settings, "DEFAULT_STATE_DIR", tmp_path)
    monkeypatch.setattr(processes, "run_worker", begin)
    done = call("worker", "--config-dir", str(tmp_path), env={"QNWIS_STATE_DIR": ""})
    assert (done.exit_code, [one.state_dir for one in begun]) == (0, [tmp_path])


def test_a_worker_that_only_watches_needs_no_state(tmp_path: Path) -> None:
    watching = ["--vantages-only", "--vantage", "site-b", "--address", "127.0.0.1:1"]
    done = call("worker", "--config-dir", str(tmp_path), *watching)
    assert done.exit_code == 4, "it gets as far as the server that is not there"


@pytest.mark.parametrize("command", [["restore", "node-1"], ["kill", "node-1"], ["clients"]])
def test_a_lab_that_was_stopped_is_not_started_in_part(tmp_path: Path, command: list[str]) -> None:
    folder = Folder(tmp_path)
    write_registry(folder.config, three_nodes("lab-9"))
    block = Block.on_loopback(9)
    write_state(folder, LabState(block=block, cluster_id="lab-9", owner_pid=1, owner_identity="another"))
    done = call("lab", *command, "--directory", str(tmp_path))
    assert done.exit_code == 1
    assert "runs any more; start a new one with `qnwis-continuity lab start`" in done.output


def test_commands_for_a_lab_that_is_not_there_say_how_to_start_one(tmp_path: Path) -> None:
    done = call("lab", "stop", "--directory", str(tmp_path / "none"))
    assert done.exit_code == 1
    assert "lab start" in done.output
