"""People of a stage: their keys, and the tokens that they sign."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from temporalio.client import WorkflowQueryFailedError, WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError

from qnwis.continuity.access import Deed, People, Person
from qnwis.continuity.approvals import PendingApproval, Vote, VoteRequest
from qnwis.continuity.run import FailoverRequest
from qnwis.continuity.tokens import Claim, PersonRequest, Token
from qnwis.providers.keys import new_key, public_key_of, sign_claim, write_key
from tests.looking import WITHIN_S, Looks
from workflows.primary_failure import PrimaryFailure

from .conftest import Run, Stage

ROLES = {
    "ann": "continuity_admin",
    "bob": "continuity_operator",
    "carl": "sre_oncall",
    "dora": "continuity_admin",
    "eve": "continuity_viewer",
    "fay": "continuity_admin",
}


R = TypeVar("R", bound=PersonRequest)


@dataclass
class Crowd:
    """Everybody of people.yaml, with their private keys."""

    stage: Stage
    keys: dict[str, Ed25519PrivateKey] = field(default_factory=lambda: {name: new_key() for name in ROLES})

    def __post_init__(self) -> None:
        self.write(ROLES)

    def write(self, roles: dict[str, str]) -> None:
        """Have people.yaml list these, and nobody else."""
        people = [
            Person(name=name, roles=(role,), public_key=public_key_of(self.keys[name]))
            for name, role in roles.items()
        ]
        file = self.stage.settings.config_dir / "people.yaml"
        file.write_text(yaml.safe_dump(People(people=tuple(people)).model_dump(mode="json")))

    def key_file(self, person: str) -> Path:
        """Where this person keeps the private key."""
        file = self.stage.settings.config_dir.parent / "keys" / f"{person}.pem"
        if not file.exists():
            write_key(file, self.keys[person], person=person)
        return file

    def token(self, person: str, deed: Deed, *, signer: str | None = None, **claim: Any) -> Token:
        fields = {
            "person": person,
            "deed": deed,
            "cluster_id": self.stage.cluster_id,
            "nonce": secrets.token_hex(16),
            "expires_at": datetime.now(UTC) + timedelta(minutes=10),
            **claim,
        }
        return sign_claim(Claim.model_validate(fields), self.keys[signer or person])

    async def start(self, person: str = "bob", **request: Any) -> Run:
        """A run that this person starts and proves to."""
        return await self.stage.start(**self.request(person, **request).model_dump(exclude_none=True))

    def request(self, person: str = "bob", **request: Any) -> FailoverRequest:
        made = FailoverRequest.model_validate(
            {"cluster_id": self.stage.cluster_id, "initiated_by": person, "reason": "test", **request}
        )
        return self.proved(made, Deed.OVERRIDE if made.override else Deed.START)

    def proved(self, request: FailoverRequest, deed: Deed) -> FailoverRequest:
        """The request, signed by whom it names."""
        token = self.token(request.initiated_by, deed, digest=request.digest)
        return request.model_copy(update={"token": token})

    def signed(self, run: Run, deed: Deed, request: R) -> R:
        """The request, proved to be from whom it names."""
        token = self.token(
            request.by, deed, run_id=run.result_run_id, digest=request.digest, reason=request.reason
        )
        return request.model_copy(update={"token": token})

    def vote(
        self, person: str, pending: PendingApproval, deed: Deed = Deed.APPROVE, **claim: Any
    ) -> VoteRequest:
        fields = {"run_id": pending.run_id, "digest": pending.window.digest, **claim}
        return VoteRequest(token=self.token(person, deed, **fields))

    async def approve(self, run: Run, person: str = "ann", **claim: Any) -> Vote:
        vote: Vote = await run.execute_update(
            "approve", self.vote(person, await asked(run), **claim), result_type=Vote
        )
        return vote


async def asked(run: Run, *, besides: str | None = None) -> PendingApproval:
    """What the run waits with, once it does; `besides` is the digest of a plan asked for before."""
    async with asyncio.timeout(WITHIN_S):
        looks = Looks()
        while True:
            pending = (await run.query(PrimaryFailure.progress_view)).approval
            if pending is not None and pending.window.digest != besides:
                return pending
            await looks.again()


async def asked_once_begun(run: Run) -> PendingApproval:
    """The same of a run that somebody else is about to start under this id."""
    async with asyncio.timeout(WITHIN_S):
        looks = Looks()
        while True:
            with contextlib.suppress(RPCError, WorkflowQueryFailedError):
                pending = (await run.query(PrimaryFailure.progress_view)).approval
                if pending is not None:
                    return pending
            await looks.again()


def rule_of(error: WorkflowUpdateFailedError) -> str:
    assert isinstance(error.cause, ApplicationError)
    return error.cause.type or ""
