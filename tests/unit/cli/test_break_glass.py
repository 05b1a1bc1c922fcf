"""`break-glass` as a user types it, where nobody answers or a file is not what it was."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from qnwis.continuity.evidence import evidence_from_file
from tests.unit.cli.test_commands import CLUSTER, POLICY, call
from tests.unit.continuity.test_break_glass import FAILOVER


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
    steps, state = tmp_path / "steps.json", tmp_path / "state"
    cluster = FAILOVER.cluster.model_copy(
        update={
            "dns": None,
            "nodes": tuple(
                node.model_copy(update={"endpoint": "http://127.0.0.1:9"}) for node in FAILOVER.cluster.nodes
            ),
        }
    )
    paper = FAILOVER.model_copy(update={"cluster": cluster, "before": evidence_from_file(cluster)})
    steps.write_text(paper.model_dump_json())
    told = ["--plan", str(steps), "--reason", "no Temporal", "--by", "bob", "--state-dir", str(state)]
    said = call("break-glass", "record", *told, env={"QNWIS_KEY": str(tmp_path / "none.pem")})
    assert said.exit_code == 1, said.output
    assert "FAIL old_primary_fenced: there is no fencing evidence for node-1" in said.output
    assert "recorded afterwards, not verified; by bob (unauthenticated)" in said.output
    verified = call("audit", "verify", env={"QNWIS_STATE_DIR": str(state)})
    assert verified.exit_code == 0, verified.output


def test_a_misspelt_region_is_refused_and_the_known_ones_are_named(tmp_path: Path) -> None:
    config, sheets = tmp_path / "config", tmp_path / "sheets"
    config.mkdir()
    (config / "cluster.yaml").write_text(nowhere(tmp_path).read_text())
    (config / "policy.yaml").write_text(POLICY.read_text())
    said = call("break-glass", "region", "regoin-1", "--config-dir", str(config), "--output", str(sheets))
    assert said.exit_code == 3, said.output
    assert "Refused [unknown_region]" in said.stderr and "known are region-1, region-2" in said.stderr
    assert not sheets.exists()
