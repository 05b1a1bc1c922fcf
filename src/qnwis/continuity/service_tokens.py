"""Service tokens: 256 random bits that a service shows, of which only the SHA-256 is kept.

A slow hash would add nothing: what is random over 256 bits cannot be guessed from its SHA-256, and each
request is checked.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from hashlib import sha256
from typing import Self

from pydantic import AwareDatetime, Field, model_validator

from .identity import Identity
from .model import Identifier, Model

PREFIX = "qnwis"
"""Begins each token, so that scanners for secrets can know one."""

SameText = Callable[[str, str], bool]
"""Comparison in constant time."""


class ServiceToken(Model):
    """What is kept of one."""

    token_id: str = Field(pattern=r"^[0-9a-f]{12}$")
    """Stands in the token, is no secret, and names it in logs and records."""
    name: str = Field(min_length=1)
    """Of the service, as records name it."""
    roles: tuple[Identifier, ...] = Field(min_length=1)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    issued_at: AwareDatetime
    expires_at: AwareDatetime
    revoked_at: AwareDatetime | None = None


class ServiceTokens(Model):
    """The content of `service-tokens.yaml`."""

    tokens: tuple[ServiceToken, ...] = ()

    @model_validator(mode="after")
    def _told_apart(self) -> Self:
        ids = [token.token_id for token in self.tokens]
        twice = sorted({one for one in ids if ids.count(one) > 1})
        if twice:
            raise ValueError(f"token_id {twice[0]} is there twice; expected each token once")
        return self

    def named(self, token_id: str) -> ServiceToken | None:
        return next((token for token in self.tokens if token.token_id == token_id), None)


def text_of(token_id: str, secret: str) -> str:
    """The token as the service shows it."""
    return f"{PREFIX}_{token_id}_{secret}"


def hash_of(secret: str) -> str:
    return sha256(secret.encode()).hexdigest()


def is_service_token(presented: str) -> bool:
    """Whether it looks like one of ours; a JWT has dots."""
    return presented.startswith(f"{PREFIX}_")


def service_identity(tokens: ServiceTokens, presented: str, now: datetime, same: SameText) -> Identity | str:
    """Who shows it, or why it counts for nobody. The answer never repeats a part of the secret."""
    _, _, rest = presented.partition("_")
    token_id, _, secret = rest.partition("_")
    token = tokens.named(token_id)
    if token is None or not same(hash_of(secret), token.sha256):
        return "the service token is none of this installation's"
    if token.revoked_at is not None:
        return f"service token {token.token_id} was revoked at {token.revoked_at.isoformat()}"
    if now >= token.expires_at:
        return f"service token {token.token_id} ended at {token.expires_at.isoformat()}"
    return Identity(name=token.name, roles=token.roles, by=f"service token {token.token_id}")
