"""What a worker process is told."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import model_validator

from qnwis.builds import DEPLOYMENT
from qnwis.continuity.model import Identifier, Model
from workflows.names import RUNBOOKS_QUEUE

GRACE_S = 5.0
"""How long activities may finish when a worker is asked to stop."""


class WorkerSettings(Model):
    config_dir: Path
    """Registry of clusters: cluster.yaml, policy.yaml, clusters/<id>/…"""
    state_dir: Path | None = None
    """The audit store and its signing key. A worker that only watches has neither."""
    vantages: tuple[Identifier, ...] = ("default",)
    """Places this worker stands at and probes from; empty for a worker that only runs runbooks."""
    vantages_only: bool = False
    """Serve the vantages and nothing else: no runbook, no guardian, no effect runs here."""
    task_queue: str = RUNBOOKS_QUEUE
    """Where runbooks and guardians are dispatched; starters must name the same."""
    address: str | None = None
    """Temporal server; by default what Temporal's own environment variables and profiles say."""
    build: Identifier | None = None
    """Build of the program that it runs: runbooks end on the build on which they began. None: any worker
    takes up any run, so that a new program has to replay what an old one began."""
    deployment: Identifier = DEPLOYMENT
    """Of which builds one is current; see `qnwis-continuity builds`."""
    metrics: str | None = None
    """HOST:PORT of `/metrics`; None for none."""
    sdk_metrics: str | None = None
    """HOST:PORT of the Temporal SDK's own; None for none."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.vantages_only and not self.vantages:
            raise ValueError("vantages: expected at least one for a worker that serves vantages only")
        if not self.vantages_only and self.state_dir is None:
            raise ValueError("state_dir: expected a folder for a worker that runs runbooks")
        return self
