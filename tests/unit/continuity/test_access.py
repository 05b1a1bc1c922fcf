"""People: who they are, what they may do, and what a token proves."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from qnwis.config.load import load_people, load_rbac
from qnwis.config.shipped import shipped
from qnwis.continuity.access import OVERRIDE_CONSTRAINTS, Access, Deed, People, Person
from qnwis.continuity.tokens import Claim, Expected, Token, permitted, proved
from qnwis.providers.keys import new_key, public_key_of, sign_claim, verify

NOW = datetime(2025, 1, 11, 12, 0, tzinfo=UTC)
KEYS = {name: new_key() for name in ("ann", "bob", "eve")}
ROLES = {"ann": ("continuity_admin",), "bob": ("continuity_operator",), "eve": ("continuity_viewer",)}
ACCESS = Access(
    rbac=load_rbac(shipped("config") / "rbac" / "continuity.yaml"),
    people=People(
        people=tuple(
            Person(name=name, roles=ROLES[name], public_key=public_key_of(key)) for name, key in KEYS.items()
        )
    ),
)
EXPECTED = Expected(deed=Deed.APPROVE, cluster_id="c1", run_id="run-1", digest="sha256:1")


def token(person: str = "ann", signer: str | None = None, **changes: object) -> Token:
    fields = {
        "person": person,
        **EXPECTED.model_dump(),
        "nonce": "n" * 16,
        "expires_at": NOW + timedelta(minutes=5),
    }
    return sign_claim(Claim.model_validate({**fields, **changes}), KEYS[signer or person])


def rule(found: object) -> str:
    return getattr(found, "rule", "none")


def test_the_signer_is_who_the_token_says() -> None:
    person = proved(token(), EXPECTED, "ann", ACCESS, NOW, verify)
    assert isinstance(person, Person) and person.name == "ann"


@pytest.mark.parametrize(
    ("given_token", "why"),
    [
        (None, "token_missing"),
        (token(signer="bob"), "token_forged"),
        (token().model_copy(update={"signature": "bm8="}), "token_forged"),
        (token().model_copy(update={"signature": "not base64!"}), "token_forged"),
        (sign_claim(token().claim.model_copy(update={"person": "zoe"}), KEYS["ann"]), "person_unknown"),
        (token("bob"), "token_of_another"),
        (token(deed=Deed.REJECT), "token_for_another"),
        (token(cluster_id="c2"), "token_for_another"),
        (token(run_id="run-2"), "token_for_another"),
        (token(run_id=None), "token_for_another"),
        (token(digest="sha256:2"), "token_for_another"),
        (token(expires_at=NOW), "token_expired"),
        (token(expires_at=NOW + timedelta(hours=2)), "token_too_long"),
    ],
)
def test_a_token_is_good_for_one_thing_of_one_person(given_token: Token | None, why: str) -> None:
    assert rule(proved(given_token, EXPECTED, "ann", ACCESS, NOW, verify)) == why


others = st.sampled_from(["ann", "bob", "c2", "run-9", "m" * 16])


@given(
    st.tuples(st.sampled_from(["person", "cluster_id", "run_id", "digest", "nonce"]), others)
    | st.tuples(st.just("deed"), st.sampled_from(Deed))
)
def test_nothing_of_a_signed_claim_can_be_changed(change: tuple[str, str]) -> None:
    good = token()
    changed = Claim.model_construct(**{**dict(good.claim), change[0]: change[1]})
    found = proved(good.model_copy(update={"claim": changed}), EXPECTED, "ann", ACCESS, NOW, verify)
    assert isinstance(found, Person) == (changed == good.claim)


def test_a_revoked_key_counts_no_more() -> None:
    rotated = Person(name="ann", roles=ROLES["ann"], public_key=public_key_of(new_key()))
    access = ACCESS.model_copy(update={"people": People(people=(rotated,))})
    assert rule(proved(token(), EXPECTED, "ann", access, NOW, verify)) == "token_forged"


@pytest.mark.parametrize(
    ("name", "deed", "allowed"),
    [
        ("ann", Deed.START, True),
        ("ann", Deed.OVERRIDE, True),
        ("bob", Deed.START, True),
        ("bob", Deed.ABORT, True),
        ("bob", Deed.OVERRIDE, False),
        ("eve", Deed.START, False),
        ("eve", Deed.PAUSE, False),
        ("ann", Deed.APPROVE, False),
    ],
)
def test_roles_allow_what_the_file_says(name: str, deed: Deed, allowed: bool) -> None:
    person = ACCESS.people.named(name)
    assert person is not None
    assert (permitted(person, deed, ACCESS) is None) is allowed


def test_what_needs_a_permission_besides_is_refused_with_its_name() -> None:
    ann, bob = (ACCESS.people.named(name) for name in ("ann", "bob"))
    assert ann is not None and bob is not None
    assert permitted(ann, Deed.START, ACCESS, (OVERRIDE_CONSTRAINTS,)) is None
    refusal = permitted(bob, Deed.START, ACCESS, (OVERRIDE_CONSTRAINTS,))
    assert refusal is not None and refusal.values["lacking"] == [OVERRIDE_CONSTRAINTS]
    assert OVERRIDE_CONSTRAINTS in refusal.message


def test_the_voters_are_those_of_the_workflow_without_the_initiator() -> None:
    manual = ACCESS.rbac.approval_workflows["manual_failover"]
    assert (manual.required_approvers, manual.timeout_sec) == (1, 600)
    assert [p.name for p in ACCESS.voters(manual, initiator="bob")] == ["ann"]
    assert ACCESS.voters(manual, initiator="ann") == ()
    override = ACCESS.rbac.approval_workflows["emergency_override"]
    assert (override.required_approvers, override.timeout_sec) == (2, 300)


def test_two_people_with_one_key_are_none() -> None:
    key = public_key_of(KEYS["ann"])
    with pytest.raises(ValidationError, match="each person once"):
        People.model_validate(
            {"people": [{"name": n, "roles": ["continuity_admin"], "public_key": key} for n in ("a", "b")]}
        )


def test_the_shipped_people_file_is_empty_and_valid() -> None:
    assert load_people(shipped("config") / "continuity" / "people.yaml").people == ()
