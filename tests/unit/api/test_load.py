"""What one identity asks holds nobody else up: long work is done beside the event loop, lists have an end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qnwis.api import continuity
from qnwis.continuity.topology import MOST_NODES
from qnwis.providers import audit_seals, audit_store
from qnwis.providers.audit_store import SqliteAuditStore
from qnwis.providers.key_store import FileKeyStore

from .scene import ApiScene, rule_of
from .test_proofs import recorded

NAMED = {"cluster": {"cluster_id": "c1"}}


class Held:
    """Work that is done when it is let go on, in whichever thread it is asked for."""

    def __init__(self, work: Callable[..., Any]) -> None:
        self._work = work
        self.begun = threading.Event()
        self.goes_on = threading.Event()

    def __call__(self, *given: Any, **named: Any) -> Any:
        self.begun.set()
        if not self.goes_on.wait(5):
            raise RuntimeError("nobody let it go on: it holds the event loop")
        return self._work(*given, **named)


@pytest.mark.parametrize(
    ("module", "work", "path"),
    [
        (continuity, "make_plan", "/plan"),
        (continuity, "registered_as_given", "/status"),
        (continuity, "assess", "/execute"),
        (audit_store, "verify_chain", "/audit/{audit_id}/verification"),
    ],
)
async def test_others_are_answered_while_one_request_is_worked_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: Any, work: str, path: str
) -> None:
    scene = ApiScene(tmp_path)
    audit_id = (await recorded(scene)).audit_id
    async with scene.http() as api:
        plan = (await api.post("/plan", json=NAMED, headers=scene.signed_in("bob"))).json()["plan"]
        held = Held(getattr(module, work))
        monkeypatch.setattr(module, work, held)
        method, body = (
            ("GET", None) if "{" in path else ("POST", {"plan": plan} if work == "assess" else NAMED)
        )
        asked = asyncio.create_task(
            api.request(method, path.format(audit_id=audit_id), json=body, headers=scene.acting("bob"))
        )
        await asyncio.to_thread(held.begun.wait)
        assert (await api.get("/clusters", headers=scene.signed_in("eve"))).status_code == 200
        assert not asked.done()
        held.goes_on.set()
        answer = await asked
    # The primary is well, so a plan for its failover is refused: by a rule.
    assert answer.status_code == (422 if work == "assess" else 200), answer.text


async def test_others_are_answered_while_sealed_records_are_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = FileKeyStore(tmp_path / "keys.json")
    scene = ApiScene(
        tmp_path, audit=SqliteAuditStore(tmp_path / "sealed.sqlite", tmp_path / "sealing.pem", keys=keys)
    )
    record = await recorded(scene)
    held = Held(audit_seals.open_record)
    monkeypatch.setattr(audit_seals, "open_record", held)
    async with scene.http() as api:
        asked = asyncio.create_task(api.get(f"/audit/{record.audit_id}", headers=scene.signed_in("eve")))
        await asyncio.to_thread(held.begun.wait)
        assert (await api.get("/clusters", headers=scene.signed_in("eve"))).status_code == 200
        held.goes_on.set()
        assert (await asked).json()["record"]["audit_id"] == record.audit_id


@pytest.mark.parametrize("name", ["nodes", "regions", "vantages"])
async def test_a_topology_of_too_many_parts_is_refused_by_their_number_alone(
    tmp_path: Path, name: str
) -> None:
    scene = ApiScene(tmp_path)
    assert scene.world is not None
    topology = scene.world.cluster.model_dump(mode="json")
    wrong = {**topology, name: [{}] * (MOST_NODES + 1)}
    async with scene.http() as api:
        answer = await api.post("/status", json={"cluster": wrong}, headers=scene.signed_in("eve"))
    assert (answer.status_code, rule_of(answer)) == (422, "not_understood")
    told = f"expected at most {MOST_NODES} {name}, found {MOST_NODES + 1}"
    assert [one["expected"] for one in answer.json()["values"]["errors"]] == [told]
