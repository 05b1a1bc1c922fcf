"""`validate`: whether topology and policy can be used, with every problem at its line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from qnwis.config.load import load_cluster, load_policy
from qnwis.config.problem import ConfigError, Problem

from .output import Exit, fail, out


def validate(
    cluster: Annotated[Path, typer.Option(help="Topology, cluster.yaml.")],
    policy: Annotated[Path | None, typer.Option(help="Policy, policy.yaml.")] = None,
) -> None:
    """Check files without using them. Every problem names file, line, field, value and what was expected."""
    problems: list[Problem] = []
    for path, load in ((cluster, load_cluster), (policy, load_policy)):
        if path is None:
            continue
        try:
            load(path)
        except ConfigError as error:
            problems += error.problems
    if problems:
        fail(Exit.USAGE, "\n".join(map(str, problems)))
    out.print("valid", style="bold green")
