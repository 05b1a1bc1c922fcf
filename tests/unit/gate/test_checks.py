"""Each check of the RG-8 gate fails when what it looks at is broken, and says what is wrong."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from qnwis.config.access import RBAC
from qnwis.config.load import load_rbac
from qnwis.config.shipped import shipped
from qnwis.continuity.access import PERMISSIONS, Deed, Rbac, Role
from qnwis.continuity.metrics import METRICS, Kind
from qnwis.providers.audit_store import SqliteAuditStore
from qnwis.scripts.qa.rg8 import (
    audit,
    dashboards,
    determinism,
    documents,
    execution,
    histories,
    metric_names,
    rbac,
    scenarios,
    targets,
)
from qnwis.scripts.qa.rg8.found import Found, NotHere, Verdict, repository
from tests.integration.continuity.mutated import WithoutRehearsal
from workers.wiring import WORKFLOWS

PROJECT = Path(__file__).parents[3]


def missed(found: Found, *told: str) -> None:
    """The check is missed, and its reasons say this."""
    assert found.verdict is Verdict.MISSED, found
    for words in told:
        assert any(words in reason for reason in found.reasons), (words, found.reasons)


# --- targets


def test_what_takes_as_long_as_its_target_is_missed_with_both_values() -> None:
    def slow() -> None:
        sum(range(20_000))

    found = targets.check({"planning": (slow, 0.0), "verification": (lambda: None, 1e9)})
    missed(found, "planning, P95 is ", "expected below 0 ms")
    assert len(found.reasons) == 1 and [figure.what for figure in found.measured] == [
        "planning, P95",
        "verification, P95",
    ]


@pytest.mark.parametrize(("slow", "verdict"), [(5, Verdict.PASSED), (6, Verdict.MISSED)])
def test_one_series_is_measured_and_its_slowest_twentieth_alone_may_take_longer(
    slow: int, verdict: Verdict, monkeypatch: pytest.MonkeyPatch
) -> None:
    took_ms = iter([60.0] * slow + [10.0] * (targets.ROUNDS - slow))
    monkeypatch.setattr(targets, "_took_ms", lambda call: next(took_ms))
    assert targets.check({"planning": (lambda: None, 50.0)}).verdict is verdict
    assert next(took_ms, None) is None, "all of it is measured, and nothing again"


def test_a_busy_machine_is_told_of() -> None:
    assert targets._busy(2.0, 2) == []
    assert targets._busy(18.3, 2)[0].startswith("the machine was busy (load 18 on 2 cores)")


def test_the_targets_are_the_specifications_and_all_is_measured() -> None:
    every = targets.calls(3)
    assert {limit for _, limit in every.values()} == {50, 40, 100}
    assert len(every) == 8
    for call, _ in every.values():
        assert call() is not None
    assert targets.percentile([float(n) for n in range(1, 101)]) == 95


# --- execution


def demo(*, verified: bool = True, lost: list[str] | None = None, took_ms: float = 400) -> dict[str, object]:
    steps = [{"name": "detection", "elapsed_ms": 90}, {"name": "execution", "elapsed_ms": took_ms}]
    return {
        "verified": verified,
        "writes": {"lost": lost or []},
        "detect_ms": 2100.0,
        "writes_back_ms": None,
        "result": {
            "outcome": "completed" if verified else "refused",
            "refusal": None if verified else {"message": "node-1 is healthy"},
            "new_primary": "node-2" if verified else None,
            "steps": steps,
        },
    }


def test_an_execution_that_is_slow_loses_writes_or_is_not_verified_is_missed() -> None:
    assert execution.check(demo).verdict is Verdict.PASSED
    missed(execution.check(lambda: demo(took_ms=60_000)), "execution is 60000 ms, expected below 60000 ms")
    missed(execution.check(lambda: demo(lost=["1-2"])), "1 acknowledged writes are lost")
    refused = execution.check(lambda: demo(verified=False, lost=["1-2"]))
    missed(refused, "ended refused (node-1 is healthy), expected it verified")
    assert len(refused.reasons) == 1


def test_where_there_can_be_no_lab_nothing_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execution, "COMMAND", ("python3", "-c", "raise SystemExit('no PostgreSQL here')"))
    with pytest.raises(NotHere, match="no PostgreSQL here"):
        execution.check()


# --- determinism


def test_the_bytes_of_another_process_that_differ_are_named() -> None:
    def ask(interpreter: str, hash_seed: str) -> str:
        return f"plan aa\nflapping/1 {hash_seed if interpreter != '/other' else 'zz'}\n"

    found = determinism.check({"other": "/other"}, ask)
    missed(found, "flapping/1", "under PYTHONHASHSEED=1", "under PYTHONHASHSEED=4711", "under other")
    assert len(found.reasons) == 3


def test_real_processes_under_other_hash_seeds_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the iteration order of a set as the subject: it depends on the hash seed."""
    monkeypatch.setattr(determinism, "MODULE", "tests.unit.gate.unstable")
    monkeypatch.setenv("PYTHONPATH", "")
    monkeypatch.chdir(PROJECT)
    missed(determinism.check({}), "names has the digest")


def test_an_interpreter_that_cannot_run_the_project_is_told_of_and_no_miss(tmp_path: Path) -> None:
    broken = tmp_path / "python9"
    broken.write_text("#!/bin/sh\necho 'No module named pydantic' >&2; exit 1\n")
    broken.chmod(0o755)
    found = determinism.check({"python9": str(broken)}, lambda who, seed: _asked(who, seed, str(broken)))
    assert found.verdict is Verdict.PASSED
    assert found.notes == (
        "python9 is here and cannot run the project, so it was not compared: No module named pydantic",
    )


def _asked(interpreter: str, hash_seed: str, broken: str) -> str:
    return determinism.run(interpreter, hash_seed) if interpreter == broken else "plan aa\n"


def test_what_an_interpreter_lacks_is_told_of_and_the_rest_compared() -> None:
    printed = {"other": "plan bb\n"}
    found = determinism.check({"other": "other"}, lambda who, _: printed.get(who, "plan aa\nstudy cc\n"))
    missed(found, "plan has the digest bb… under other")
    assert found.notes == ("other was compared", "other has not what study takes")


def test_an_environment_goes_before_an_interpreter_and_both_before_pyenvs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(determinism, "VERSIONS", ("3.97", "3.98", "3.99"))
    monkeypatch.setattr(determinism, "repository", lambda: tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))

    def program(place: str, end: int = 0) -> str:
        file = tmp_path / place
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"#!/bin/sh\nexit {end}\n")
        file.chmod(0o755)
        return str(file)

    environment = program(".venv-3.98/bin/python")
    program("path/python3.98")
    chosen = program("path/python3.99")
    program("path/python3.97", end=127)  # a chooser that has none
    program("pyenv/versions/3.97.9/bin/python")
    newest = program("pyenv/versions/3.97.10/bin/python")
    assert determinism.others_here() == {
        "python3.97": newest,
        "python3.98": environment,
        "python3.99": chosen,
    }


# --- scenarios


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A source tree with the player of stories, and one story."""
    shutil.copytree(PROJECT / "tests" / "chaos", tmp_path / "tests" / "chaos")
    (tmp_path / "tests" / "__init__.py").touch()
    (tmp_path / "src").symlink_to(PROJECT / "src")
    (tmp_path / "tests" / "scenarios").mkdir()
    story = PROJECT / "tests" / "scenarios" / "control-plane-down.yaml"
    shutil.copy(story, tmp_path / "tests" / "scenarios" / "story.yaml")
    return tmp_path


def test_a_story_that_does_not_end_as_it_says_is_missed(corpus: Path) -> None:
    assert scenarios.check(corpus).verdict is Verdict.PASSED
    story = corpus / "tests" / "scenarios" / "story.yaml"
    story.write_text(story.read_text().replace("run: none", "run: completed"))
    missed(scenarios.check(corpus), "story", "VIOLATED")


def test_a_corpus_without_stories_is_missed(corpus: Path) -> None:
    (corpus / "tests" / "scenarios" / "story.yaml").unlink()
    missed(scenarios.check(corpus), "has no story")


# --- histories


def test_a_workflow_that_takes_another_way_is_missed(tmp_path: Path) -> None:
    recorded = PROJECT / "tests" / "histories" / "primary_failure_completed.json"
    shutil.copy(recorded, tmp_path)
    found = histories.check(tmp_path, [WithoutRehearsal])
    missed(found, "primary_failure_completed.json does not replay: NondeterminismError")
    assert len(found.reasons) == len(WORKFLOWS), "one for each that has no history, and for the one that has"
    missed(found, "no history of Guardian, ", "no history of RegionFailure, ", "no history of UsedToken, ")


# --- RBAC


@pytest.fixture
def table() -> Rbac:
    return load_rbac(shipped("config") / RBAC)


def changed(table: Rbac, name: str, *permissions: str) -> Rbac:
    roles = tuple(
        Role(name=name, permissions=permissions) if role.name == name else role for role in table.roles
    )
    return table.model_copy(update={"roles": roles})


def test_a_role_that_may_more_is_missed_with_the_deeds_it_got(table: Rbac) -> None:
    assert rbac.check(table).verdict is Verdict.PASSED
    viewer = changed(table, "continuity_viewer", "continuity:read_status", "continuity:emergency_override")
    missed(
        rbac.check(viewer),
        "continuity_viewer has",
        "override is allowed to continuity_admin, continuity_viewer",
    )


def test_a_workflow_with_fewer_approvers_is_missed(table: Rbac) -> None:
    workflows = dict(table.approval_workflows)
    easy = workflows["emergency_override"].model_copy(update={"required_approvers": 1})
    weaker = table.model_copy(update={"approval_workflows": {**workflows, "emergency_override": easy}})
    missed(rbac.check(weaker), "emergency_override is 1 of continuity_admin", "expected 2 of")
    without = table.model_copy(update={"approval_workflows": {}})
    missed(rbac.check(without), "there is no approval workflow manual_failover")


def test_a_deed_that_needs_no_permission_is_missed(table: Rbac) -> None:
    fewer = {deed: needs for deed, needs in PERMISSIONS.items() if deed is not Deed.ABORT}
    missed(rbac.check(table, fewer), "abort needs no permission, expected one")


# --- audit


def test_an_audit_check_that_overlooks_a_tampering_is_missed() -> None:
    async def blind(store: SqliteAuditStore) -> int:
        return 0

    found = audit.check(blind, lambda data: 0)
    missed(found, "60 of 60 flipped bytes of a bundle do not show")
    missed(found, *(f"{what}, and the log is still proved" for what in audit.TAMPERINGS))


def test_a_check_that_proves_nothing_is_missed() -> None:
    async def cries_wolf(store: SqliteAuditStore) -> int:
        return 1

    missed(
        audit.check(cries_wolf, lambda data: 1),
        "a log that nobody touched is not proved",
        "a bundle that nobody",
    )


def test_the_audit_trail_passes() -> None:
    assert audit.check().verdict is Verdict.PASSED


# --- metrics and dashboards


def test_a_metric_that_is_gone_renamed_or_lost_a_label_is_missed() -> None:
    assert metric_names.check().verdict is Verdict.PASSED
    first, *rest = METRICS
    missed(metric_names.check(rest), f"{first.name} is not measured")
    renamed = first._replace(name="latency")
    missed(metric_names.check([renamed, *rest]), "latency is beyond the specification")
    unlabelled = [m._replace(labels=()) if m.name == "qnwis_failover_failures_total" else m for m in METRICS]
    missed(metric_names.check(unlabelled), "qnwis_failover_failures_total lacks the labels cluster, reason")
    other = [m._replace(kind=Kind.GAUGE) if m.name == "qnwis_failover_execution_ms" else m for m in METRICS]
    missed(metric_names.check(other), "qnwis_failover_execution_ms is a gauge, expected a histogram")


def test_a_dashboard_or_rule_that_asks_for_what_is_not_measured_is_missed(tmp_path: Path) -> None:
    for folder in ("grafana", "prometheus"):
        shutil.copytree(PROJECT / folder, tmp_path / folder)
    assert dashboards.check(tmp_path).verdict is Verdict.PASSED
    rules = tmp_path / "prometheus" / "continuity_alerts.yml"
    rules.write_text(rules.read_text().replace("continuity_node_status", "continuity_node_state"))
    file = tmp_path / dashboards.DASHBOARD
    data = json.loads(file.read_text())
    data["panels"] = [panel for panel in data["panels"] if panel["title"] != "Quorum status"]
    data["panels"][0]["targets"] = [{"expr": 'continuity_invented{cluster="a"}'}]
    file.write_text(json.dumps(data))
    missed(
        dashboards.check(tmp_path),
        "continuity_alerts.yml asks for continuity_node_state",
        "is not what the code makes",
        "has no panel 'Quorum status'",
        "continuity_ops.json asks for continuity_invented",
    )


# --- documents


def test_a_page_that_names_what_is_not_there_is_missed(tmp_path: Path) -> None:
    for name in ("docs", "runbooks"):
        shutil.copytree(PROJECT / name, tmp_path / name)
    for name in ("README.md", "SECURITY.md", "Makefile"):
        shutil.copy(PROJECT / name, tmp_path)
    for path in PROJECT.iterdir():
        if path.name not in {".git", ".venv"} and not (tmp_path / path.name).exists():
            (tmp_path / path.name).symlink_to(path)
    assert documents.check(tmp_path).verdict is Verdict.PASSED, documents.check(tmp_path).reasons
    with (tmp_path / "README.md").open("a") as readme:
        readme.write("`make gold`, `qnwis-continuity dance`, [a page](docs/nowhere.md), `test_of_nothing`\n")
    (tmp_path / "runbooks" / "region_failure.md").unlink()
    missed(
        documents.check(tmp_path),
        "README.md names `make gold`",
        "README.md names `qnwis-continuity dance`",
        "README.md names the file docs/nowhere.md",
        "README.md names the test test_of_nothing",
        "runbooks/region_failure.md is not there",
    )


def test_the_repository_is_found_here() -> None:
    assert repository() == PROJECT
