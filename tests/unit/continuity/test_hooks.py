"""What hooks are declared, and what their failure means."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from qnwis.config.hooks import UNSHOWN, load_hooks
from qnwis.config.problem import ConfigError
from qnwis.config.shipped import shipped
from qnwis.continuity.hooks import (
    DueHook,
    HookContext,
    HookResult,
    OnFailure,
    When,
    stop_reason,
    unreadable_refusal,
)
from qnwis.continuity.hooks_file import Declared
from qnwis.continuity.run import RunKind

HOOK = {"name": "drain", "before": "execution", "command": ["drain", "shop"]}
PROBE = {"name": "shop", "http": {"url": "http://shop/"}}


def problems(folder: Path, text: str) -> list[str]:
    file = folder / "hooks.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_hooks(file)
    return [str(problem).removeprefix(f"{folder}/") for problem in caught.value.problems]


def problem(folder: Path, **changes: object) -> str:
    """The one problem of a hook with these changes; None takes a field away."""
    hook = {name: value for name, value in {**HOOK, **changes}.items() if value is not None}
    (one,) = problems(folder, yaml.safe_dump({"hooks": [hook]}, sort_keys=False))
    return one


# ---- the file


def test_without_a_file_there_are_no_hooks(tmp_path: Path) -> None:
    assert Declared.of(load_hooks(tmp_path / "hooks.yaml"), "c1", RunKind.PRIMARY_FAILURE) == Declared()


def test_the_shipped_file_and_its_comment_are_valid(tmp_path: Path) -> None:
    file = shipped("config") / "continuity" / "hooks.yaml"
    assert load_hooks(file).hooks == ()
    lines = [line.removeprefix("# ") for line in file.read_text().splitlines() if line.startswith("# ")]
    (tmp_path / "hooks.yaml").write_text("\n".join(lines[lines.index("hooks:") :]))
    found = load_hooks(tmp_path / "hooks.yaml")
    assert found.hooks[0].on_failure is OnFailure.STOP and found.steady_state[0].within_ms == 500


def test_every_problem_is_named_with_its_line_field_value_and_what_was_expected(tmp_path: Path) -> None:
    text = """hooks:
  - name: drain
    before: exection
    command: [drain]
    timeout_s: 6000
    on_failure: halt
  - {name: tell, after: audit, command: [tell]}
"""
    assert problems(tmp_path, text) == [
        "hooks.yaml:3:13: hooks[0].before: found exection; expected one of the steps assessment, simulation,"
        " approval, execution, verification, audit, notification, window, rollback",
        "hooks.yaml:5:16: hooks[0].timeout_s: found 6000; expected less than or equal to 600",
        "hooks.yaml:6:17: hooks[0].on_failure: found halt; expected 'stop' or 'go_on'",
        "hooks.yaml:7:25: hooks[1].after: found audit; expected one of the steps detection, assessment,"
        " simulation, approval, execution, verification, preparation, notification, window, rollback",
    ]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"before": "window", "runbooks": ["primary_failure"]}, "one of the steps assessment, simulation"),
        ({"before": "preparation"}, "one of the steps assessment"),
        ({"after": "execution"}, "exactly one of before and after"),
        ({"command": None}, "exactly one of http and command"),
        ({"http": {"url": "http://a/"}}, "exactly one of http and command"),
        ({"comand": ["x"]}, "the field `command`"),
        ({"command": None, "http": {"url": "ftp://a/"}}, "http://…, https://… or env:NAME"),
        ({"command": None, "http": {"url": "http://ann:pw@a/"}}, "without user and password"),
        (
            {"command": None, "http": {"url": "env:U", "headers": {"Authorization": "Bearer hunter2"}}},
            "env:NAME for Authorization",
        ),
        (
            {"command": None, "http": {"url": "env:U", "headers": {"idempotency-key": "1"}}},
            "no idempotency-key",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, changes: dict[str, object], expected: str) -> None:
    assert expected in problem(tmp_path, **changes)


def test_no_problem_shows_what_may_be_a_secret(tmp_path: Path) -> None:
    for http in (
        {"url": "http://ann:hunter2@a/"},
        {"url": "http://a/", "headers": {"X-Token": "hunter2"}},
        {"url": "http://a/", "headers": {"A": ["hunter2"]}},
        {"url": "http://a/", "header": "hunter2 http://ann:hunter2@a/"},
    ):
        found = problem(tmp_path, command=None, http=http)
        assert "hunter2" not in found, found
    assert UNSHOWN in problem(tmp_path, command=None, http={"url": "gopher://hunter2"})


def test_a_hook_concerns_the_runbooks_and_clusters_that_it_names(tmp_path: Path) -> None:
    hooks = [
        HOOK,
        {**HOOK, "name": "planned", "runbooks": ["planned_maintenance"]},
        {**HOOK, "name": "theirs", "clusters": ["c2"]},
    ]
    (tmp_path / "hooks.yaml").write_text(yaml.safe_dump({"hooks": hooks, "steady_state": [PROBE]}))
    file = load_hooks(tmp_path / "hooks.yaml")

    def names(cluster_id: str, kind: RunKind) -> list[str]:
        return [hook.name for hook in Declared.of(file, cluster_id, kind).hooks_at(When.BEFORE, "execution")]

    assert names("c1", RunKind.PRIMARY_FAILURE) == ["drain"]
    assert names("c2", RunKind.PLANNED_MAINTENANCE) == ["drain", "planned", "theirs"]
    assert Declared.of(file, "c1", RunKind.PRIMARY_FAILURE).steady_state == (), "its primary is gone"
    (probe,) = Declared.of(file, "c1", RunKind.PLANNED_MAINTENANCE).steady_state
    assert (probe.name, probe.failures) == ("shop", 3)


def test_a_run_knows_nothing_of_what_is_called(tmp_path: Path) -> None:
    call = {"url": "http://a/place", "headers": {"X-Token": "env:HOOK_TOKEN"}}
    (tmp_path / "hooks.yaml").write_text(
        yaml.safe_dump({"hooks": [HOOK, {"name": "tell", "after": "execution", "http": call}]})
    )
    known = Declared.of(load_hooks(tmp_path / "hooks.yaml"), "c1", RunKind.PRIMARY_FAILURE)
    assert not any(part in known.model_dump_json() for part in ("place", "HOOK_TOKEN", "shop"))


# ---- decisions


def due(on_failure: OnFailure) -> DueHook:
    return DueHook(name="drain", when=When.BEFORE, step="execution", timeout_s=1, on_failure=on_failure)


@pytest.mark.parametrize("on_failure", OnFailure)
@pytest.mark.parametrize("ok", [True, False])
@pytest.mark.parametrize("past_return", [True, False])
def test_only_a_failed_stop_before_the_point_of_no_return_stops(
    on_failure: OnFailure, ok: bool, past_return: bool
) -> None:
    result = HookResult(hook="drain", when=When.BEFORE, step="execution", ok=ok, detail="exit status 1")
    reason = stop_reason(due(on_failure), result, past_return=past_return)
    assert (reason is not None) == (on_failure is OnFailure.STOP and not ok and not past_return)
    assert reason is None or reason == "hook drain before execution failed: exit status 1"


@pytest.mark.parametrize("automatic", [True, False])
@pytest.mark.parametrize("begun", [True, False])
def test_a_broken_file_refuses_only_what_a_person_begins(automatic: bool, begun: bool) -> None:
    assert unreadable_refusal(None, automatic=automatic, begun=begun) is None
    refusal = unreadable_refusal("line 3", automatic=automatic, begun=begun)
    assert (refusal is not None) == (not automatic and not begun)


def test_the_key_is_one_of_the_run_the_place_and_the_hook_and_of_nothing_else() -> None:
    context = HookContext(
        cluster_id="c1",
        run_id="r1",
        runbook="primary_failure",
        hook="drain",
        when=When.AFTER,
        step="execution",
        initiated_by="ann",
        reason="nul \0 in it",
    )
    later = context.model_copy(update={"step_status": "done", "outcome": "completed"})
    assert later.idempotency_key == context.idempotency_key == "r1/after-execution/drain"
    others = {"run_id": "r2", "when": When.BEFORE, "step": "audit", "hook": "undrain"}
    keys = {context.model_copy(update={name: value}).idempotency_key for name, value in others.items()}
    assert len(keys | {context.idempotency_key}) == 5
    environment = later.environment()
    assert environment["QNWIS_IDEMPOTENCY_KEY"] == later.told()["idempotency_key"] == later.idempotency_key
    assert (environment["QNWIS_OUTCOME"], environment["QNWIS_REASON"]) == ("completed", "nul  in it")
