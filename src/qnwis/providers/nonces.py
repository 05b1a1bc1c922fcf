"""What tokens were used for: one token serves one request, however often and to whomever it is sent."""

from __future__ import annotations

from hashlib import sha256
from typing import Protocol

from temporalio.client import Client
from temporalio.common import WorkflowIDReusePolicy
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

USED_TOKEN = "UsedToken"
"""The workflow that stands for a token which has served (`workflows/used_token.py`)."""
USED_BY = "used_by"


class Nonces(Protocol):
    async def use(self, person: str, nonce: str, *, used_by: str, task_queue: str) -> str:
        """What this person's nonce is used for: `used_by`, unless it was used before."""

    async def used(self, person: str, nonce: str) -> str | None:
        """What it was used for; None where it has not served yet."""


class TemporalNonces:
    """In Temporal itself, as a workflow id that is started once: all workers of all hosts share it, and it
    outlives each of them, and the run or the guardian that took the token.

    The server keeps an id for as long as it keeps the closed workflow: the namespace's retention, an hour at
    least. A token is good for an hour at most from when it first serves (`tokens.LONGEST_S`), so it ends
    before its mark does.
    """

    def __init__(self, client: Client) -> None:
        self._client = client

    async def use(self, person: str, nonce: str, *, used_by: str, task_queue: str) -> str:
        token_id = _token_id(person, nonce)
        try:
            await self._client.start_workflow(
                USED_TOKEN,
                id=token_id,
                task_queue=task_queue,
                id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
                memo={USED_BY: used_by},
                static_summary=f"A token of {person}, used by {used_by}",
            )
        except WorkflowAlreadyStartedError:
            return await self._first_use(token_id)
        return used_by

    async def used(self, person: str, nonce: str) -> str | None:
        try:
            return await self._first_use(_token_id(person, nonce))
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise
            return None

    async def _first_use(self, token_id: str) -> str:
        first = await self._client.get_workflow_handle(token_id).describe()
        return str(await first.memo_value(USED_BY, "an unknown request", type_hint=str))


def _token_id(person: str, nonce: str) -> str:
    return f"token-{sha256(f'{person} {nonce}'.encode()).hexdigest()[:32]}"
