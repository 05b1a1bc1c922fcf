"""Reprotect: a cluster is brought back to the standbys that it wants, one rejoin after the other.

One for each cluster whose policy says `reprotect: automatic`, beside its guardian: a rejoin may take as long
as a copy of the database, and no failover waits for it. It holds no lock. A node that has promised an epoch
to a run is left to that run, and a run that comes later supersedes the order by its epoch.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime, timedelta

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError

from . import options
from .details import show_details
from .names import CLUSTER, KIND, failover_id, reprotect_id
from .recording import RECORDED
from .registered import as_registered
from .versioning import FOLLOWS

with workflow.unsafe.imports_passed_through():
    from pydantic import ValidationError

    from activities.audit import Audit
    from activities.protection import Protecting, WatchProtection
    from activities.rejoining import BringBack, Rejoining
    from qnwis.config.registry import Registered
    from qnwis.continuity.executor import Outcome
    from qnwis.continuity.guardian_record import GuardianDecisions, brought_back
    from qnwis.continuity.model import Identifier, Model
    from qnwis.continuity.policy import Policy, Reprotection
    from qnwis.continuity.reprotect import Attempt, Missing, Protection, next_to_bring_back


class ReprotectState(Model):
    """All that it knows; what it continues as new with. To start one, `cluster_id` is enough."""

    cluster_id: Identifier
    found: Protection | None = None
    attempts: Mapping[str, Attempt] = {}
    """By node_id, of nodes that are still missing."""
    number: int = 0
    """Of the newest rejoin that was ordered."""


@workflow.defn(failure_exception_types=[ValidationError], versioning_behavior=FOLLOWS)
class Reprotect:
    """Brings standbys of one cluster back for as long as its policy says so."""

    @workflow.init
    def __init__(self, state: ReprotectState | None = None) -> None:
        # Started without input it fails and says what is missing; a missing argument would retry for ever.
        self.state = state or ReprotectState.model_validate({})
        self._registered: Registered | None = None

    @workflow.run
    async def run(self, state: ReprotectState | None = None) -> None:
        cluster_id = self.state.cluster_id
        if workflow.info().workflow_id != reprotect_id(cluster_id):
            raise ApplicationError(
                f"workflow id is {workflow.info().workflow_id!r}; expected {reprotect_id(cluster_id)!r}",
                type="wrong_workflow_id",
                non_retryable=True,
            )
        workflow.upsert_search_attributes([CLUSTER.value_set(cluster_id), KIND.value_set("reprotect")])
        while not workflow.info().is_continue_as_new_suggested():
            chosen = await self._chosen((await self._policy()).reprotect_after_s)
            if (await self._policy()).reprotect is not Reprotection.AUTOMATIC:
                return  # an edit counts from the next decision on
            if isinstance(chosen, Missing):
                await self._bring_back(chosen)
        workflow.continue_as_new(self.state)

    async def _policy(self) -> Policy:
        self._registered = await as_registered(self.state.cluster_id, self._registered)
        return self._registered.policy

    async def _chosen(self, settle_s: float) -> Missing | datetime | None:
        """Whom to bring back, once there is somebody; else what there is instead of it, once that changed."""
        found = self.state.found
        due = None if found is None else next_to_bring_back(found, self.state.attempts, workflow.now())
        if isinstance(due, datetime):
            seen = await self._changed(found, settle_s, until=due)
        else:
            seen = await self._changed(None if isinstance(due, Missing) else found, settle_s, until=None)
        if seen is not None:
            missing = {one.node_id for one in seen.missing}
            kept = {node_id: one for node_id, one in self.state.attempts.items() if node_id in missing}
            self.state = self.state.model_copy(update={"found": seen, "attempts": kept})
            self._show()
            return next_to_bring_back(seen, kept, workflow.now())
        return None

    async def _changed(
        self, seen: Protection | None, settle_s: float, *, until: datetime | None
    ) -> Protection | None:
        """What is found once it is otherwise than `seen`; None at the time given."""
        asked = WatchProtection(
            cluster_id=self.state.cluster_id,
            lock=failover_id(self.state.cluster_id),
            settle_s=settle_s,
            seen=seen,
        )
        watching = workflow.start_activity_method(
            Protecting.watch_protection, asked, **options.watch_runs("the standbys of this cluster")
        )
        timeout = None if until is None else max(timedelta(0), until - workflow.now())
        try:
            await workflow.wait_condition(
                watching.done, timeout=timeout, timeout_summary="before the next rejoin"
            )
        except TimeoutError:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            return None
        return await watching

    async def _bring_back(self, missing: Missing) -> None:
        state, node_id = self.state, missing.node_id
        number = state.number + 1
        asked = BringBack(
            cluster_id=state.cluster_id,
            node_id=node_id,
            by=f"{workflow.info().first_execution_run_id}-{number}",
            above_promises=False,
        )
        became: Outcome | str
        try:
            outcome = await workflow.execute_activity_method(
                Rejoining.bring_back, asked, **options.rejoin(f"{node_id} comes back as a standby")
            )
            said, became = outcome.detail, outcome
        except ActivityError as error:
            said = became = str(error.cause or error)
        if workflow.patched(RECORDED):
            await self._record(missing, became, asked.by)
        before = state.attempts.get(node_id)
        attempt = Attempt(count=1 + (before.count if before else 0), ended_at=workflow.now(), said=said)
        self.state = state.model_copy(
            update={"attempts": {**state.attempts, node_id: attempt}, "number": number, "found": None}
        )
        self._show()

    async def _record(self, missing: Missing, became: Outcome | str, ordered_as: str) -> None:
        """On record before it is shown."""
        cluster_id, found = self.state.cluster_id, self.state.found
        decision = brought_back(
            cluster_id,
            reprotect_id(cluster_id),
            None if found is None else found.primary,
            missing.node_id,
            missing.why,
            became,
            decision_id=f"reprotect-{ordered_as}",
            at=workflow.now(),
        )
        await workflow.execute_activity_method(
            Audit.record_guardian,
            GuardianDecisions(decisions=(decision,)),
            **options.record(f"record: {missing.node_id}"),
        )

    @workflow.query(description="Which standbys are wanted, which are there, and what was tried")
    def view(self) -> ReprotectState:
        return self.state

    def _show(self) -> None:
        found = self.state.found
        lines = ["" if found is None else found.in_words]
        lines += [f"- {node_id}: {one.said}" for node_id, one in self.state.attempts.items()]
        show_details("\n".join(lines))
