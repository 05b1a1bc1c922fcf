"""A run that goes on: vote on its plan, hold it, abort it, give it time, confirm and skip steps."""

from __future__ import annotations

from fastapi import APIRouter, Response
from pydantic import Field

from qnwis.continuity.access import Deed
from qnwis.continuity.approvals import Vote, VoteRequest
from qnwis.continuity.identity import Permission
from qnwis.continuity.model import Model
from qnwis.continuity.refusal import Refusal
from qnwis.continuity.run import (
    LONGEST_EXTENSION_S,
    AbortRequest,
    ConfirmRequest,
    ExtendRequest,
    PauseRunRequest,
    ResumeRunRequest,
    SkipRequest,
)
from qnwis.continuity.tokens import PersonRequest, Token
from qnwis.providers.errors import Refused
from qnwis.providers.request_store import Begun
from qnwis.starting import say_to_run
from qnwis.starting import vote as cast
from workflows.names import failover_id

from .asking import Asking, acts, answer
from .bodies import ReasonBody, Said, example
from .paths import ClusterId, RunId
from .texts import WholeCharacters

router = APIRouter(route_class=WholeCharacters, prefix="/clusters/{cluster_id}/runs/{run_id}")


class VoteBody(Model):
    model_config = example(digest="sha256:" + "0" * 64, reason="agreed")

    digest: str = Field(pattern=r"^sha256:[0-9a-f]{64}$")
    """Of the plan that is meant, as `progress.approval.window.digest` has it; no other is voted on."""
    reason: str = Field(default="", max_length=1000)
    token: Token | None = None
    """Signed by the person's own key for exactly this vote, as `qnwis-continuity approve --print` prints it;
    without it the API vouches for whoever is signed in."""


class Counted(Model):
    request_id: str
    vote: Vote


class ExtendBody(ReasonBody):
    model_config = example(reason="the second approver is on the way", by_s=600)

    by_s: float = Field(gt=0, le=LONGEST_EXTENSION_S)
    """How much longer, seconds."""


class ConfirmBody(ReasonBody):
    model_config = example(reason="the batch jobs are stopped", manual_step="stop-batch-jobs")

    manual_step: str = Field(min_length=1, max_length=200)
    """Its name, as `progress.awaits` has it."""


class SkipBody(ReasonBody):
    model_config = example(reason="operators know already", step="notification")

    step: str = Field(min_length=1, max_length=200)
    """Its name, as `progress.steps` has it."""


@router.post("/approve", response_model=Counted)
async def approve(cluster_id: ClusterId, run_id: RunId, body: VoteBody, asking: Asking = acts()) -> Response:
    """Agree to the plan that waits. The approval workflow says whose vote counts, never the initiator's."""
    return await vote(Deed.APPROVE, cluster_id, failover_id(cluster_id), run_id, body, asking)


@router.post("/reject", response_model=Counted)
async def reject(cluster_id: ClusterId, run_id: RunId, body: VoteBody, asking: Asking = acts()) -> Response:
    """Say no to the plan that waits: the run ends, and nothing is changed."""
    return await vote(Deed.REJECT, cluster_id, failover_id(cluster_id), run_id, body, asking)


@router.post("/pause", response_model=Said)
async def pause(
    cluster_id: ClusterId, run_id: RunId, body: ReasonBody, asking: Asking = acts(Permission.TRIGGER)
) -> Response:
    """Hold the run before its next action; refused once the promotion has begun."""
    request = PauseRunRequest(by=asking.who.name, reason=body.reason)
    return await say(Deed.PAUSE, cluster_id, failover_id(cluster_id), run_id, request, asking)


@router.post("/resume", response_model=Said)
async def resume(
    cluster_id: ClusterId, run_id: RunId, body: ReasonBody, asking: Asking = acts(Permission.TRIGGER)
) -> Response:
    """Let the run go on that is held."""
    request = ResumeRunRequest(by=asking.who.name, reason=body.reason)
    return await say(Deed.RESUME, cluster_id, failover_id(cluster_id), run_id, request, asking)


@router.post("/abort", response_model=Said)
async def abort(
    cluster_id: ClusterId, run_id: RunId, body: ReasonBody, asking: Asking = acts(Permission.TRIGGER)
) -> Response:
    """Stop the run and undo what it has begun; refused once the promotion has begun."""
    request = AbortRequest(by=asking.who.name, reason=body.reason)
    return await say(Deed.ABORT, cluster_id, failover_id(cluster_id), run_id, request, asking)


@router.post("/extend", response_model=Said)
async def extend(
    cluster_id: ClusterId, run_id: RunId, body: ExtendBody, asking: Asking = acts(Permission.TRIGGER)
) -> Response:
    """Give the window that is open more time: the one for votes, else the one for maintenance. That for votes
    is extended by others than the run's initiator, and is at most four times as long in all."""
    request = ExtendRequest(by=asking.who.name, reason=body.reason, by_s=body.by_s)
    return await say(Deed.EXTEND, cluster_id, failover_id(cluster_id), run_id, request, asking)


@router.post("/confirm", response_model=Said)
async def confirm(
    cluster_id: ClusterId, run_id: RunId, body: ConfirmBody, asking: Asking = acts(Permission.TRIGGER)
) -> Response:
    """Say that what a person had to do by hand is done; the run waits for it."""
    request = ConfirmRequest(by=asking.who.name, reason=body.reason, manual_step=body.manual_step)
    return await say(Deed.CONFIRM, cluster_id, failover_id(cluster_id), run_id, request, asking)


@router.post("/skip", response_model=Said)
async def skip(
    cluster_id: ClusterId, run_id: RunId, body: SkipBody, asking: Asking = acts(Permission.TRIGGER)
) -> Response:
    """Have a step left out that has not begun; only where the runbook allows it."""
    request = SkipRequest(by=asking.who.name, reason=body.reason, step=body.step)
    return await say(Deed.SKIP, cluster_id, failover_id(cluster_id), run_id, request, asking)


async def vote(
    deed: Deed, name: str, workflow_id: str, run_id: str, body: VoteBody, asking: Asking
) -> Response:
    """A vote in the run of a cluster, or in the evacuation of a region; `name` is whose."""

    async def send(begun: Begun) -> Response:
        token = _own(body, asking) or asking.signer.token(
            deed, cluster_id=name, run_id=run_id, digest=body.digest, reason=body.reason
        )
        approves = deed is Deed.APPROVE
        counted = await cast(
            asking.parts.client,
            workflow_id,
            VoteRequest(token=token),
            approve=approves,
            deed_id=begun.deed_id,
        )
        return answer(Counted(request_id=asking.request_id, vote=counted))

    return await asking.once(send)


def _own(body: VoteBody, asking: Asking) -> Token | None:
    """The token that came with the vote. What it is worth, the run judges by people.yaml; here it has to be
    the sender's, and to say what the body says. Raises Refused."""
    if body.token is None:
        return None
    claim, who = body.token.claim, asking.who.name
    if claim.person != who:
        raise Refused(
            Refusal(
                rule="token_of_another",
                message=f"{who} is signed in, and the vote is signed as {claim.person}",
                values={"signed_in": who, "signed_by": claim.person},
                remedy="Sign in as whoever votes, or sign with your own key.",
            )
        )
    for field, said, signed in (
        ("digest", body.digest, claim.digest),
        ("reason", body.reason, claim.reason),
    ):
        if said != signed:
            raise Refused(
                Refusal(
                    rule="token_for_another",
                    message=f"The {field} that was signed is not the one that was sent",
                    values={"sent": said, "signed": signed},
                    remedy="Look at the plan that waits, and sign a vote on its digest.",
                )
            )
    return body.token


async def say(
    deed: Deed, name: str, workflow_id: str, run_id: str, request: PersonRequest, asking: Asking
) -> Response:
    """The same for what else is said to it. The run's update is named as the deed is."""

    async def send(begun: Begun) -> Response:
        signed = asking.signer.signed(deed, request, cluster_id=name, run_id=run_id)
        told = await say_to_run(
            asking.parts.client, workflow_id, deed.value, signed, run_id=run_id, deed_id=begun.deed_id
        )
        return answer(Said(request_id=asking.request_id, answer=told))

    return await asking.once(send)
