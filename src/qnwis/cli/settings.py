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
_STATE_DIR = typer.Option(
    envvar=STATE_DIR_VARIABLE, help="Where workers keep the audit store and its signing key."
)
StateDir = Annotated[Path, _STATE_DIR]
OptionalStateDir = Annotated[Path | None, _STATE_DIR]
Address = Annotated[
    str | None, typer.Option(help="Temporal server, host:port; by default what TEMPORAL_ADDRESS says.")
]
