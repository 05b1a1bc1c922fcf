"""`break-glass` as a user types it, where nobody answers or a file is not what it was."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

import pytest

from qnwis.cli.files import make_folder
from qnwis.config.problem import ConfigError
from qnwis.continuity.audit import AuditRecord
from qnwis.continuity.evidence import evidence_from_file
from qnwis.continuity.lease_messages import LastGrant
from qnwis.providers.audit_place import audit_store_of
from tests.unit.cli.test_commands import CLUSTER, CONFIG, POLICY, call
from tests.unit.continuity.test_break_glass import FAILOVER, promise_of


def nowhere(folder: Path) -> Path:
    """The shipped cluster, with agents where nobody listens."""
    file = folder / "cluster.yaml"
    file.write_text(
        re.sub(r"(\n +)(hostname: .*)", r"\1\2\1endpoint: http://127.0.0.1:9", CLUSTER.read_text())
    )
    return file


def test_without_a_majority_of_agents_it_refuses_and_prints_no_step(tmp_path: Path) -> None:
    output = tmp_path / "steps.md"
    files = ["--cluster", str(nowhere(tmp_path)), "--policy", str(POLICY)]
    said = call("break-glass", "plan", *files, "--output", str(output))
    assert said.exit_code == 3, said.output
    assert "Refused [no_majority_of_agents]: 0 of the 3 agents of prod-cluster answer" in said.stderr
    assert 'silent = ["node-1", "node-2", "node-3"]' in said.stderr and "needed = 2" in said.stderr
    assert "→ Reach or start more of the agents" in said.stderr
    assert "tell" not in said.output and not output.exists()


def test_the_steps_are_not_written_where_their_record_is(tmp_path: Path) -> None:
    files = ["--cluster", str(nowhere(tmp_path)), "--policy", str(POLICY)]
    said = call("break-glass", "plan", *files, "--output", str(tmp_path / "steps.json"))
    assert said.exit_code == 2, said.output
    assert "steps.json: expected another ending" in said.stderr


def test_sheets_go_into_a_directory(tmp_path: Path) -> None:
    file = tmp_path / "sheets"
    file.write_text("taken")
    for output in (file, file / "below"):
        said = call("break-glass", "region", "region-1", "--config-dir", str(CONFIG), "--output", str(output))
        assert said.exit_code == 2, said.output
        assert f"{output}: found Not a directory; expected a directory" in said.stderr
    assert file.read_text() == "taken"
    with pytest.raises(ConfigError, match="expected a directory, or a place for one"):
        make_folder(Path("/proc/none/sheets"))


def nobody_answers(folder: Path) -> Path:
    """The steps of a failover, of a cluster whose agents are gone."""
    cluster = FAILOVER.cluster.model_copy(
        update={
            "dns": None,
            "nodes": tuple(
                node.model_copy(update={"endpoint": "http://127.0.0.1:9"}) for node in FAILOVER.cluster.nodes
            ),
        }
    )
    paper = FAILOVER.model_copy(update={"cluster": cluster, "before": evidence_from_file(cluster)})
    (folder / "steps.json").write_text(paper.model_dump_json())
    return folder / "steps.json"


def test_steps_that_were_edited_are_not_recorded(tmp_path: Path) -> None:
    steps, state = tmp_path / "steps.json", tmp_path / "state"
    steps.write_text(
        FAILOVER.model_dump_json().replace('"failover_target_id":"node-2"', '"failover_target_id":"node-3"')
    )
    said = call("break-glass", "record", "--plan", str(steps), "--reason", "x", "--state-dir", str(state))
    assert said.exit_code == 2 and "digest" in said.output
    assert not state.exists()


def test_what_did_not_come_to_be_is_recorded_as_not_verified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody answers when the world is read again."""
    monkeypatch.setattr("qnwis.cli.break_glass.SETTLE_S", 0)
    monkeypatch.chdir(tmp_path)
    steps, state = nobody_answers(tmp_path), tmp_path / "state"
    told = ["--plan", str(steps), "--reason", "no Temporal", "--by", "bob", "--state-dir", str(state)]
    said = call("break-glass", "record", *told, env={"QNWIS_KEY": str(tmp_path / "none.pem")})
    assert said.exit_code == 1, said.output
    assert "FAIL old_primary_fenced: there is no fencing evidence for node-1" in said.output
    assert "recorded afterwards, not verified; by bob (unauthenticated)" in said.output
    assert f"{FAILOVER.run_id} is not there: it is recorded without any" in said.stderr
    verified = call("audit", "verify", env={"QNWIS_STATE_DIR": str(state)})
    assert verified.exit_code == 0, verified.output


def test_what_is_said_later_is_kept_as_a_supplement_and_the_first_record_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first time in the wrong directory, where no answers are."""
    monkeypatch.setattr("qnwis.cli.break_glass.SETTLE_S", 0)
    monkeypatch.chdir(tmp_path)
    steps, state, answers = nobody_answers(tmp_path), tmp_path / "state", tmp_path / "answers"
    answers.mkdir()
    granted = LastGrant(epoch=4, holder="node-1", duration_s=3.0)
    for member in ("node-2", "node-3"):
        (answers / f"promise-{member}.json").write_text(promise_of(member, granted).model_dump_json())

    def record(*options: str) -> tuple[str, AuditRecord]:
        """What was said of it on standard error, and the record."""
        told = ["--plan", str(steps), "--by", "bob", "--state-dir", str(state), "--json", *options]
        said = call("break-glass", "record", *told, env={"QNWIS_KEY": str(tmp_path / "none.pem")})
        assert said.exit_code == 1, said.output
        return said.stderr, AuditRecord.model_validate_json(said.stdout)

    _, first = record("--reason", "no Temporal")
    told, second = record("--reason", "no Temporal", "--answers", str(answers))
    assert second.run_id == f"{FAILOVER.run_id}-2" and f"a supplement to it, {second.run_id}" in told
    assert second.reason.endswith(f"by bob; a supplement to {first.audit_id})")
    assert {"fencing", "answers"} <= second.manifest.keys() and "fencing" not in first.manifest
    told, third = record("--reason", "no Temporal", "--attest", "the plug is out")
    assert third.run_id == f"{FAILOVER.run_id}-3" and third.run_id in told
    told, again = record("--reason", "no Temporal", "--answers", str(answers))
    assert again == second and "nothing was added" in told

    store = audit_store_of(state, {})
    records = asyncio.run(store.latest(9))
    assert [one.audit_id for one in records] == [one.audit_id for one in (third, second, first)]
    kept = asyncio.run(store.artefacts(second.audit_id))
    assert json.loads(kept["answers"]).keys() == {"promise-node-2", "promise-node-3"}
    assert json.loads(kept["recorded"])["supplements"] == first.audit_id
    assert '"the plug is out"' in asyncio.run(store.artefacts(third.audit_id))["recorded"]
    verified = call("audit", "verify", env={"QNWIS_STATE_DIR": str(state)})
    assert verified.exit_code == 0, verified.output


def test_answers_that_are_not_where_they_are_said_to_be_end_it_before_anything_is_recorded(
    tmp_path: Path,
) -> None:
    steps, state, wrong = nobody_answers(tmp_path), tmp_path / "state", tmp_path / "wrong"
    told = ["--plan", str(steps), "--reason", "x", "--by", "bob", "--state-dir", str(state)]
    said = call("break-glass", "record", *told, "--answers", str(wrong))
    assert said.exit_code == 2 and f"--answers {wrong} is no folder" in said.stderr, said.output
    assert not state.exists()


def test_a_misspelt_region_is_refused_and_the_known_ones_are_named(tmp_path: Path) -> None:
    config, sheets = tmp_path / "config", tmp_path / "sheets"
    config.mkdir()
    (config / "cluster.yaml").write_text(nowhere(tmp_path).read_text())
    (config / "policy.yaml").write_text(POLICY.read_text())
    said = call("break-glass", "region", "regoin-1", "--config-dir", str(config), "--output", str(sheets))
    assert said.exit_code == 3, said.output
    assert "Refused [unknown_region]" in said.stderr and "known are region-1, region-2" in said.stderr
    assert not sheets.exists()
