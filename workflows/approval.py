"""The approval window of a run, and how people prove what they do.

What is known of people is read anew for each proof and each window, so that a revoked key counts at once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TypeVar

from temporalio import workflow
from temporalio.exceptions import ApplicationError

from . import options
from .ended import Ended

with workflow.unsafe.imports_passed_through():
    from activities.people import OpenRequest, People, ProofRequest
    from qnwis.continuity.access import Deed, Person
    from qnwis.continuity.approvals import (
        PendingApproval,
        Standing,
        Vote,
        VoteRequest,
        Window,
        cast,
        closed_refusal,
        digest_refusal,
        extended,
    )
    from qnwis.continuity.plan import Plan
    from qnwis.continuity.refusal import Refusal
    from qnwis.continuity.region_plan import RegionPlan
    from qnwis.continuity.run import ExtendRequest, RunOutcome, StepStatus
    from qnwis.continuity.targets import Candidate
    from qnwis.continuity.tokens import Expected, Token, used_refusal

HEARD_WHILE_ASKING = "a run that is to stop waits no longer for who may start it, or vote on it"
"""Patch: before, it heard of that only once it was known: never, where a file or a store is silent."""

Announce = Callable[[PendingApproval], None]
Stop = Callable[[], str | None]
"""Why the run is to stop; None while it is not."""
T = TypeVar("T")


@dataclass(frozen=True)
class Proposed:
    """What people are asked to agree to."""

    plan: Plan | RegionPlan
    predicted_loss_bytes: int | None
    candidates: tuple[Candidate, ...] = ()
    notes: tuple[str, ...] = ()


class Served:
    """The tokens that have served in one execution of a run. A token that names a run names one execution of
    it, so nobody else has to know of them; after a reset none of them names the run any more."""

    def __init__(self) -> None:
        self._nonces: set[tuple[str, str]] = set()

    def refusal(self, token: Token) -> Refusal | None:
        """None the first time."""
        known = (token.claim.person, token.claim.nonce)
        if known in self._nonces:
            return used_refusal(token.claim, f"run {token.claim.run_id}")
        self._nonces.add(known)
        return None


async def prove_to_run(
    token: Token | None, expected: Expected, served: Served, *, claimed: str
) -> Person | Refusal:
    """Who says something to a run that goes on: the person who signed for this run, once."""
    found = await prove(token, expected, claimed=claimed)
    if isinstance(found, Refusal) or token is None:
        return found
    return served.refusal(token) or found


async def prove(
    token: Token | None,
    expected: Expected,
    *,
    claimed: str,
    used_by: str | None = None,
    needs: tuple[str, ...] = (),
    stop: Stop | None = None,
) -> Person | Refusal:
    """Who did it: the person who signed, if that is who is named and they may, by these permissions besides.
    Raises Ended where a run is to `stop` before that is known.

    A token that names no run serves one request: by default this one, so that the same token sent again is
    refused. A run that is started gives its own id as `used_by`, and may prove its start again after a reset.
    """
    used_by = used_by or f"{workflow.info().workflow_id}, request {workflow.uuid4()}"
    proof = await _unless(
        stop,
        workflow.start_activity_method(
            People.prove,
            ProofRequest(token=token, expected=expected, claimed=claimed, used_by=used_by, needs=needs),
            **options.read(f"who may {expected.deed}"),
        ),
    )
    return proof.person if proof.person is not None else proof.refused


async def _unless(stop: Stop | None, asking: workflow.ActivityHandle[T]) -> T:
    """The answer. Raises Ended once the run is to stop: nothing has begun of a run of which this is asked."""
    if stop is not None and workflow.patched(HEARD_WHILE_ASKING):
        await workflow.wait_condition(lambda: asking.done() or stop() is not None)
        if not asking.done() and (why := stop()) is not None:
            asking.cancel()
            raise Ended(RunOutcome.UNTOUCHED, why)
    return await asking


class Approval:
    """The window in which a run's plan is voted on; a further one where the plan changed meanwhile."""

    def __init__(self, cluster_id: str, initiator: str) -> None:
        self._cluster_id = cluster_id
        self._initiator = initiator
        self.served = Served()
        self.window: Window | None = None
        """The newest."""

    async def ask(
        self,
        name: str | None,
        proposed: Proposed,
        *,
        stop: Stop,
        announce: Announce,
        show: Callable[[PendingApproval | None], None],
        say: Callable[[str], None],
    ) -> None:
        """Open a window for this plan and wait until it is approved. Raises Ended when it is not."""
        opened = await _unless(
            stop,
            workflow.start_activity_method(
                People.open_window,
                OpenRequest(name=name, cluster_id=self._cluster_id, initiator=self._initiator),
                **options.read("who may vote"),
            ),
        )
        if opened.workflow is None:
            raise Ended(RunOutcome.REFUSED, str(opened.refusal), refusal=opened.refusal)
        self.window = Window(
            name=opened.name,
            workflow=opened.workflow,
            digest=proposed.plan.digest,
            initiator=self._initiator,
            opened_at=workflow.now(),
        )
        pending = PendingApproval(
            run_id=workflow.info().run_id,
            window=self.window,
            voters=opened.voters,
            plan=proposed.plan,
            predicted_loss_bytes=proposed.predicted_loss_bytes,
            candidates=proposed.candidates,
            notes=proposed.notes,
        )
        announce(pending)
        await self._until_closed(stop, show, pending)
        show(None)
        _end_unless_approved(self.window, self._standing, stop())
        say(f"approved by {', '.join(vote.person for vote in self.window.votes)}")

    async def _until_closed(
        self,
        stop: Callable[[], str | None],
        show: Callable[[PendingApproval | None], None],
        pending: PendingApproval,
    ) -> None:
        while (window := self.window) is not None and self._standing is Standing.OPEN and stop() is None:
            show(pending.model_copy(update={"window": window}))
            with contextlib.suppress(TimeoutError):
                await workflow.wait_condition(
                    partial(self._moved_on, window, stop),
                    timeout=max(timedelta(0), window.closes_at - workflow.now()),
                    timeout_summary=f"approval window {window.name}",
                )

    def _moved_on(self, seen: Window, stop: Callable[[], str | None]) -> bool:
        return self.window is not seen or stop() is not None

    @property
    def _standing(self) -> Standing:
        assert self.window is not None
        return self.window.standing(workflow.now())

    @property
    def is_open(self) -> bool:
        return self.window is not None and self._standing is Standing.OPEN

    def check_open(self, request: VoteRequest) -> None:
        """What can be seen of a vote at once. Raises ApplicationError."""
        refusal = closed_refusal(self.window, workflow.now()) or digest_refusal(self.window, request.digest)
        if refusal is not None:
            raise refused(refusal)

    async def vote(self, request: VoteRequest, *, approve: bool) -> Vote:
        """Count the vote of whoever signed it. Raises ApplicationError with the rule that refuses it."""
        found = await prove_to_run(
            request.token,
            Expected(
                deed=Deed.APPROVE if approve else Deed.REJECT,
                cluster_id=self._cluster_id,
                run_id=workflow.info().run_id,
                digest=request.digest,
            ),
            self.served,
            claimed=request.token.claim.person,
        )
        if isinstance(found, Refusal):
            raise refused(found)
        window = self.window
        assert window is not None, "the vote was for the plan of one"
        after = cast(
            window,
            found,
            digest=request.digest,
            approve=approve,
            reason=request.token.claim.reason,
            now=workflow.now(),
        )
        if isinstance(after, Refusal):
            raise refused(after)
        self.window = after
        return after.votes[-1]

    async def extend(self, request: ExtendRequest) -> Window:
        """Give the window that is open more time. As with a vote, it counts who signed, where the policy asks
        for no proofs too. Raises ApplicationError with the rule that refuses it."""
        found = await prove_to_run(
            request.token,
            Expected(
                deed=Deed.EXTEND,
                cluster_id=self._cluster_id,
                run_id=workflow.info().run_id,
                digest=request.digest,
            ),
            self.served,
            claimed=request.by,
        )
        if isinstance(found, Refusal):
            raise refused(found)
        assert self.window is not None, "it was open"
        after = extended(self.window, found.name, by_s=request.by_s, now=workflow.now())
        if isinstance(after, Refusal):
            raise refused(after)
        self.window = after
        return after


def _end_unless_approved(window: Window, standing: Standing, stop: str | None) -> None:
    if stop is not None and standing is not Standing.APPROVED:
        raise Ended(RunOutcome.UNTOUCHED, stop)
    match standing:
        case Standing.REJECTED:
            against = next(vote for vote in window.votes if not vote.approve)
            raise Ended(RunOutcome.REJECTED, f"rejected by {against.person}: {against.reason or 'no reason'}")
        case Standing.EXPIRED:
            raise Ended(
                RunOutcome.EXPIRED,
                f"{window.approvals} of {window.workflow.required_approvers} approvals of {window.name} came"
                f" within {window.workflow.timeout_sec + window.extended_s:g} s",
                step=StepStatus.FAILED,
            )


def refused(refusal: Refusal) -> ApplicationError:
    """How a handler says no to whoever called it."""
    return ApplicationError(
        str(refusal), refusal.model_dump(mode="json"), type=refusal.rule, non_retryable=True
    )
