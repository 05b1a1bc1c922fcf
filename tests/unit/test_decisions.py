"""Whether somebody may do what they ask for is on record before they hear of it, yes or no."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from temporalio.testing import ActivityEnvironment

from activities.people import People, ProofRequest
from qnwis.config.access import AccessFiles
from qnwis.continuity.access import Deed
from qnwis.continuity.refusal import Refusal
from qnwis.continuity.tokens import Claim, Expected
from qnwis.providers.audit_store import SqliteAuditStore
from qnwis.providers.errors import Unreachable, Unrecordable
from qnwis.providers.keys import new_key, public_key_of, sign_claim

KEY = new_key()
DIGEST = "sha256:" + "1" * 64


class NoNonces:
    async def use(self, person: str, nonce: str, *, used_by: str, task_queue: str) -> str:
        raise AssertionError("a token that names a run is remembered by that run")

    async def used(self, person: str, nonce: str) -> str | None:
        raise AssertionError("a token that names a run is remembered by that run")


class Kept:
    """Nonces, and what each was used for."""

    def __init__(self) -> None:
        self.by: dict[str, str] = {}

    async def use(self, person: str, nonce: str, *, used_by: str, task_queue: str) -> str:
        return self.by.setdefault(nonce, used_by)

    async def used(self, person: str, nonce: str) -> str | None:
        return self.by.get(nonce)


@pytest.fixture
def store(tmp_path: Path) -> SqliteAuditStore:
    return SqliteAuditStore(tmp_path / "audit.sqlite", tmp_path / "signing.pem")


@pytest.fixture
def people(tmp_path: Path, store: SqliteAuditStore) -> People:
    (tmp_path / "people.yaml").write_text(
        f"people: [{{name: dora, roles: [continuity_admin], public_key: '{public_key_of(KEY)}'}}]\n"
    )
    return People(AccessFiles(tmp_path), NoNonces(), store)


def asked(*, claimed: str = "dora", deed: Deed = Deed.APPROVE) -> ProofRequest:
    about = {"cluster_id": "c", "run_id": "run-1", "digest": DIGEST}
    claim = Claim(
        person="dora",
        deed=deed,
        reason="looks right",
        nonce="n" * 16,
        expires_at=datetime.now(UTC) + timedelta(minutes=5),
        **about,
    )
    expected = Expected(deed=deed, **about)
    return ProofRequest(token=sign_claim(claim, KEY), expected=expected, claimed=claimed, used_by="request 1")


async def test_a_vote_that_was_proved_is_on_record(people: People, store: SqliteAuditStore) -> None:
    request = asked()
    for _ in range(2):  # as after a crash
        assert (await ActivityEnvironment().run(people.prove, request)).person is not None
    [record] = await store.latest()
    assert (record.operation, record.initiated_by, record.role) == (
        "decide_approve",
        "dora",
        "continuity_admin",
    )
    assert (record.reason, record.plan_digest, record.result.success) == ("looks right", DIGEST, True)
    assert '"signature"' in (await store.artefacts(record.audit_id))["asked"]


async def test_a_refused_one_is_too_with_the_rule(people: People, store: SqliteAuditStore) -> None:
    await ActivityEnvironment().run(people.prove, asked(claimed="mallory"))
    await ActivityEnvironment().run(people.prove, asked(claimed="eve").model_copy(update={"token": None}))
    missing, other = await store.latest()
    assert (other.initiated_by, other.role) == ("mallory", "unauthenticated")
    assert other.refusal is not None and other.refusal.rule == "token_of_another" and not other.result.success
    assert missing.refusal is not None and missing.refusal.rule == "token_missing"


async def test_nobody_is_let_through_without_a_record(
    people: People, store: SqliteAuditStore, tmp_path: Path
) -> None:
    (tmp_path / "audit.sqlite").mkdir()
    with pytest.raises(Unreachable):
        await ActivityEnvironment().run(people.prove, asked())


async def test_where_the_answer_can_never_be_on_record_it_is_no(
    people: People, store: SqliteAuditStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    never = Refusal(rule="audit_record_impossible", message="It makes no record", remedy="Report it.")

    async def append(*_: object) -> None:
        raise Unrecordable(never)

    monkeypatch.setattr(store, "append", append)
    assert (await ActivityEnvironment().run(people.prove, asked())).refusal == never


def to_start(expires_at: datetime, *, used_by: str = "run-1") -> ProofRequest:
    about = {"deed": Deed.START, "cluster_id": "c", "digest": DIGEST}
    claim = Claim(person="dora", nonce="n" * 16, expires_at=expires_at, **about)
    token = sign_claim(claim, KEY)
    return ProofRequest(token=token, expected=Expected(**about), claimed="dora", used_by=used_by)


async def test_a_run_that_is_reset_proves_its_start_again_and_nobody_else_does_by_that_token(
    people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    nonces = Kept()
    monkeypatch.setattr(people, "_nonces", nonces)
    ended = datetime.now(UTC) - timedelta(seconds=1)

    async def proved(used_by: str) -> str | None:
        found = await ActivityEnvironment().run(people.prove, to_start(ended, used_by=used_by))
        return None if found.refusal is None else found.refusal.rule

    assert await proved("run-1") == "token_expired" and nonces.by == {}
    nonces.by["n" * 16] = "run-1"  # while it was good
    assert [await proved("run-1"), await proved("run-2")] == [None, "token_expired"]
