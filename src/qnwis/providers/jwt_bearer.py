"""JWTs of an issuer: its keys from a file or by OIDC discovery, and the check of a token."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import monotonic
from typing import Any

import httpx
import jwt

from qnwis.config.api import JwtIssuer
from qnwis.continuity.identity import Identity, claimed_roles
from qnwis.transport import Transport

from .errors import Unreachable

KEEP_S = 600.0
"""Keys are asked for again after this, seconds."""
ASK_AGAIN_S = 30.0
"""Old keys and an unknown key id have them asked for again, but never more often than this, whether the last
question was answered or not."""
STALE_S = 3600.0
"""Keys serve so long while the issuer does not answer."""
ASK_SOON_S = 1.0
"""In place of ASK_AGAIN_S where no keys serve: nobody is let in until there are some."""
LEEWAY_S = 30.0
"""By how much clocks may differ, seconds."""
LONGEST = 16_384
TIMEOUT_S = 5.0
"""Of each step of a question."""
ANSWERED_WITHIN_S = 10.0
"""Of a whole question: an issuer that answers byte by byte keeps every step in time, and never ends."""


class KeySet:
    """The keys of one issuer, kept for a while."""

    def __init__(self, issuer: JwtIssuer, transport: Transport) -> None:
        self._issuer = issuer
        self._transport = transport
        self._keys: Sequence[jwt.PyJWK] = ()
        self._taken_s = float("-inf")
        self._asked_s = float("-inf")
        """When the last question ended, answered or not."""
        self._failure = ""
        self._asking = asyncio.Lock()

    async def key(self, key_id: str | None) -> jwt.PyJWK | None:
        """The key of that id; without an id the only one there is. Raises Unreachable."""
        found, age_s = self._named(key_id), monotonic() - self._taken_s
        # While somebody asks, and perhaps in vain, nobody else waits whose key still serves.
        if found is not None and (age_s <= KEEP_S or (age_s <= STALE_S and self._asking.locked())):
            return found
        await self._refresh()
        return self._named(key_id)

    def _named(self, key_id: str | None) -> jwt.PyJWK | None:
        if key_id is None:
            return self._keys[0] if len(self._keys) == 1 else None
        return next((key for key in self._keys if key.key_id == key_id), None)

    def _serves(self) -> bool:
        return monotonic() - self._taken_s <= STALE_S

    async def _refresh(self) -> None:
        async with self._asking:
            # Whoever waited here while another asked has that question's end for an answer.
            if monotonic() - self._asked_s > (ASK_AGAIN_S if self._serves() else ASK_SOON_S):
                await self._ask()
            if not self._serves():
                raise Unreachable(f"the keys of {self._issuer.issuer} cannot be had: {self._failure}")

    async def _ask(self) -> None:
        try:
            async with asyncio.timeout(ANSWERED_WITHIN_S):
                self._keys = jwt.PyJWKSet.from_dict(await self._fetch()).keys
            self._taken_s = monotonic()
        except (OSError, ValueError, TypeError, httpx.HTTPError, jwt.PyJWTError) as error:
            self._failure = str(error) or type(error).__name__
        self._asked_s = monotonic()

    async def _fetch(self) -> dict[str, Any]:
        issuer = self._issuer
        if issuer.jwks_file is not None:
            text = await asyncio.to_thread(Path(issuer.jwks_file).read_text)
            return _mapping(json.loads(text))
        async with self._transport.client(timeout_s=TIMEOUT_S, ca_file=issuer.ca_file) as client:
            where = issuer.issuer.rstrip("/") + "/.well-known/openid-configuration"
            found = _mapping((await client.get(where)).raise_for_status().json())
            if found.get("issuer") != issuer.issuer:
                raise ValueError(f"{where} speaks of the issuer {found.get('issuer')}")
            address = str(found.get("jwks_uri", ""))
            if address.partition(":")[0] != issuer.issuer.partition(":")[0]:
                raise ValueError(f"jwks_uri {address} is not reached as the issuer is")
            return _mapping((await client.get(address)).raise_for_status().json())


def _mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("expected a JSON object")
    return value


class Bearer:
    """Who shows a JWT."""

    def __init__(self, issuers: Sequence[JwtIssuer], transport: Transport) -> None:
        self._issuers = {issuer.issuer: (issuer, KeySet(issuer, transport)) for issuer in issuers}

    async def identity(self, presented: str) -> Identity | str:
        """Who it is, or why the token counts for nobody. Raises Unreachable when its keys cannot be had."""
        if len(presented) > LONGEST:
            return "the token is too long"
        try:
            header = jwt.get_unverified_header(presented)
            unverified = jwt.decode(presented, options={"verify_signature": False})
        except jwt.PyJWTError:
            return "the token is no JWT"
        said = unverified.get("iss")
        known = self._issuers.get(said) if isinstance(said, str) else None
        if known is None:
            return "the token's issuer is not one of api.yaml"
        issuer, keys = known
        if header.get("alg") not in issuer.algorithms:
            return f"the token's algorithm is none of {', '.join(issuer.algorithms)}"
        key_id = header.get("kid")
        key = await keys.key(key_id if isinstance(key_id, str) else None)
        if key is None:
            return f"{issuer.issuer} has no key of the token's key id"
        try:
            claims = jwt.decode(
                presented,
                key=key,
                algorithms=[header["alg"]],
                audience=issuer.audience,
                issuer=issuer.issuer,
                leeway=LEEWAY_S,
                options={"require": ["exp", "iat", "iss", "aud", issuer.name_claim]},
            )
        except jwt.PyJWTError as error:
            return f"the token is refused: {error}"
        return _identity(issuer, claims)


def _identity(issuer: JwtIssuer, claims: Mapping[str, Any]) -> Identity | str:
    name = claims.get(issuer.name_claim)
    if not isinstance(name, str) or not name:
        return f"the token's {issuer.name_claim} names nobody"
    if issuer.name_claim == "email" and not (issuer.emails_verified or _says_verified(claims)):
        return "the token does not say that its email was verified"
    return Identity(
        name=name, roles=claimed_roles(claims, issuer.roles_claim, issuer.roles), by=f"jwt {issuer.issuer}"
    )


def _says_verified(claims: Mapping[str, Any]) -> bool:
    """Some issuers write it as text; nothing else says so."""
    said = claims.get("email_verified")
    return said is True or said == "true"
