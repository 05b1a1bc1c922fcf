"""Tokens: a person's proof of one deed, signed with their own key for that deed alone.

A token says who does what to which run, over which content, until when. Taken out of its place (another run,
another plan, another deed, later) it proves nothing. A name without a token is only a claim.

Pure: the check of a signature comes in as a function, the time as a value.
"""

from __future__ import annotations

from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Callable, Sequence
from datetime import datetime

from pydantic import AwareDatetime, Field

from .access import Access, Deed, Person
from .model import Identifier, Model, canonical_json, sha256_digest
from .refusal import Refusal

LONGEST_S = 3600.0
"""A token that would be good for longer is refused: it would outlive what was meant."""

Verify = Callable[[str, bytes, bytes], bool]
"""Whether (public key, signature, message) fit together."""


class Claim(Model):
    """What is signed, as canonical JSON."""

    person: str = Field(min_length=1)
    deed: Deed
    cluster_id: Identifier
    run_id: str | None = None
    """Temporal run id of the run it is about; None to start one and for the guardian."""
    digest: str | None = None
    """Of the plan, or of the request that starts a run; None where there is no content."""
    reason: str = ""
    nonce: str = Field(min_length=16)
    """Never used before by this person, so that a repeated token shows: each serves one request, whichever
    worker looks at it (`providers/nonces.py`)."""
    expires_at: AwareDatetime
    issuer: Identifier | None = None
    """Who vouches that it is this person, and signed; None where the person signed."""

    def message(self) -> bytes:
        # Without an issuer the message is what it was before there were any: standing tokens stay good.
        without = {"issuer"} if self.issuer is None else set()
        return canonical_json(self.model_dump(mode="json", exclude=without)).encode()


class Token(Model):
    claim: Claim
    signature: str
    """Ed25519 over the claim's message, base64."""


class PersonRequest(Model):
    """What a person asks of a run or a guardian, and why."""

    by: str = Field(min_length=1)
    reason: str = Field(min_length=1)
    token: Token | None = None
    """By which the person proves to be `by`; the CLI makes it."""

    @property
    def digest(self) -> str:
        """What the token is signed for: everything but the token."""
        return sha256_digest(self.model_dump(mode="json", exclude={"token"}))


class Expected(Model):
    """The one deed that a token has to be for."""

    deed: Deed
    cluster_id: Identifier
    run_id: str | None = None
    digest: str | None = None


def proved(
    token: Token | None, expected: Expected, claimed: str, access: Access, now: datetime, verify: Verify
) -> Person | Refusal:
    """Who did it, if the token proves that it is who is `claimed`; the rules in the order in which they
    refuse."""
    if token is None:
        return _refused(
            "token_missing", f"{expected.deed} needs a signed token; a name is only a claim", expected
        )
    claim = token.claim
    person = access.people.named(claim.person)
    if person is None:
        return _refused("person_unknown", f"{claim.person} is not in people.yaml", expected)
    key = _key_for(claim, person, access)
    if key is None:
        return _refused("not_vouched_for", _not_vouched_for(claim), expected)
    if not verify(key, _signature(token), claim.message()):
        signer = claim.person if claim.issuer is None else claim.issuer
        return _refused("token_forged", f"The signature is not one of {signer}'s key", expected)
    if claim.person != claimed:
        return _refused("token_of_another", f"{claimed} is named, and {claim.person} signed", expected)
    misfit = _misfit(claim, expected)
    if misfit is not None:
        return _refused("token_for_another", f"The token of {claim.person} is for {misfit}", expected)
    left_s = (claim.expires_at - now).total_seconds()
    if left_s <= 0:
        return _refused("token_expired", f"The token ended at {claim.expires_at.isoformat()}", expected)
    if left_s > LONGEST_S:
        return _refused("token_too_long", f"The token would be good for {left_s:.0f} s", expected)
    return person


def permitted(person: Person, deed: Deed, access: Access, needs: Sequence[str] = ()) -> Refusal | None:
    """Why the person may not do it, for deeds that need a permission (votes have their window's rules), and
    what is done that way these besides."""
    lacking = [permission for permission in needs if not access.gives(person, permission)]
    if access.allows(person, deed) and not lacking:
        return None
    besides = f" so: that needs {' and '.join(lacking)}" if access.allows(person, deed) else ""
    return Refusal(
        rule="permission_missing",
        message=f"{person.name} ({', '.join(person.roles)}) may not {deed}{besides}",
        values={"person": person.name, "roles": [*person.roles], "deed": deed.value, "lacking": [*lacking]},
        remedy="Let somebody with a role that allows it do this (config/rbac/continuity.yaml).",
    )


def used_refusal(claim: Claim, used_by: str) -> Refusal:
    """A token that has served its one purpose serves no other."""
    return Refusal(
        rule="token_used",
        message=f"This token of {claim.person} to {claim.deed} was used already, for {used_by}",
        values={"person": claim.person, "deed": claim.deed.value, "used_by": used_by},
        remedy="Sign a new one: type the command again.",
    )


def _key_for(claim: Claim, person: Person, access: Access) -> str | None:
    """Whose signature counts: the person's own, or that of an issuer whom the person's entry names."""
    if claim.issuer is None:
        return person.public_key
    issuer = access.issuers.named(claim.issuer)
    return issuer.public_key if issuer is not None and claim.issuer in person.issuers else None


def _not_vouched_for(claim: Claim) -> str:
    if claim.issuer is None:
        return f"{claim.person} has no key of their own in people.yaml, and nobody vouches"
    return f"{claim.issuer} may not vouch for {claim.person}: people.yaml does not say so, or nobody knows it"


def _misfit(claim: Claim, expected: Expected) -> str | None:
    """The first field in which the claim is about something else."""
    for name in ("deed", "cluster_id", "run_id", "digest"):
        found, wanted = getattr(claim, name), getattr(expected, name)
        if found != wanted:
            return f"{name} {found}, not {wanted}"
    return None


def _signature(token: Token) -> bytes:
    try:
        return b64decode(token.signature, validate=True)
    except (Base64Error, ValueError):
        return b""


def _refused(rule: str, message: str, expected: Expected) -> Refusal:
    return Refusal(
        rule=rule,
        message=message,
        values=expected.model_dump(mode="json", exclude_none=True),
        remedy="Sign a new token for exactly this, with your own key.",
    )
