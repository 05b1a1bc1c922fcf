"""Who may do what: people's proofs, and who may vote. The files are read anew each time."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from temporalio import activity
from temporalio.exceptions import ApplicationError

from qnwis.config.access import AccessFiles
from qnwis.config.problem import ConfigError
from qnwis.continuity.access import Access, ApprovalWorkflow, Deed, Person
from qnwis.continuity.approvals import voters_refusal
from qnwis.continuity.decisions import ASKED, draft_of_decision
from qnwis.continuity.model import Model, canonical_json
from qnwis.continuity.refusal import Refusal
from qnwis.continuity.tokens import Expected, Token, permitted, proved, used_refusal
from qnwis.providers.audit_store import AuditStore
from qnwis.providers.errors import Unrecordable
from qnwis.providers.keys import verify
from qnwis.providers.nonces import Nonces

VOTES = frozenset({Deed.APPROVE, Deed.REJECT})
STANDING = frozenset({Deed.SCHEDULE})
"""Signed once for what is begun again and again: neither the token's end nor its use counts."""


class ProofRequest(Model):
    token: Token | None
    expected: Expected
    claimed: str
    """Whom the request names."""
    used_by: str
    """Names the one request that the token serves; the same when this is asked again."""
    needs: tuple[str, ...] = ()
    """Permissions besides the deed's own."""


class Proof(Model):
    """Exactly one of both."""

    person: Person | None = None
    refusal: Refusal | None = None

    @property
    def refused(self) -> Refusal:
        assert self.refusal is not None
        return self.refusal


class OpenRequest(Model):
    name: str | None
    """Of the approval workflow, as the runbook names it."""
    cluster_id: str
    initiator: str


class Opened(Model):
    name: str = ""
    workflow: ApprovalWorkflow | None = None
    voters: tuple[str, ...] = ()
    refusal: Refusal | None = None


class People:
    def __init__(self, files: AccessFiles, nonces: Nonces, audit: AuditStore) -> None:
        self._files = files
        self._nonces = nonces
        self._audit = audit

    @activity.defn
    async def prove(self, asked: ProofRequest) -> Proof:
        """Who signed this token, if that is the person named and they may do it.

        And if it has not served yet: one that names a run is remembered by that run itself. The answer, yes
        or no, is on record before it is given.
        """
        proof = await self._proved(asked)
        draft = draft_of_decision(
            asked.token,
            asked.expected,
            proof.person or proof.refused,
            claimed=asked.claimed,
            used_by=asked.used_by,
            at=datetime.now(UTC),
        )
        try:
            await self._audit.append(draft, {ASKED: canonical_json(asked)})
        except Unrecordable as error:
            return Proof(refusal=error.refusal)
        return proof

    async def _proved(self, asked: ProofRequest) -> Proof:
        access, now = await asyncio.to_thread(self._access), datetime.now(UTC)
        standing = asked.expected.deed in STANDING
        if asked.token is not None and (standing or await self._served_this(asked, now)):
            now = asked.token.claim.expires_at - timedelta(seconds=1)
        found = proved(asked.token, asked.expected, asked.claimed, access, now, verify)
        if isinstance(found, Refusal):
            return Proof(refusal=found)
        if asked.expected.deed not in VOTES:
            refusal = permitted(found, asked.expected.deed, access, asked.needs)
            if refusal is not None:
                return Proof(refusal=refusal)
        if standing or asked.expected.run_id is not None:
            return Proof(person=found)
        assert asked.token is not None
        claim = asked.token.claim
        user = await self._nonces.use(
            claim.person, claim.nonce, used_by=asked.used_by, task_queue=activity.info().task_queue
        )
        if user != asked.used_by:
            return Proof(refusal=used_refusal(claim, user))
        return Proof(person=found)

    async def _served_this(self, asked: ProofRequest, now: datetime) -> bool:
        """Whether a token that has ended since served the very same request while it was good: a run that is
        reset proves its start again."""
        assert asked.token is not None
        claim = asked.token.claim
        if asked.expected.run_id is not None or now < claim.expires_at:
            return False
        return await self._nonces.used(claim.person, claim.nonce) == asked.used_by

    @activity.defn
    async def open_window(self, asked: OpenRequest) -> Opened:
        """The rules of the approval workflow and who may vote by them."""
        return await asyncio.to_thread(self._open, asked)

    def _open(self, asked: OpenRequest) -> Opened:
        access = self._access()
        workflow = access.rbac.approval_workflows.get(asked.name or "")
        voters = () if workflow is None else access.voters(workflow, initiator=asked.initiator)
        refusal = voters_refusal(asked.name, workflow, [person.name for person in voters])
        if refusal is not None:
            return Opened(refusal=refusal)
        return Opened(
            name=asked.name or "", workflow=workflow, voters=tuple(person.name for person in voters)
        )

    def _access(self) -> Access:
        try:
            return self._files.load()
        except ConfigError as error:
            raise ApplicationError(str(error), type="people_not_loaded") from error
