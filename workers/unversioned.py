"""Workflows of workers that do not say which build they run."""

from __future__ import annotations

import copy
import dataclasses

from temporalio.common import VersioningBehavior
from temporalio.worker import UnsandboxedWorkflowRunner, WorkflowInstance, WorkflowInstanceDetails


class Unversioned(UnsandboxedWorkflowRunner):
    """Leaves out what `workflows/versioning.py` says of each: Temporal takes it only from workers with a
    build, and refuses every task of others that say it."""

    def create_instance(self, det: WorkflowInstanceDetails) -> WorkflowInstance:
        definition = copy.copy(det.defn)
        object.__setattr__(definition, "versioning_behavior", VersioningBehavior.UNSPECIFIED)
        return super().create_instance(dataclasses.replace(det, defn=definition))
