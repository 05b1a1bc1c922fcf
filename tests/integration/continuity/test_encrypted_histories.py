"""With a key store, nothing that a run is about can be read in Temporal's own database."""

from __future__ import annotations

import os
import socket
import sqlite3
from contextlib import AsyncExitStack, closing
from dataclasses import replace
from pathlib import Path

import pytest
from temporalio.contrib.pydantic import pydantic_data_converter

from qnwis.bundle_check import check, unwrap_with
from qnwis.continuity.run import RunOutcome
from qnwis.labels import label_of, use_labels
from qnwis.providers.audit_store import SqliteAuditStore
from qnwis.providers.bundles import Bundles
from qnwis.providers.key_store import FileKeyStore, KeyStoreError
from qnwis.temporal import connect
from workflows.names import INITIATOR

from .conftest import Stage, dev_server

PERSON, REASON = "erin.archer@example.org", "smoke in hall seven"


def readable(folder: Path, words: list[str]) -> set[str]:
    """The words that stand in a file of this folder, and so can be read without a key."""
    content = b"".join(path.read_bytes() for path in folder.glob("temporal.sqlite*"))
    return {word for word in words if word.encode() in content}


async def test_no_person_reason_or_host_can_be_read_in_temporals_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = FileKeyStore(tmp_path / "keys.json")
    async with dev_server(tmp_path) as own, AsyncExitStack() as running:
        if own.found.process is None:
            pytest.skip("the database of somebody else's server cannot be read")
        monkeypatch.setenv("QNWIS_KEY_STORE", f"file:{tmp_path / 'keys.json'}")
        monkeypatch.setattr("activities.audit.PATIENCE_S", 9.0)  # a machine under load gets its bundle too
        client = await connect(own.found.address)
        use_labels(keys.label_key())
        running.callback(use_labels, None)
        on = Stage.set(client, tmp_path)
        audit = on.providers.audit
        assert isinstance(audit, SqliteAuditStore)
        on.providers = replace(on.providers, bundles=Bundles(audit, keys, tmp_path / "bundles"))
        for worker in on.workers():
            await running.enter_async_context(worker)
        on.world.kill("node-1")

        run = await on.start(initiated_by=PERSON, reason=REASON)
        result = await run.result()

        assert result.outcome is RunOutcome.COMPLETED
        described = await run.describe()
        assert described.typed_search_attributes[INITIATOR] == label_of(PERSON)
        refused = await (await on.start(initiated_by=PERSON, reason=REASON)).result()
        assert refused.outcome is RunOutcome.REFUSED
        with closing(sqlite3.connect(tmp_path / "temporal.sqlite")) as db:
            db.execute("PRAGMA wal_checkpoint(FULL)")

        # A shell without the key says what it lacks.
        monkeypatch.delenv("QNWIS_KEY_STORE")
        with pytest.raises(KeyStoreError, match="QNWIS_KEY_STORE is not set"):
            await (await connect(own.found.address)).get_workflow_handle(run.id).result()
        monkeypatch.setenv("QNWIS_KEY_STORE", f"file:{tmp_path / 'keys.json'}")

        hosts = [on.world.address, *(node.hostname for node in on.world.cluster.nodes)]
        # The server's own workers write theirs, with this host's name and their own pid.
        identity = f"{os.getpid()}@{socket.gethostname()}"
        secret = [PERSON, REASON, "erin", "smoke", identity, "node-2", *hosts]
        assert readable(tmp_path, secret) == set()
        assert readable(tmp_path, [on.cluster_id, label_of(PERSON)]) == {on.cluster_id, label_of(PERSON)}

        # What a client without the key sends is found: the search looks where such things stand.
        plain = await connect(own.found.address)
        config = plain.config() | {"data_converter": pydantic_data_converter}
        on.client = type(plain)(**config)
        seen = await on.start(initiated_by="frank.open", reason="in the clear", dry_run=True)
        await client.get_workflow_handle(seen.id, run_id=seen.first_execution_run_id).result()
        assert readable(tmp_path, ["frank.open", "in the clear"]) == {"frank.open", "in the clear"}

    # The run's bundle has its history, decrypted there under the bundle's own key, and names nobody.
    [path] = [p for p in (tmp_path / "bundles").iterdir() if result.audit_id == p.name.partition(".")[0]]
    report = check(path.read_bytes(), unwrap=unwrap_with(tmp_path / "keys.json"))
    assert report.faults == []
    history = report.files["history.json"].decode()
    assert all(word in history for word in ("EVENT_TYPE_ACTIVITY_TASK_SCHEDULED", "node-2", "person:"))
    assert PERSON not in history
