"""Persons in the audit trail: committed to, named while they are known, and erased without a trace."""

from __future__ import annotations

import json
import sqlite3
import stat
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qnwis.continuity.access import ApprovalWorkflow, Deed
from qnwis.continuity.approvals import Vote, Window
from qnwis.continuity.audit import FaultCode, draft_of
from qnwis.continuity.evidence import ClusterEvidence
from qnwis.continuity.model import canonical_json
from qnwis.continuity.pseudonyms import aliases_in, commitment, people_in, pseudonymised, resolved, tokens_in
from qnwis.continuity.refusal import Refusal
from qnwis.continuity.run import FailoverRequest, RunArtefacts, RunKind, RunOutcome, RunResult
from qnwis.continuity.tokens import Claim, Token
from qnwis.providers.audit_store import SqliteAuditStore

AT = datetime(2025, 1, 11, 12, 34, 56, tzinfo=UTC)
BOB, CARL = "bob.miller@example.com", "carl"


def run(number: int = 1) -> RunArtefacts:
    claim = Claim(
        person=BOB, deed=Deed.START, cluster_id="c", nonce="n" * 16, expires_at=AT, reason="disk of node-1"
    )
    window = Window(
        name="manual_failover",
        workflow=ApprovalWorkflow(required_approvers=1, allowed_roles=("continuity_admin",), timeout_sec=600),
        digest="sha256:" + "0" * 64,
        initiator=BOB,
        opened_at=AT,
        votes=(
            Vote(person=CARL, roles=("continuity_admin",), approve=False, reason=f"not for {BOB}", at=AT),
        ),
    )
    return RunArtefacts(
        request=FailoverRequest(
            cluster_id="c",
            initiated_by=BOB,
            reason=f"{BOB} asks for it",
            token=Token(claim=claim, signature="c2lnbmF0dXJl"),
        ),
        evidence_before=ClusterEvidence(cluster_id="c", nodes=()),
        evidence_after=None,
        result=RunResult(
            kind=RunKind.PRIMARY_FAILURE,
            outcome=RunOutcome.REJECTED,
            reason=f"rejected by {CARL}.",
            cluster_id="c",
            run_id=f"run-{number}",
            initiator_roles=("continuity_operator",),
            approval=window,
            started_at=AT,
            ended_at=AT + timedelta(seconds=1),
        ),
    )


async def recorded(store: SqliteAuditStore, number: int = 1) -> str:
    artefacts = run(number)
    texts = {name: canonical_json(value) for name, value in artefacts.parts().items()}
    record = await store.append(draft_of(artefacts), texts)
    assert (record.initiated_by, record.approvals and record.approvals[0].person) == (BOB, CARL)
    assert record.reason == f"{BOB} asks for it"
    assert await store.artefacts(record.audit_id) == texts
    return record.audit_id


@pytest.fixture
def store(tmp_path: Path) -> SqliteAuditStore:
    return SqliteAuditStore(tmp_path / "audit.sqlite", tmp_path / "signing.pem")


def holding(folder: Path, *words: str) -> set[str]:
    """Files in which one of the words can be read."""
    return {
        path.name for path in folder.iterdir() if any(word.encode() in path.read_bytes() for word in words)
    }


async def test_what_is_hashed_and_signed_holds_no_person(store: SqliteAuditStore, tmp_path: Path) -> None:
    await recorded(store)
    assert holding(tmp_path, BOB, CARL, "c2lnbmF0dXJl") == {"audit-persons.sqlite"}
    assert stat.S_IMODE((tmp_path / "audit-persons.sqlite").stat().st_mode) == 0o600


async def test_a_person_is_erased_and_every_proof_stays_valid(
    store: SqliteAuditStore, tmp_path: Path
) -> None:
    audit_id = await recorded(store)
    await recorded(store, 2)
    head = await store.head()
    assert head is not None

    alias = await store.erase_person(BOB)

    assert holding(tmp_path, BOB, "c2lnbmF0dXJl") == set()
    record = await store.get(audit_id)
    assert record is not None and (record.initiated_by, record.reason) == (alias, f"{alias} asks for it")
    assert record.approvals is not None and record.approvals[0].person == CARL
    texts = await store.artefacts(audit_id)
    assert "c2lnbmF0dXJl" not in texts["request"] and CARL in texts["result"]
    assert await store.verify() == () and await store.compare([head]) == ()
    assert await store.erase_person(BOB) is None


async def test_who_acts_again_after_being_erased_is_somebody_new(store: SqliteAuditStore) -> None:
    await recorded(store)
    before = await store.erase_person(BOB)
    await recorded(store, 2)
    assert await store.erase_person(BOB) not in (before, None)


async def test_who_acts_by_itself_is_no_person(store: SqliteAuditStore, tmp_path: Path) -> None:
    draft = draft_of(run()).model_copy(
        update={"initiated_by": "guardian-c", "role": "service", "reason": "", "approvals": None}
    )
    await store.append(draft, {"request": canonical_json({"initiated_by": "guardian-c"})})
    assert not (tmp_path / "audit-persons.sqlite").exists()


async def test_a_refusal_is_recorded_with_the_rule(store: SqliteAuditStore) -> None:
    refusal = Refusal(rule="primary_is_healthy", message="it answers", remedy="wait")
    artefacts = run()
    result = artefacts.result.model_copy(update={"outcome": RunOutcome.REFUSED, "refusal": refusal})
    record = await store.append(draft_of(artefacts.model_copy(update={"result": result})), {})
    assert record.refusal == refusal and record.layers is not None
    cited = [(one.artefact, one.says) for one in record.layers.l19_cited_evidence]
    assert cited == [("evidence_before", "read of no node"), ("refusal", "primary_is_healthy")]


async def test_a_name_that_was_put_in_for_another_shows(store: SqliteAuditStore, tmp_path: Path) -> None:
    await recorded(store)
    with closing(sqlite3.connect(tmp_path / "audit-persons.sqlite")) as db, db:
        db.execute("UPDATE commitments SET value = 'mallory' WHERE value = ?", (CARL,))
    assert [fault.code for fault in await store.verify()] == [FaultCode.ALTERED_NAME]


# ---- the words


SALT = b"\x01" * 32
ANN = commitment("person", "ann", SALT)


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("rejected by ann.", f"rejected by {ANN}."),
        ("ann, dora", f"{ANN}, dora"),
        ("ann's plan", f"{ANN}'s plan"),
        ("planned by Joanna", "planned by Joanna"),
        ("ann@example.com", "ann@example.com"),
        ("joe.ann", "joe.ann"),
        ("ann-2", "ann-2"),
    ],
)
def test_a_name_is_replaced_where_it_is_a_word(text: str, hidden: str) -> None:
    assert pseudonymised(text, {"ann": ANN}) == hidden
    assert json.loads(pseudonymised(json.dumps({"note": text}), {"ann": ANN})) == {"note": hidden}
    assert resolved(hidden, {ANN: "ann"}) == text


JSON = st.recursive(
    st.none() | st.integers() | st.sampled_from(["ann", "by ann", 'a "quoted" ann', "x"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["by", "person", "note", "token"]), inner, max_size=3)
    ),
    max_leaves=8,
)


def test_a_public_key_and_a_token_are_hidden_with_their_person() -> None:
    text = canonical_json({"name": "ann", "public_key": "ed25519:abc", "token": {"claim": {"person": "ann"}}})
    found = tokens_in(json.loads(text))
    assert set(found.values()) == {"ann"} and len(found) == 2
    aliases = {"ann": ANN} | {proof: commitment("proof", proof, SALT) for proof in found}
    hidden = pseudonymised(text, aliases)
    assert "ann" not in hidden and "ed25519" not in hidden
    assert resolved(hidden, {alias: value for value, alias in aliases.items()}) == text


@given(JSON)
def test_a_text_comes_back_as_it_was(value: object) -> None:
    value = {"value": value, "initiated_by": "ann"}
    text = canonical_json(value)
    aliases = {"ann": ANN} | {token: commitment("proof", token, SALT) for token in tokens_in(value)}
    hidden = pseudonymised(text, aliases)
    assert "ann" not in people_in(json.loads(hidden))
    assert aliases_in(hidden) <= set(aliases.values()) and ANN in aliases_in(hidden)
    assert resolved(hidden, {alias: value for value, alias in aliases.items()}) == text
