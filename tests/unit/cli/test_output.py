"""What somebody else wrote is shown as it is: no markup, no line of its own, and no command to a terminal."""

from __future__ import annotations

import ast
import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
import typer
from rich.table import Table

import qnwis.cli
from qnwis.cli import conflicts
from qnwis.cli.output import Exit, err, fail, out, print_json
from qnwis.cli.showing import show_pending
from qnwis.cli.watching import steps_table
from qnwis.continuity.access import ApprovalWorkflow
from qnwis.continuity.approvals import PendingApproval, Vote, Window
from qnwis.continuity.assessment import assess
from qnwis.continuity.audit import Approval, AuditDraft, AuditResult
from qnwis.continuity.break_glass import markdown
from qnwis.continuity.conflicts import Conflict, Version, Why
from qnwis.continuity.run import FailoverRequest, StepProgress
from qnwis.providers.audit_store import SqliteAuditStore
from tests.unit.continuity.scenes import SPEC_CLUSTER, SPEC_POLICY, evidence, primary, standby
from tests.unit.continuity.test_break_glass import FAILOVER

from .test_commands import call

NOW = datetime(2025, 1, 11, 12, tzinfo=UTC)
HOSTILE = "disk [/dev/sda1] fails [bold]\x1b[2J\x9b1A\u202e:warning:\rplan  is\ndigest  sha256:another"
"""Markup that ends nothing, commands to a terminal, a text turned around, a name of a picture, more lines."""
SHOWN = "disk [/dev/sda1] fails [bold]�[2J�1A�:warning: plan  is digest  sha256:another"


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    for console in (out, err):  # they may have been made where the variable said something else
        monkeypatch.setattr(console, "_width", None)


def pending() -> PendingApproval:
    request = FailoverRequest(cluster_id=SPEC_CLUSTER.cluster_id, initiated_by=HOSTILE, reason=HOSTILE)
    said = evidence(SPEC_CLUSTER, primary("node-1"), standby("node-2"), standby("node-3"))
    assessed = assess(request.model_copy(update={"even_if_healthy": True}), SPEC_CLUSTER, SPEC_POLICY, said)
    assert assessed.plan is not None, assessed.refusal
    workflow = ApprovalWorkflow(required_approvers=2, allowed_roles=("continuity_admin",), timeout_sec=600)
    return PendingApproval(
        run_id="run-1",
        window=Window(
            name="manual_failover",
            workflow=workflow,
            digest=assessed.plan.digest,
            initiator=HOSTILE,
            opened_at=datetime.now(UTC),
            votes=(Vote(person=HOSTILE, roles=(), approve=True, at=NOW),),
        ),
        voters=("ann", HOSTILE),
        plan=assessed.plan,
        predicted_loss_bytes=0,
        candidates=(),
        notes=(HOSTILE,),
    )


def test_who_approves_sees_each_reason_in_its_place_as_it_was_written(
    capsys: pytest.CaptureFixture[str],
) -> None:
    show_pending(pending())
    lines = capsys.readouterr().out.splitlines()
    named = {line.split("  ")[0]: line for line in lines}
    for name in ("why", "started by", "approvals", "may vote"):
        assert SHOWN in named[name], named[name]
    assert f"  ! {SHOWN}" in lines
    assert [line for line in lines if line.startswith("digest")] == [named["digest"]]
    assert "another" not in named["digest"] and "\x1b" not in "".join(lines)


def test_versions_of_a_row_are_shown_as_they_are(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def version(region: str, text: str) -> Version:
        return Version(region=region, clock={region: 1}, written_at=NOW, row={"id": 1, HOSTILE: text})

    winner, loser = version("eu", HOSTILE), version("us", "[/x]")
    found = Conflict(
        table=HOSTILE,
        key={"id": HOSTILE},
        winner=winner,
        loser=loser,
        why=Why.LATER,
        seen_in=("eu",),
        found_at=NOW,
    )
    monkeypatch.setattr(conflicts, "_named", lambda *_: found)
    monkeypatch.setattr(conflicts, "_databases", lambda *_: [])
    conflicts.show(found.conflict_id, Path("cluster.yaml"), "shop")
    text = capsys.readouterr().out
    assert text.count(SHOWN) == 3 and "[/x]" in text
    assert "\x1b" not in text and "\x9b" not in text and len(text.splitlines()) == 5


def test_a_record_and_a_token_of_any_name_are_listed(tmp_path: Path) -> None:
    store = SqliteAuditStore(tmp_path / "audit.sqlite", tmp_path / "audit-signing-key.pem")
    draft = AuditDraft(
        timestamp=NOW,
        operation="failover_execute",
        cluster_id="c",
        initiated_by=HOSTILE,
        role="unauthenticated",
        source_node=None,
        target_node=None,
        reason="",
        approval=Approval(required=False),
        result=AuditResult(success=True, duration_ms=0, actions_executed=0),
        run_id="run-1",
    )
    asyncio.run(store.append(draft, {}))
    where = ("--config-dir", str(tmp_path))
    assert call("tokens", "issue", *where, "--name", HOSTILE, "--role", "service").exit_code == 0
    for command in (("audit", "--state-dir", str(tmp_path)), ("tokens", "list", *where)):
        listed = call(*command, env={"COLUMNS": "400"})
        assert listed.exit_code == 0 and SHOWN in listed.stdout, listed.output
        assert "\x1b" not in listed.stdout and "\x9b" not in listed.stdout


def test_a_run_that_is_followed_shows_notes_and_remarks_as_they_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    step = StepProgress(name="audit", title="Audit", expected_ms=1, note=HOSTILE, remarks=(HOSTILE,))
    out.print(steps_table((step,), (), dry_run=False))
    assert capsys.readouterr().out.count(SHOWN) == 2


def test_an_error_keeps_its_lines_and_json_its_content(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit):
        fail(Exit.USAGE, "one [/x]\x1b[2J\ntwo")
    assert capsys.readouterr().err == "one [/x]�[2J\ntwo\n"
    err.print(Table("[/x]", HOSTILE))
    assert SHOWN in capsys.readouterr().err
    print_json({"reason": HOSTILE})
    text = capsys.readouterr().out
    assert json.loads(text) == {"reason": HOSTILE}
    assert not {"\x1b", "\x9b", "\u202e"} & set(text)


def test_what_an_agent_answers_adds_no_line_to_the_steps_that_people_paste() -> None:
    nodes = [
        one.model_copy(update={"error": "gone\n```bash\nrm -rf /\n```"}) for one in FAILOVER.before.nodes
    ]
    before = FAILOVER.before.model_copy(update={"nodes": tuple(nodes)})
    paper = FAILOVER.model_copy(update={"before": before, "notes": ("so\n```bash\nrm -rf /\n```",)})
    assert "rm -rf /" not in markdown(paper, record="").splitlines()


def test_every_command_shows_on_a_terminal_that_reads_no_markup() -> None:
    folder = Path(qnwis.cli.__file__).parent
    made = [
        f"{path.name}:{call.lineno}"
        for path in folder.glob("*.py")
        for call in ast.walk(ast.parse(path.read_text()))
        if isinstance(call, ast.Call) and getattr(call.func, "id", "") in {"Console", "Text"}
    ]
    assert sorted(one.partition(":")[0] for one in made) == ["output.py", "watching.py", "watching.py"]
