"""What the API is made of: everything through which it reaches the world."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from temporalio.client import Client

from qnwis.config.access import AccessFiles
from qnwis.config.api import ApiFile
from qnwis.config.problem import ConfigError
from qnwis.config.registry import Registered, Registry
from qnwis.continuity.access import Deed
from qnwis.continuity.identity import Identity
from qnwis.continuity.refusal import Refusal
from qnwis.continuity.run import FailoverRequest
from qnwis.continuity.tokens import Claim, PersonRequest, Token
from qnwis.providers.alarms import Alarms
from qnwis.providers.audit_store import AuditStore
from qnwis.providers.errors import Refused
from qnwis.providers.jwt_bearer import Bearer
from qnwis.providers.keys import sign_claim
from qnwis.providers.nodes import Nodes
from qnwis.providers.request_store import RequestStore
from qnwis.providers.service_tokens import TokenFile
from workflows.names import RUNBOOKS_QUEUE

R = TypeVar("R", bound=PersonRequest)

GOOD_FOR = timedelta(minutes=2)
"""A token that the API signs is sent at once."""


@dataclass(frozen=True)
class Voucher:
    """The API's own key, by which workers believe who was signed in here (`issuers.yaml`). It says who, for
    one deed on one content; what that person may do, the workers read in people.yaml themselves."""

    issuer: str
    key: Ed25519PrivateKey

    def token(
        self,
        who: Identity,
        deed: Deed,
        *,
        cluster_id: str,
        run_id: str | None = None,
        digest: str | None = None,
        reason: str = "",
    ) -> Token:
        claim = Claim(
            person=who.name,
            deed=deed,
            cluster_id=cluster_id,
            run_id=run_id,
            digest=digest,
            reason=reason,
            nonce=secrets.token_hex(16),
            expires_at=datetime.now(UTC) + GOOD_FOR,
            issuer=self.issuer,
        )
        return sign_claim(claim, self.key)

    def signed(
        self, who: Identity, deed: Deed, request: R, *, cluster_id: str, run_id: str | None = None
    ) -> R:
        """The request with the proof of who made it."""
        token = self.token(
            who, deed, cluster_id=cluster_id, run_id=run_id, digest=request.digest, reason=request.reason
        )
        return request.model_copy(update={"token": token})

    def signed_start(self, who: Identity, request: FailoverRequest) -> FailoverRequest:
        deed = Deed.OVERRIDE if request.override else Deed.START
        token = self.token(
            who, deed, cluster_id=request.cluster_id, digest=request.digest, reason=request.reason
        )
        return request.model_copy(update={"token": token})


@dataclass(frozen=True)
class Parts:
    registry: Registry
    access: AccessFiles
    settings: ApiFile
    bearer: Bearer
    tokens: TokenFile
    store: RequestStore
    nodes: Nodes
    client: Client
    audit: AuditStore
    voucher: Voucher
    alarms: Alarms = field(default_factory=Alarms)
    task_queue: str = RUNBOOKS_QUEUE
    now: Callable[[], datetime] = field(default=lambda: datetime.now(UTC))

    def registered(self, cluster_id: str) -> Registered:
        """Raises Refused for a cluster that this installation does not know, ConfigError for bad files."""
        known = self.registry.cluster_ids()
        if cluster_id in known:
            return self.registry.load(cluster_id)
        with contextlib.suppress(ConfigError):
            return self.registry.load(cluster_id)  # a lease group of an active/active cluster
        raise Refused(
            Refusal(
                rule="cluster_unknown",
                message=f"{cluster_id} is not registered here",
                values={"cluster_id": cluster_id, "registered": [*known]},
                remedy="Register it (config/continuity/clusters/<cluster_id>/), or name one that is.",
            )
        )
