"""A store or a service that is silent: what asks it ends, and holds up nobody who does not."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

import qnwis.providers.aws
from qnwis.continuity.topology import DnsService, Route53Record
from qnwis.providers.audit_keys import SigningKey
from qnwis.providers.audit_place import audit_store_of
from qnwis.providers.audit_sqlite import SqliteLog
from qnwis.providers.audit_store import LoggedAuditStore
from qnwis.providers.aws import ONCE, TRIES, aws_client
from qnwis.providers.errors import Unreachable
from qnwis.providers.key_store import KeyStoreError, key_store_of
from qnwis.providers.persons import Persons
from qnwis.providers.route53 import Route53Dns
from tests.looking import WITHIN_S
from tests.unit.continuity.test_audit import draft

THREADS = min(32, (os.cpu_count() or 1) + 4)
"""Of `asyncio.to_thread`, in all of a process."""


class SilentLog(SqliteLog):
    """Whoever writes or reads waits, until it is let go."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.asked = threading.Semaphore(0)
        self.answers = threading.Event()

    @contextmanager
    def writing(self) -> Iterator[Any]:
        self.asked.release()
        self.answers.wait(WITHIN_S)
        with super().writing() as log:
            yield log

    @contextmanager
    def reading(self) -> Iterator[Any]:
        self.asked.release()
        self.answers.wait(WITHIN_S)
        with super().reading() as log:
            yield log


@pytest.fixture
def silent(tmp_path: Path) -> Iterator[SilentLog]:
    log = SilentLog(tmp_path / "audit.sqlite")
    yield log
    log.answers.set()


@pytest.fixture
def store(silent: SilentLog, tmp_path: Path) -> LoggedAuditStore:
    return LoggedAuditStore(
        silent, SigningKey(tmp_path / "signing.pem"), Persons(tmp_path / "persons.sqlite")
    )


async def test_records_that_wait_for_a_silent_store_leave_everything_else_its_threads(
    silent: SilentLog, store: LoggedAuditStore
) -> None:
    asked = 2 * THREADS
    waiting = [asyncio.create_task(store.append(draft(n), {})) for n in range(asked)]
    waiting += [asyncio.create_task(store.latest()) for _ in range(asked)]
    for _ in range(2):
        await asyncio.sleep(0)  # each has begun
    async with asyncio.timeout(WITHIN_S / 2):
        assert await asyncio.to_thread(lambda: "a cluster is loaded") == "a cluster is loaded"
    assert not any(one.done() for one in waiting)
    silent.answers.set()
    await asyncio.gather(*waiting)
    assert len(await store.latest(100)) == asked and await store.verify() == ()


async def test_a_record_does_not_wait_for_those_who_read(
    silent: SilentLog, store: LoggedAuditStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading = [asyncio.create_task(store.latest()) for _ in range(THREADS)]
    await asyncio.to_thread(silent.asked.acquire)
    monkeypatch.setattr(SilentLog, "writing", SqliteLog.writing)
    async with asyncio.timeout(WITHIN_S / 2):
        record = await store.append(draft(1), {})
    silent.answers.set()
    assert all(found in ((), (record,)) for found in await asyncio.gather(*reading))


async def test_what_nobody_waits_for_any_more_is_not_begun(
    silent: SilentLog, store: LoggedAuditStore
) -> None:
    waiting = [asyncio.create_task(store.append(draft(n), {})) for n in range(3 * THREADS)]
    await asyncio.to_thread(silent.asked.acquire)
    for one in waiting:
        one.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    silent.answers.set()
    record = await store.append(draft(1000), {})
    assert record.sequence <= 5, "those that had begun go on, and no more of them"


@pytest.fixture
def hole(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """AWS takes connections, and says nothing."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setattr(qnwis.providers.aws, "ANSWER_WITHIN_S", 0.05)
    with closing(socket.create_server(("127.0.0.1", 0), backlog=64)) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.getsockname()[1]}")
        server.settimeout(0.2)
        yield server


def connections(server: socket.socket) -> int:
    """That were made until now."""
    made = 0
    while True:
        try:
            server.accept()[0].close()
        except TimeoutError:
            return made
        made += 1


async def test_a_silent_s3_is_asked_once_by_who_asks_again_and_a_few_times_by_who_does_not(
    hole: socket.socket, tmp_path: Path
) -> None:
    environment = {"QNWIS_AUDIT_STORE": "s3://audit-trail"}
    for asked_again, times in ((True, ONCE), (False, TRIES)):
        store = audit_store_of(tmp_path, environment, asked_again=asked_again)
        with pytest.raises(Unreachable, match="timeout"):
            await store.append(draft(1), {})
        assert connections(hole) == times
    with pytest.raises(Unreachable, match="timeout"):  # and not that anything is broken
        await audit_store_of(tmp_path, environment, asked_again=True).verify()


async def test_a_silent_kms_and_a_silent_route53_are_asked_a_few_times(hole: socket.socket) -> None:
    keys = key_store_of({"QNWIS_KEY_STORE": "kms:alias/qnwis"})
    assert keys is not None
    with pytest.raises(KeyStoreError, match="ReadTimeout"):
        await keys.wrap(b"k" * 32)
    assert connections(hole) == TRIES
    service = DnsService(zone="example.test", name="db", ttl_s=30, route53=Route53Record(hosted_zone_id="Z1"))
    with pytest.raises(Unreachable, match="timeout"):
        await Route53Dns(client=lambda: aws_client("route53", extra="route53")).read(service)
    assert connections(hole) == TRIES


def test_a_call_of_aws_ends_within_an_attempt_of_what_makes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    config = aws_client("route53", extra="route53").meta.config
    silent_s = config.connect_timeout + config.read_timeout
    assert silent_s <= 6 and config.retries["total_max_attempts"] * silent_s + 3 < 25
