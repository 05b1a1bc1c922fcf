"""What a worker process is told."""

from __future__ import annotations

from pathlib import Path

from qnwis.continuity.model import Identifier, Model
from workflows.names import RUNBOOKS_QUEUE


class WorkerSettings(Model):
    config_dir: Path
    """Registry of clusters: cluster.yaml, policy.yaml, clusters/<id>/…"""
    state_dir: Path
    """The audit store and its signing key."""
    vantages: tuple[Identifier, ...] = ("default",)
    """Places this worker stands at and probes from; empty for a worker that only runs runbooks."""
    task_queue: str = RUNBOOKS_QUEUE
    """Where runbooks and guardians are dispatched; starters must name the same."""
    address: str | None = None
    """Temporal server; by default what Temporal's own environment variables and profiles say."""
