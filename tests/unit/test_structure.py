"""What holds the parts together: what the domain may import, and what goes on under a new build."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

from temporalio import workflow

from qnwis.continuity.model import Model, build_models
from qnwis.tracing.temporal import WITHOUT_END
from workers.wiring import WORKFLOWS
from workflows.versioning import FOLLOWS

PROJECT = Path(__file__).parents[2]


def test_the_domain_imports_no_other_part_of_the_project_whichever_comes() -> None:
    with (PROJECT / "pyproject.toml").open("rb") as file:
        contracts = tomllib.load(file)["tool"]["importlinter"]["contracts"]
    (pure,) = [contract for contract in contracts if contract["name"].startswith("The domain is pure")]
    source = PROJECT / "src/qnwis"
    parts = {path.stem for path in source.glob("*.py")} | {
        path.parent.name for path in source.glob("*/__init__.py")
    }
    others = {f"qnwis.{part}" for part in parts - {"__init__", "continuity"}}
    assert others <= set(pure["forbidden_modules"])


def test_whatever_has_no_end_goes_over_to_a_new_build() -> None:
    """Else the workers of an old build could never be stopped."""
    definitions = [workflow._Definition.must_from_class(kind) for kind in WORKFLOWS]
    follows = {found.name for found in definitions if found.versioning_behavior is FOLLOWS}
    assert follows >= WITHOUT_END


def test_workflows_ask_no_clock_for_the_time() -> None:
    """Workers run them in no sandbox that would refuse it; modules of clocks are refused by import-linter."""
    asked = [
        f"{path.name}:{call.lineno}"
        for path in sorted((PROJECT / "workflows").glob("*.py"))
        for call in ast.walk(ast.parse(path.read_text()))
        if isinstance(call, ast.Attribute)
        and call.attr in {"now", "utcnow", "today"}
        and isinstance(call.value, ast.Name)
        and call.value.id in {"datetime", "date"}
    ]
    assert asked == []


def test_a_worker_builds_every_model_before_its_first_run() -> None:
    """Else each run would build those that it decodes, some of them in the middle of a failover."""
    assert build_models() > 200
    assert not [model for model in Model.__subclasses__() if not model.__pydantic_complete__]
