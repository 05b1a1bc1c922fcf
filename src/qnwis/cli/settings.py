"""Options that several commands share, with their environment variables."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ConfigDir = Annotated[
    Path,
    typer.Option(
        envvar="QNWIS_CONFIG_DIR", help="Registry of clusters: cluster.yaml, policy.yaml, clusters/…"
    ),
]
STATE_DIR_VARIABLE = "QNWIS_STATE_DIR"
DEFAULT_STATE_DIR = Path("/var/lib/qnwis-continuity")
"""Where the shipped units have it. Nobody makes it unasked: a second audit trail would begin there."""
_STATE = "Where workers keep the audit store and its signing key"
StateDir = Annotated[Path, typer.Option(envvar=STATE_DIR_VARIABLE, help=f"{_STATE}.")]
OptionalStateDir = Annotated[
    Path | None,
    typer.Option(
        envvar=STATE_DIR_VARIABLE, help=f"{_STATE}; by default {DEFAULT_STATE_DIR}, where that exists."
    ),
]


def state_dir_of(given: Path | None) -> Path | None:
    """The state directory that is meant; None where none is named and there is no default one."""
    return given or (DEFAULT_STATE_DIR if DEFAULT_STATE_DIR.is_dir() else None)


Address = Annotated[
    str | None, typer.Option(help="Temporal server, host:port; by default what TEMPORAL_ADDRESS says.")
]
