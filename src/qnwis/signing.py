"""Signing: the proof of one deed, by a person's own key or by that of an API that vouches for them."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol, Self, TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from qnwis.continuity.access import Deed
from qnwis.continuity.region_run import EvacuateRequest
from qnwis.continuity.run import FailoverRequest
from qnwis.continuity.tokens import Claim, Token
from qnwis.providers.keys import sign_claim


class Provable(Protocol):
    """A request that carries the token by which somebody proves to have made it."""

    @property
    def digest(self) -> str: ...

    @property
    def reason(self) -> str: ...

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self: ...


R = TypeVar("R", bound=Provable)


@dataclass(frozen=True)
class Signer:
    """A key, and in whose name it signs."""

    person: str
    key: Ed25519PrivateKey
    good_for: timedelta
    issuer: str | None = None
    """Who vouches that it is this person, where the key is not their own."""

    def token(
        self,
        deed: Deed,
        *,
        cluster_id: str,
        run_id: str | None = None,
        digest: str | None = None,
        reason: str = "",
    ) -> Token:
        """The proof of this deed; `cluster_id`, `run_id` and `digest` as the worker expects them."""
        claim = Claim(
            person=self.person,
            deed=deed,
            cluster_id=cluster_id,
            run_id=run_id,
            digest=digest,
            reason=reason,
            nonce=secrets.token_hex(16),
            expires_at=datetime.now(UTC) + self.good_for,
            issuer=self.issuer,
        )
        return sign_claim(claim, self.key)

    def signed(self, deed: Deed, request: R, *, cluster_id: str, run_id: str | None = None) -> R:
        """The request with its proof."""
        token = self.token(
            deed, cluster_id=cluster_id, run_id=run_id, digest=request.digest, reason=request.reason
        )
        return request.model_copy(update={"token": token})


Start = TypeVar("Start", FailoverRequest, EvacuateRequest)


def start_deed(request: FailoverRequest | EvacuateRequest, deed: Deed = Deed.START) -> Deed:
    """What starting this is: an override is a deed of its own, whatever starts it."""
    return Deed.OVERRIDE if isinstance(request, FailoverRequest) and request.override else deed


def signed_start(signer: Signer, request: Start) -> Start:
    """The request that starts a run, with its proof."""
    return signer.signed(start_deed(request), request, cluster_id=request.cluster_id)
