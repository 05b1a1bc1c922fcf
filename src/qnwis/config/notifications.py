"""Loads `notifications.yaml`. Its problems name file, line and field, and never show what may be a secret."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from qnwis.continuity.notifications import Channel, Channels

from .load import validated
from .problem import ConfigError, Problem
from .yaml_source import read_yaml

FILE = "notifications.yaml"

KNOWN = re.compile(rf"(channels(\[\d+\](\.({'|'.join(Channel.model_fields)})(\[\d+\])?)?)?)?")
SHOWN = re.compile(r"channels\[\d+\]\.(name|events|clusters)(\[\d+\])?")
UNSHOWN = "what is not shown, because it may be a secret"


def load_channels(path: Path) -> Channels:
    """The channels in `path`; none where there is no file. Raises ConfigError."""
    if not path.exists():
        return Channels()
    try:
        return validated(Channels, read_yaml(path))
    except ConfigError as error:
        problems = [_without_secrets(problem) for problem in error.problems]
    raise ConfigError(problems)


def _without_secrets(problem: Problem) -> Problem:
    """A value is shown only where no address belongs. A field's name may be an address in a wrong place."""
    field, value, expected = problem.field, problem.value, problem.expected
    if KNOWN.fullmatch(field) is None:
        field = field.rpartition(".")[0] if KNOWN.fullmatch(field.rpartition(".")[0]) else ""
        value = UNSHOWN
    if expected.startswith("valid YAML"):
        expected = "valid YAML"  # the parser's own words may quote the file
    written = value not in ("nothing", "a list", "a mapping", "an empty file", "it a second time")
    readable = not problem.line or not written or (SHOWN.fullmatch(field) and "://" not in value)
    return replace(problem, field=field, value=value if readable else UNSHOWN, expected=expected)
