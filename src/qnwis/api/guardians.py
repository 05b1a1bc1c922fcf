"""The guardian of a cluster: what it knows, and people's word to it."""

from __future__ import annotations

from fastapi import APIRouter, Response
from pydantic import Field

from qnwis.continuity.access import Deed
from qnwis.continuity.identity import Permission
from qnwis.continuity.model import Model
from qnwis.continuity.tokens import PersonRequest
from qnwis.guardians import cluster_view
from qnwis.providers.request_store import Begun
from qnwis.starting import say_to_guardian
from workflows.guardian_state import AcknowledgeRequest, GuardianView, PauseRequest, ResumeRequest

from .asking import Asking, acts, answer, reads
from .bodies import ReasonBody, Said, example
from .paths import RUN_ID, ClusterId
from .texts import WholeCharacters

router = APIRouter(route_class=WholeCharacters, prefix="/clusters/{cluster_id}/guardian")


class GuardianAnswer(Model):
    request_id: str
    guardian: GuardianView


class AcknowledgeBody(ReasonBody):
    model_config = example(reason="the disk is replaced", run_id="00000000-0000-4000-8000-000000000000")

    run_id: str = Field(pattern=RUN_ID)
    """Of the run that was looked at, as the guardian's `history` has it."""


@router.get("", response_model=GuardianAnswer)
async def show_guardian(cluster_id: ClusterId, asking: Asking = reads(Permission.READ_STATUS)) -> Response:
    """What the guardian knows, and why it does or does not act."""
    asking.parts.registered(cluster_id)
    seen = await cluster_view(asking.parts.client, cluster_id)
    return answer(GuardianAnswer(request_id=asking.request_id, guardian=seen))


@router.post("/pause", response_model=Said)
async def pause_guardian(
    cluster_id: ClusterId, body: ReasonBody, asking: Asking = acts(Permission.TRIGGER)
) -> Response:
    """Switch automatic failover off. Runs that go on are not touched."""
    request = PauseRequest(by=asking.who.name, reason=body.reason)
    said = f"automatic failover of {cluster_id} is paused"
    return await _say(Deed.PAUSE, cluster_id, request, said, asking)


@router.post("/resume", response_model=Said)
async def resume_guardian(
    cluster_id: ClusterId, body: ReasonBody, asking: Asking = acts(Permission.TRIGGER)
) -> Response:
    """Switch automatic failover on again."""
    request = ResumeRequest(by=asking.who.name, reason=body.reason)
    return await _say(Deed.RESUME, cluster_id, request, f"automatic failover of {cluster_id} is on", asking)


@router.post("/acknowledge", response_model=Said)
async def acknowledge(
    cluster_id: ClusterId, body: AcknowledgeBody, asking: Asking = acts(Permission.TRIGGER)
) -> Response:
    """Let a run that ended hold no further failover back: its cooldown ends now."""
    request = AcknowledgeRequest(run_id=body.run_id, by=asking.who.name, reason=body.reason)
    said = f"run {body.run_id} of {cluster_id} is acknowledged by {asking.who.name}"
    return await _say(Deed.ACKNOWLEDGE, cluster_id, request, said, asking)


async def _say(deed: Deed, cluster_id: str, request: PersonRequest, said: str, asking: Asking) -> Response:
    async def send(begun: Begun) -> Response:
        asking.parts.registered(cluster_id)
        signed = asking.signer.signed(deed, request, cluster_id=cluster_id)
        await say_to_guardian(asking.parts.client, cluster_id, deed.value, signed, deed_id=begun.deed_id)
        return answer(Said(request_id=asking.request_id, answer=said))

    return await asking.once(send)
