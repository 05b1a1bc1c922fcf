"""Loads `hooks.yaml`. Its problems name file, line and field, and show no header and no address."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from qnwis.continuity.hooks_file import HooksFile
from qnwis.continuity.run import OF_A_CLUSTER
from qnwis.runbook import load_runbook

from .load import validated
from .problem import ConfigError, Problem
from .yaml_source import YamlSource, read_yaml

FILE = "hooks.yaml"

UNSHOWN = "what is not shown, because it may be a secret"
ABSENT = ("nothing", "a list", "a mapping")


def load_hooks(path: Path) -> HooksFile:
    """What is declared in `path`; nothing where there is no file. Raises ConfigError."""
    if not path.exists():
        return HooksFile()
    try:
        source = read_yaml(path)
        return validated(HooksFile, source, list(_misplaced(source)))
    except ConfigError as error:
        problems = [_without_secrets(problem) for problem in error.problems]
    raise ConfigError(problems)


def _misplaced(source: YamlSource) -> Iterator[Problem]:
    """Hooks at steps that no runbook of theirs has, or at which no run can call them."""
    for number, hook in enumerate(_mappings(source.data.get("hooks"))):
        for when in ("before", "after"):
            step = hook.get(when)
            possible = _possible(hook.get("runbooks"), when)
            if isinstance(step, str) and step not in possible:
                yield source.problem(("hooks", number, when), f"one of the steps {', '.join(possible)}")


def _possible(runbooks: Any, when: str) -> list[str]:
    """Steps of every runbook that is named, or of any where none is.

    What is declared is loaded in the first step, too late for what comes before that; and what comes after
    the last one, the record, could not be in it.
    """
    named = [kind for kind in OF_A_CLUSTER if isinstance(runbooks, list) and kind.value in runbooks]
    names = [[step.name for step in load_runbook(kind).steps] for kind in named or OF_A_CLUSTER]
    allowed = [steps[1:] if when == "before" else steps[:-1] for steps in names]
    every = dict.fromkeys(step for steps in allowed for step in steps)
    return [step for step in every if not named or all(step in steps for steps in allowed)]


def _mappings(value: Any) -> list[dict[str, Any]]:
    return [item if isinstance(item, dict) else {} for item in value] if isinstance(value, list) else []


def _without_secrets(problem: Problem) -> Problem:
    """Headers and addresses are where somebody may have put a secret; a parser's own words may quote one."""
    expected = "valid YAML" if problem.expected.startswith("valid YAML") else problem.expected
    secret = "headers" in problem.field or "url" in problem.field or "://" in problem.value
    shown = problem.value in ABSENT or not secret
    return replace(problem, value=problem.value if shown else UNSHOWN, expected=expected)
