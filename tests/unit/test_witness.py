"""Witnesses, files and webhooks over real HTTP: what they keep proves the log; one that fails holds nothing
up."""

from __future__ import annotations

import asyncio
import json
import resource
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from temporalio.testing import ActivityEnvironment

import activities.audit
from activities.audit import Audit
from qnwis.bundle_check import read_witness
from qnwis.continuity.audit import AuditRecord
from qnwis.continuity.guardian_record import GuardianDecisions, refused_failover
from qnwis.continuity.model import canonical_json
from qnwis.continuity.refusal import Refusal
from qnwis.continuity.tree_heads import SignedTreeHead, is_signed
from qnwis.providers.audit_store import SqliteAuditStore
from qnwis.providers.errors import Unreachable, Unrecordable
from qnwis.providers.witness import FileWitness, WebhookWitness, witnesses_of
from qnwis.transport import Transport
from tests.unit.continuity.scenes import NOON
from tests.unit.continuity.test_audit import draft, run_artefacts, tampered

SECRET = "hunter2"
REFUSAL = Refusal(rule="guardian_paused", message="It is paused", remedy="Resume it.")


@dataclass
class Elsewhere:
    """A web service that keeps heads, or refuses, or never answers."""

    port: int = 0
    kept: list[str] = field(default_factory=list)
    go_on: asyncio.Event = field(default_factory=asyncio.Event)

    def url(self, manner: str) -> str:
        return f"http://127.0.0.1:{self.port}/{manner}/{SECRET}"

    async def answer(self, request: web.Request) -> web.Response:
        text = await request.text()
        match request.match_info["manner"]:
            case "refuses":
                return web.Response(status=403, text=SECRET)
            case "hangs":
                await self.go_on.wait()
        self.kept.append(text)
        return web.Response(status=201)


@pytest.fixture
async def elsewhere() -> AsyncIterator[Elsewhere]:
    made, application = Elsewhere(), web.Application()
    application.router.add_post(f"/{{manner}}/{SECRET}", made.answer)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.port = runner.addresses[0][1]
    yield made
    made.go_on.set()
    await runner.cleanup()


@pytest.fixture
def store(tmp_path: Path) -> SqliteAuditStore:
    return SqliteAuditStore(tmp_path / "audit.sqlite", tmp_path / "signing.pem")


async def test_what_a_webhook_kept_shows_a_log_that_was_rewritten(
    elsewhere: Elsewhere, store: SqliteAuditStore, tmp_path: Path
) -> None:
    environment = {"QNWIS_AUDIT_WITNESS": f"{elsewhere.url('keeps')} {tmp_path / 'heads.jsonl'}"}
    by_web, by_file = witnesses_of(environment, Transport())
    assert isinstance(by_web, WebhookWitness) and isinstance(by_file, FileWitness)
    audit = Audit(store, witnesses=(by_web, by_file))
    await ActivityEnvironment().run(audit.record, run_artefacts())

    (text,) = elsewhere.kept
    kept = SignedTreeHead.model_validate_json(text)
    assert kept == await store.head() and is_signed(kept, store.key.checker())
    assert json.loads((tmp_path / "heads.jsonl").read_text()) == json.loads(text)
    assert await store.compare([kept]) == ()
    tampered(tmp_path / "audit.sqlite", "UPDATE records SET record = replace(record, 'drill', 'drift')")
    (fault,) = await store.compare([kept])
    assert fault.code.value == "rewritten_log"


async def test_without_a_witness_the_log_is_not_asked_for_its_head(
    store: SqliteAuditStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def head(_: object) -> None:
        raise AssertionError("in S3 it lists the log once more")

    monkeypatch.setattr(SqliteAuditStore, "head", head)
    made = await ActivityEnvironment().run(Audit(store).record, run_artefacts())
    assert await store.get(made.audit_id) is not None


async def test_a_batch_of_decisions_comes_further_with_each_attempt(
    store: SqliteAuditStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow store takes a few in the time of an attempt, and as long to find those that it has."""
    asked, real = [], SqliteAuditStore.append

    async def append(self: SqliteAuditStore, *told: Any) -> AuditRecord:
        asked.append(told[0].run_id)
        if len(asked) % 3 == 0:
            raise Unreachable("the attempt is over")
        return await real(self, *told)

    monkeypatch.setattr(SqliteAuditStore, "append", append)
    decisions = tuple(
        refused_failover(
            "prod", "guardian-prod", "node-1", "seen", REFUSAL, decision_id=f"decision-{n}", at=NOON
        )
        for n in range(7)
    )
    audit, attempts = Audit(store), 0
    while True:
        attempts += 1
        try:
            await ActivityEnvironment().run(audit.record_guardian, GuardianDecisions(decisions=decisions))
            break
        except Unreachable:
            assert attempts < 10
    assert [record.run_id for record in reversed(await store.latest())] == [d.decision_id for d in decisions]
    assert attempts == 4 and await store.verify() == ()


async def test_a_decision_that_can_never_be_on_record_keeps_no_other_from_it(
    store: SqliteAuditStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = SqliteAuditStore.append

    async def append(self: SqliteAuditStore, *told: Any) -> AuditRecord:
        if told[0].run_id == "decision-1":
            raise Unrecordable(REFUSAL)
        return await real(self, *told)

    monkeypatch.setattr(SqliteAuditStore, "append", append)
    decisions = tuple(
        refused_failover(
            "prod", "guardian-prod", "node-1", "seen", REFUSAL, decision_id=f"decision-{n}", at=NOON
        )
        for n in range(3)
    )
    await ActivityEnvironment().run(Audit(store).record_guardian, GuardianDecisions(decisions=decisions))
    assert [one.run_id for one in await store.latest()] == ["decision-2", "decision-0"]


async def heads(store: SqliteAuditStore, count: int) -> list[SignedTreeHead]:
    found = []
    for number in range(count):
        await store.append(draft(number), {})
        head = await store.head()
        assert head is not None
        found.append(head)
    return found


def kept_in(path: Path) -> list[SignedTreeHead]:
    return [SignedTreeHead.model_validate(one) for one in read_witness(path) if one]


@contextmanager
def takes_no_more_than(size: int) -> Iterator[None]:
    """Of each file. As a full disk does, this lets the first bytes through."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_a_disk_that_takes_half_a_head_has_not_kept_it_and_keeps_no_half(
    store: SqliteAuditStore, tmp_path: Path
) -> None:
    path, (first, second, third) = tmp_path / "heads.jsonl", await heads(store, 3)
    witness = FileWitness(path)
    await witness.keep(first)
    whole = path.read_bytes()
    with takes_no_more_than(len(whole) + 20), pytest.raises(Unreachable, match="took 20 of"):
        await witness.keep(second)
    assert path.read_bytes() == whole
    await witness.keep(third)
    assert kept_in(path) == [first, third]


async def test_a_line_that_was_cut_off_spoils_no_other(store: SqliteAuditStore, tmp_path: Path) -> None:
    path, (first, second, third) = tmp_path / "heads.jsonl", await heads(store, 3)
    await FileWitness(path).keep(first)
    with path.open("ab") as file:
        file.write(canonical_json(second).encode()[:70])
    await FileWitness(path).keep(third)
    assert kept_in(path) == [first, third] and len(read_witness(path)) == 3


async def test_a_webhook_that_refuses_is_named_by_its_host_alone(
    elsewhere: Elsewhere, store: SqliteAuditStore
) -> None:
    await store.append(draft(1), {})
    head = await store.head()
    assert head is not None
    for url, said in (
        (elsewhere.url("refuses"), "witness at 127.0.0.1: answered 403"),
        (f"http://127.0.0.1:9/{SECRET}", "witness at 127.0.0.1: ConnectError"),
    ):
        with pytest.raises(Unreachable) as refused:
            await WebhookWitness(url, Transport()).keep(head)
        assert str(refused.value) == said


async def test_a_webhook_that_never_answers_keeps_no_run_from_its_end(
    elsewhere: Elsewhere, store: SqliteAuditStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    audit = Audit(store, witnesses=(WebhookWitness(elsewhere.url("hangs"), Transport()),))
    with monkeypatch.context() as patch:
        patch.setattr(activities.audit, "PATIENCE_S", 0.05)
        made = await ActivityEnvironment().run(audit.record, run_artefacts())
    assert await store.get(made.audit_id) is not None
    assert elsewhere.kept == []
    again = Audit(store, witnesses=(WebhookWitness(elsewhere.url("keeps"), Transport()),))
    await ActivityEnvironment().run(again.record, run_artefacts(dry_run=True))
    assert SignedTreeHead.model_validate_json(elsewhere.kept[0]).head.size == 2, "it covers what was missed"
