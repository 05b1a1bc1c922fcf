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
from qnwis.continuity.audit import AuditRecord, FaultCode, draft_of
from qnwis.continuity.evidence import ClusterEvidence
from qnwis.continuity.model import canonical_json
from qnwis.continuity.pseudonyms import aliases_in, commitment, people_in, pseudonymised, resolved, tokens_in
from qnwis.continuity.refusal import Refusal
from qnwis.continuity.run import FailoverRequest, RunArtefacts, RunKind, RunOutcome, RunResult
from qnwis.continuity.tokens import Claim, Token
from qnwis.providers.audit_store import SqliteAuditStore
from qnwis.providers.errors import Unrecordable

from .test_audit import tampered

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


# ---- what somebody typed, and how somebody is called

MOMENT = "2025-01-11T12:34:56Z"
"""A name that is the whole of a moment takes its place in artefacts, and comes back when these are read."""
ALL_TIME = (AT - timedelta(days=1), AT + timedelta(days=1))


def first_and_rest(found: tuple[tuple[int, AuditRecord | Refusal], ...]) -> list[AuditRecord]:
    """Each is a record."""
    records = [one for _, one in found if isinstance(one, AuditRecord)]
    assert len(records) == len(found)
    return records


async def read_everywhere(store: SqliteAuditStore, audit_id: str) -> AuditRecord:
    """The record, which is the same in every list, and hides no other."""
    record = await store.get(audit_id)
    assert record is not None
    for found in (await store.latest_each(9), await store.each_after(0, 9), await store.between(*ALL_TIME)):
        assert record in first_and_rest(found) and len(found) == 2
    assert await store.verify() == ()
    return record


def commitments(folder: Path) -> dict[str, str]:
    """By kind, one that is kept."""
    with closing(sqlite3.connect(folder / "audit-persons.sqlite")) as db:
        return {alias.partition(":")[0]: alias for (alias,) in db.execute("SELECT alias FROM commitments")}


@pytest.mark.parametrize("kind", ["person", "proof"])
@pytest.mark.parametrize("typed", ["{}", "see {} and typed-{}", "{}x"])
async def test_a_commitment_that_somebody_typed_is_read_as_it_was_typed(
    store: SqliteAuditStore, tmp_path: Path, kind: str, typed: str
) -> None:
    await recorded(store)
    alias = commitments(tmp_path)[kind]
    reason = typed.replace("{}", alias)
    vote = Vote(person=alias, roles=(), approve=True, reason=reason, at=AT)
    draft = draft_of(run(2)).model_copy(
        update={"reason": reason, "initiated_by": alias, "approvals": (vote,)}
    )
    told = canonical_json({"reason": reason, "by": alias, "token": reason, "public_key": reason})
    written = await store.append(draft, {"request": told, "note": reason})
    assert await store.append(draft, {}) == written
    record = await read_everywhere(store, written.audit_id)
    assert (record.reason, record.initiated_by, record.approvals) == (reason, alias, (vote,))
    assert await store.artefacts(record.audit_id) == {"request": told, "note": reason}
    proved = await store.stored(record.audit_id)
    assert proved is not None and aliases_in(proved[0].record) & {alias} == set()


async def test_a_commitment_that_an_earlier_version_kept_as_it_was_typed_hides_no_record(
    store: SqliteAuditStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await recorded(store)
    proof = commitments(tmp_path)["proof"]
    draft = draft_of(run(2)).model_copy(update={"reason": proof})
    with monkeypatch.context() as earlier:
        earlier.setattr("qnwis.continuity.pseudonyms.TYPED", "")
        written = await store.append(draft, {"note": canonical_json({"reason": proof})})
    assert (await read_everywhere(store, written.audit_id)).reason == proof
    assert await store.append(draft, {}) == written, "a run that tried again since then comes to its end"
    assert await store.artefacts(written.audit_id) == {"note": canonical_json({"reason": proof})}


@pytest.mark.parametrize(
    "name",
    [
        *("34", "2025", "T", "c", "run-2", "continuity_admin", "rejected", "person", "typed", "sha256"),
        *("a.b|c", "manual_failover", "0" * 64, MOMENT, "failover_execute", "primary_failure", "true"),
    ],
)
async def test_whatever_a_person_is_called_the_record_is_written_and_says_the_same(
    store: SqliteAuditStore, tmp_path: Path, name: str
) -> None:
    """Also to those who have no names: the bundle's report is made of what is written."""
    await recorded(store)
    artefacts = run(2)
    request = artefacts.request.model_copy(update={"initiated_by": name, "reason": f"{name}: at 12:34"})
    vote = Vote(person=name, roles=("continuity_admin",), approve=True, reason=name, at=AT)
    window = artefacts.result.approval
    assert window is not None
    window = window.model_copy(update={"initiator": name, "votes": (vote,)})
    result = artefacts.result.model_copy(update={"approval": window, "reason": f"by {name}"})
    artefacts = artefacts.model_copy(update={"request": request, "result": result})
    texts = {one: canonical_json(value) for one, value in artefacts.parts().items()}

    record = await read_everywhere(store, (await store.append(draft_of(artefacts), texts)).audit_id)
    draft = draft_of(artefacts)
    assert record.model_dump(include=set(type(draft).model_fields)) == draft.model_dump()
    assert await store.artefacts(record.audit_id) == texts
    stored = await store.stored(record.audit_id)
    assert stored is not None
    written = AuditRecord.model_validate_json(stored[0].record)
    assert written.approval.approved_at == AT and written.approvals is not None
    assert written.approvals[0].at == AT and written.approvals[0].person.startswith("person:")
    if name != MOMENT:
        assert RunResult.model_validate_json(stored[1]["result"]).outcome is RunOutcome.REJECTED

    await store.erase_person(name)
    assert (await read_everywhere(store, record.audit_id)).initiated_by == written.initiated_by


async def test_what_is_kept_for_one_name_and_is_none_hides_no_other_record(
    store: SqliteAuditStore, tmp_path: Path
) -> None:
    audit_id = await recorded(store)
    await store.append(draft_of(run(2)).model_copy(update={"initiated_by": "dora", "reason": ""}), {})
    with closing(sqlite3.connect(tmp_path / "audit-persons.sqlite")) as db, db:
        db.execute("UPDATE commitments SET value = X'ff' WHERE value = ?", ("dora",))
    newest, before = first_and_rest(await store.latest_each(9))
    assert newest.initiated_by.startswith("person:") and (before.audit_id, before.reason) == (
        audit_id,
        f"{BOB} asks for it",
    )


async def test_a_row_that_is_no_record_any_more_hides_no_other_of_its_time(
    store: SqliteAuditStore, tmp_path: Path
) -> None:
    audit_id = await recorded(store)
    await recorded(store, 2)
    tampered(tmp_path / "audit.sqlite", "UPDATE records SET record = '{}' WHERE sequence = 2")
    (first, record), (second, why) = await store.between(*ALL_TIME)
    assert isinstance(record, AuditRecord) and (first, record.audit_id) == (1, audit_id)
    assert isinstance(why, Refusal) and (second, why.rule) == (2, "audit_record_unreadable")


async def test_what_can_never_be_a_record_is_refused_and_nothing_is_written(
    store: SqliteAuditStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await recorded(store)
    with monkeypatch.context() as broken:
        broken.setattr("qnwis.providers.audit_names.pseudonymised", lambda *_: '{"reason": 1}')
        with pytest.raises(Unrecordable) as caught:
            await store.append(draft_of(run(2)), {})
    assert caught.value.refusal.rule == "audit_record_impossible"
    assert len(await store.latest()) == 1 and await store.verify() == ()


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


def test_in_what_is_for_machines_a_name_is_no_part() -> None:
    aliases = {"19": ANN}
    text = canonical_json({"at": "19", "since": "2025-01-11T12:19:00Z", "lsn": "0/19", "ended": "after/19"})
    hidden = json.loads(pseudonymised(text, aliases))
    assert hidden == {
        "at": "19",
        "since": "2025-01-11T12:19:00Z",
        "lsn": "0/19",
        "ended": f"after/{ANN}",
    }
    assert pseudonymised('{"whoever":["19","at 19"]}', aliases) == f'{{"whoever":["{ANN}","at {ANN}"]}}'


PROOF = commitment("proof", '{"claim":{}}', SALT)
TYPED = [ANN, PROOF, f"by {ANN}x", f"typed-{PROOF}", "typed-", "person:"]
TEXTS = ["ann", "by ann", 'a "quoted" ann', "x", *TYPED]
JSON = st.recursive(
    st.none() | st.integers() | st.lists(st.sampled_from(TEXTS), max_size=3).map("".join),
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
    assert pseudonymised(hidden, {}) != hidden, "read twice it would be another's"
    assert resolved(hidden, {alias: value for value, alias in aliases.items()}) == text
