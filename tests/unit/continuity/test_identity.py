"""Who asks through the API, what their roles allow, and whether a request is fresh and not one too many."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from qnwis.config.load import load_rbac
from qnwis.config.shipped import shipped
from qnwis.continuity.access import ALIASES, Access, Deed, Issuer, Issuers, People, Person, Rbac, Role
from qnwis.continuity.access_review import Period, review
from qnwis.continuity.alerts import Alert, AlertRule, cluster_of
from qnwis.continuity.approvals import Window, cast
from qnwis.continuity.identity import (
    Identity,
    Permission,
    claimed_roles,
    may,
    permission_refusal,
)
from qnwis.continuity.refusal import Refusal
from qnwis.continuity.requests import Bucket, Limits, fresh, moment, take
from qnwis.continuity.service_tokens import (
    ServiceToken,
    ServiceTokens,
    hash_of,
    service_identity,
    text_of,
)
from qnwis.continuity.tokens import Claim, Expected, Token, proved
from qnwis.providers.keys import new_key, public_key_of, sign_claim, verify

NOW = datetime(2026, 1, 11, 12, 0, tzinfo=UTC)
RBAC = load_rbac(shipped("config") / "rbac" / "continuity.yaml")
NONCE = "n" * 16


def who(*roles: str) -> Identity:
    return Identity(name="ann", roles=roles, by="test")


def test_the_specifications_admin_and_service_are_roles_of_the_file() -> None:
    for alias, meant in ALIASES.items():
        assert RBAC.role(alias) == RBAC.role(meant) is not None
    assert all(may(who("admin"), permission, RBAC) for permission in Permission)
    service = {permission for permission in Permission if may(who("service"), permission, RBAC)}
    assert Permission.TRIGGER in service
    assert not service & {
        Permission.CONFIGURE_POLICY,
        Permission.MANAGE_CLUSTER,
        Permission.EMERGENCY_OVERRIDE,
    }


@pytest.mark.parametrize(("name", "meant"), ALIASES.items())
def test_a_role_by_the_specifications_name_counts_for_workers_and_votes_as_it_does_at_the_door(
    name: str, meant: str
) -> None:
    people = (
        Person(name="ci", roles=(name,), issuers=("api",)),
        Person(name="ann", roles=(meant,), issuers=("api",)),
    )
    access = Access(rbac=RBAC, people=People(people=people))
    ci, ann = (access.people.named(one) for one in ("ci", "ann"))
    assert ci is not None and ann is not None
    for deed in Deed:
        assert access.allows(ci, deed) is access.allows(ann, deed)
    for permission in Permission:
        assert may(who(name), permission, RBAC) is access.gives(ci, permission.value)
    for workflow in RBAC.approval_workflows.values():
        voters = [one.name for one in access.voters(workflow, initiator="bob")]
        assert voters == (["ci", "ann"] if meant in workflow.allowed_roles else [])
        window = Window(name="w", workflow=workflow, digest="d", initiator="bob", opened_at=NOW)
        counted = cast(window, ci, digest="d", approve=True, reason="", now=NOW)
        assert isinstance(counted, Window) is (meant in workflow.allowed_roles)
    period = Period(since=NOW, until=NOW + timedelta(days=1))
    mine, hers = review(access, ServiceTokens(), (), period).holders
    assert mine.rights == hers.rights


def test_a_file_that_defines_a_role_of_that_name_goes_before() -> None:
    own = Rbac(roles=(Role(name="admin", permissions=("continuity:read_status",)),))
    assert may(who("admin"), Permission.READ_STATUS, own)
    assert not may(who("admin"), Permission.TRIGGER, own) and own.role("service") is None
    root = Person(name="root", roles=("admin",), issuers=("api",))
    access = Access(rbac=own, people=People(people=(root,)))
    assert access.people.people == (root,) and not access.allows(root, Deed.START)


@given(st.lists(st.sampled_from(["continuity_viewer", "no_such_role", "continuity_operator"]), max_size=3))
def test_roles_only_add_and_an_unknown_role_adds_nothing(roles: list[str]) -> None:
    for permission in Permission:
        each = any(may(who(role), permission, RBAC) for role in roles)
        assert may(who(*roles), permission, RBAC) is each
        refusal = permission_refusal(who(*roles), [permission], RBAC)
        assert (refusal is None) is each
        if refusal is not None:
            assert refusal.values["missing"] == [permission.value]
            assert "continuity_admin" in refusal.values["roles_that_allow"]  # type: ignore[operator]


@pytest.mark.parametrize(
    ("claims", "found"),
    [
        ({"realm": {"roles": ["a", "ops", "a"]}}, ("a", "continuity_admin")),
        ({"realm": {"roles": "a ops"}}, ("a", "continuity_admin")),
        ({"realm": {"roles": [1, None, {"a": 1}]}}, ()),
        ({"realm": {"roles": {"a": True}}}, ()),
        ({"realm": None}, ()),
        ({}, ()),
    ],
)
def test_roles_are_texts_at_the_named_place_and_nothing_else(
    claims: dict[str, object], found: tuple[str, ...]
) -> None:
    assert claimed_roles(claims, "realm.roles", {"ops": "continuity_admin"}) == found


@given(st.integers(-400, 400))
def test_a_request_is_fresh_within_the_skew_and_not_beyond(off_s: int) -> None:
    sent = (NOW + timedelta(seconds=off_s)).isoformat()
    refusal = fresh(sent, NONCE, Limits(clock_skew_s=60), NOW)
    assert (refusal is None) is (abs(off_s) <= 60)
    assert refusal is None or refusal.rule == "request_stale"


@pytest.mark.parametrize("text", ["", "now", "2026-01-11T12:00:00", "1", '"', "9999-99-99T00:00:00Z", "\\"])
def test_what_is_no_moment_with_a_zone_is_none(text: str) -> None:
    assert moment(text) is None


@given(st.lists(st.floats(0, 5), max_size=60), st.integers(1, 20), st.floats(1, 600))
def test_nobody_gets_more_than_the_burst_and_the_rate_over_any_time(
    gaps: list[float], burst: int, per_minute: float
) -> None:
    limits, bucket, now_s, passed = Limits(burst=burst, per_minute=per_minute), None, 0.0, 0
    for gap in gaps:
        now_s += gap
        bucket, wait_s = take(bucket, limits, now_s)
        passed += wait_s == 0
        if wait_s > 0:
            assert take(bucket, limits, now_s + wait_s + 1e-6)[1] == 0, "what it says to wait is enough"
    assert passed <= burst + now_s * per_minute / 60 + 1e-6


def test_a_clock_that_goes_back_gives_nothing() -> None:
    bucket, wait_s = take(Bucket(tokens=0, at_s=100), Limits(per_minute=60), 50)
    assert wait_s > 0 and bucket.tokens == 0


SECRET = "s" * 43
KEPT = ServiceToken(
    token_id="0123456789ab",
    name="robot",
    roles=("service",),
    sha256=hash_of(SECRET),
    issued_at=NOW,
    expires_at=NOW + timedelta(days=1),
)


@pytest.mark.parametrize(
    ("kept", "shown", "at", "good"),
    [
        (KEPT, text_of(KEPT.token_id, SECRET), NOW, True),
        (KEPT, text_of(KEPT.token_id, SECRET + "x"), NOW, False),
        (KEPT, text_of("ba9876543210", SECRET), NOW, False),
        (KEPT, text_of(KEPT.token_id, KEPT.sha256), NOW, False),
        (KEPT, "qnwis_", NOW, False),
        (KEPT, text_of(KEPT.token_id, SECRET), NOW + timedelta(days=1), False),
        (KEPT.model_copy(update={"revoked_at": NOW}), text_of(KEPT.token_id, SECRET), NOW, False),
    ],
)
def test_a_service_token_counts_whole_in_time_and_unrevoked(
    kept: ServiceToken, shown: str, at: datetime, good: bool
) -> None:
    found = service_identity(ServiceTokens(tokens=(kept,)), shown, at, lambda a, b: a == b)
    assert isinstance(found, Identity) is good
    assert isinstance(found, Identity) or SECRET not in found


# Whom the API vouches for

API, OTHER, OWN = new_key(), new_key(), new_key()
EXPECTED = Expected(deed=Deed.APPROVE, cluster_id="c1", run_id="run-1", digest="sha256:1")
ACCESS = Access(
    rbac=RBAC,
    people=People(
        people=(
            Person(name="ann", roles=("continuity_admin",), public_key=public_key_of(OWN)),
            Person(name="dora", roles=("continuity_admin",), issuers=("api",)),
            Person(
                name="fay", roles=("continuity_admin",), public_key=public_key_of(OTHER), issuers=("api",)
            ),
        )
    ),
    issuers=Issuers(issuers=(Issuer(name="api", public_key=public_key_of(API)),)),
)


def token(person: str, signer: object, issuer: str | None, **changes: object) -> Token:
    fields = {
        "person": person,
        **EXPECTED.model_dump(),
        "nonce": NONCE,
        "expires_at": NOW + timedelta(minutes=2),
        "issuer": issuer,
        **changes,
    }
    return sign_claim(Claim.model_validate(fields), signer)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("person", "signer", "issuer", "rule"),
    [
        ("dora", API, "api", None),
        ("fay", API, "api", None),
        ("fay", OTHER, None, None),
        ("ann", OWN, None, None),
        ("ann", API, "api", "not_vouched_for"),
        ("dora", API, None, "not_vouched_for"),
        ("dora", API, "another", "not_vouched_for"),
        ("dora", OWN, "api", "token_forged"),
        ("fay", OTHER, "api", "token_forged"),
        ("fay", API, None, "token_forged"),
        ("zoe", API, "api", "person_unknown"),
    ],
)
def test_an_issuer_vouches_only_for_whom_people_yaml_says(
    person: str, signer: object, issuer: str | None, rule: str | None
) -> None:
    found = proved(token(person, signer, issuer), EXPECTED, person, ACCESS, NOW, verify)
    assert (found.rule if isinstance(found, Refusal) else None) == rule


def test_what_an_issuer_signed_for_one_deed_serves_no_other() -> None:
    for changes in ({"digest": "sha256:2"}, {"run_id": "run-2"}, {"deed": Deed.REJECT}, {"cluster_id": "c2"}):
        found = proved(token("dora", API, "api", **changes), EXPECTED, "dora", ACCESS, NOW, verify)
        assert isinstance(found, Refusal) and found.rule == "token_for_another"


def test_a_claim_without_an_issuer_is_signed_as_before_there_were_any() -> None:
    claim = token("ann", OWN, None).claim
    assert b"issuer" not in claim.message()
    assert b'"issuer":"api"' in claim.model_copy(update={"issuer": "api"}).message()


def test_a_person_whom_nobody_could_prove_to_be_is_no_entry() -> None:
    with pytest.raises(ValidationError, match="public_key, or issuers"):
        Person(name="ann", roles=("continuity_admin",))


# Alerts


def alert(**labels: str) -> Alert:
    return Alert.model_validate({"status": "firing", "labels": labels, "startsAt": NOW})


def test_an_alert_is_about_the_cluster_of_the_first_rule_that_matches_whole() -> None:
    rules = (
        AlertRule(match={"alertname": "Down", "team": "db"}, cluster_id="c1"),
        AlertRule(match={"alertname": "Down"}, cluster_label="cluster"),
    )
    assert cluster_of(alert(alertname="Down", team="db", cluster="c2"), rules) == "c1"
    assert cluster_of(alert(alertname="Down", cluster="c2"), rules) == "c2"
    assert cluster_of(alert(alertname="Down"), rules) is None
    assert cluster_of(alert(alertname="Up", cluster="c2"), rules) is None


def test_an_alert_is_the_same_by_its_labels_and_its_start() -> None:
    one = alert(alertname="Down", cluster="c1")
    assert one.alert_id == alert(cluster="c1", alertname="Down").alert_id
    assert one.alert_id == one.model_copy(update={"annotations": {"summary": "again"}}).alert_id
    assert one.alert_id != one.model_copy(update={"startsAt": NOW + timedelta(hours=1)}).alert_id
