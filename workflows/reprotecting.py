"""What the guardian does for the standbys: it sees that `Reprotect` runs where the policy says so."""

from __future__ import annotations

from temporalio import workflow
from temporalio.exceptions import WorkflowAlreadyStartedError

from .names import reprotect_id
from .reprotect import Reprotect, ReprotectState

with workflow.unsafe.imports_passed_through():
    from qnwis.config.registry import Registered
    from qnwis.continuity.policy import Reprotection


class Reprotecting:
    """Of one execution of a guardian."""

    def __init__(self) -> None:
        self._begun = False

    async def keep_going(self, registered: Registered) -> None:
        """Start it once, if it does not run. It ends by itself where the policy says otherwise later."""
        if self._begun or registered.policy.reprotect is not Reprotection.AUTOMATIC:
            return
        self._begun = True
        cluster_id = registered.cluster.cluster_id
        try:
            await workflow.start_child_workflow(
                Reprotect.run,
                ReprotectState(cluster_id=cluster_id),
                id=reprotect_id(cluster_id),
                parent_close_policy=workflow.ParentClosePolicy.ABANDON,
                static_summary=f"Standbys of {cluster_id}",
            )
        except WorkflowAlreadyStartedError:
            return
