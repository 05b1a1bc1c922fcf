"""Changes of what is registered, when several come at once, a key comes twice, or the audit store is down."""

from __future__ import annotations

import asyncio
import errno
import sqlite3
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from temporalio.service import RPCError, RPCStatusCode

from qnwis.api import changing
from qnwis.api.bodies import TOPOLOGY
from qnwis.continuity.audit import AuditDraft, AuditRecord
from qnwis.continuity.model import sha256_digest
from qnwis.continuity.policy import Policy
from qnwis.providers.audit_store import SqliteAuditStore
from qnwis.providers.errors import Unreachable
from qnwis.providers.request_store import GIVEN_UP_AFTER, RequestStore
from tests.unit.synced import Disk

from .scene import ApiScene, SilentTemporal, rule_of

KEY = "the-same-key"
POLICY = "/clusters/c1/policy"
BODY = {"cluster": TOPOLOGY, "policy": {"policy_id": "shop", "name": "Shop", "strategy": "manual"}}


class NoRuns(SilentTemporal):
    """A server that knows of no run."""

    async def _refuse(self, name: str) -> Any:
        self.asked.append(name)
        raise RPCError("no such run", RPCStatusCode.NOT_FOUND, b"")


class Asked(ApiScene):
    """The API where no run goes on, and how its policy is changed."""

    def __init__(self, home: Path, **more: Any) -> None:
        super().__init__(home, **{"client": NoRuns(), **more})

    def policy(self) -> Policy:
        return self.parts.registered("c1").policy

    async def put(
        self, api: httpx.AsyncClient, name: str, nodes: int, *, seen: Policy | None = None, **acting: str
    ) -> httpx.Response:
        """Ask for so many healthy nodes, having seen this policy; by default the one that is there."""
        body = {**self.policy().model_dump(mode="json", exclude_unset=True), "min_healthy_nodes": nodes}
        headers = self.acting(name, **acting, **{"If-Match": sha256_digest(seen or self.policy())})
        return await api.put(POLICY, json=body, headers=headers)

    async def records(self) -> list[tuple[str, str]]:
        """Of changes, oldest first: by whom, from and to which digest."""
        found = await self.parts.audit.latest(10)
        return [(one.initiated_by, one.reason.partition(": ")[2]) for one in reversed(found)]

    def lose_answers(self) -> None:
        """As if the process had been killed before it answered, long enough ago."""
        with closing(sqlite3.connect(self.home / "api.sqlite")) as db, db:
            ago_s = GIVEN_UP_AFTER.total_seconds() + 1
            db.execute("UPDATE answers SET status = NULL, headers = NULL, body = NULL, at = at - ?", (ago_s,))


def change(before: Policy, after: Policy) -> str:
    return f"{sha256_digest(before)} → {sha256_digest(after)}"


async def test_a_key_that_another_person_used_hides_no_change(tmp_path: Path) -> None:
    scene = Asked(tmp_path)
    policies = [scene.policy()]
    async with scene.http() as api:
        for name, nodes in (("ann", 1), ("dora", 3)):
            assert (await scene.put(api, name, nodes, key=KEY)).status_code == 200
            policies.append(scene.policy())
    assert [policy.min_healthy_nodes for policy in policies] == [2, 1, 3]
    assert await scene.records() == [
        ("ann", change(policies[0], policies[1])),
        ("dora", change(policies[1], policies[2])),
    ]


async def test_a_request_whose_answer_was_lost_is_recorded_once_and_again_if_it_was_undone(
    tmp_path: Path,
) -> None:
    scene = Asked(tmp_path)
    first = scene.policy()
    async with scene.http() as api:
        assert (await scene.put(api, "ann", 1, key=KEY)).status_code == 200
        second = scene.policy()
        scene.lose_answers()
        assert (await scene.put(api, "ann", 1, key=KEY, seen=first)).status_code == 200
        assert await scene.records() == [("ann", change(first, second))]
        assert (await scene.put(api, "dora", 2)).status_code == 200
        scene.lose_answers()
        assert (await scene.put(api, "ann", 1, key=KEY)).status_code == 200
    assert scene.policy() == second
    there, back = change(first, second), change(second, first)
    assert await scene.records() == [("ann", there), ("dora", back), ("ann", there)]


class OneAnswerLost(SqliteAuditStore):
    """The first answer is lost on the way, the record is not."""

    lost = False

    async def append(self, draft: AuditDraft, artefacts: Mapping[str, str]) -> AuditRecord:
        record = await super().append(draft, artefacts)
        if not self.lost:
            self.lost = True
            raise Unreachable("audit store: no answer")
        return record


async def test_a_record_without_an_answer_is_not_made_again(tmp_path: Path) -> None:
    scene = Asked(tmp_path, audit=OneAnswerLost(tmp_path / "audit.sqlite", tmp_path / "key.pem"))
    first = scene.policy()
    async with scene.http() as api:
        assert (await scene.put(api, "ann", 1, key=KEY)).status_code == 503
        assert scene.policy() == first
        assert (await scene.put(api, "ann", 1, key=KEY)).status_code == 200
    assert await scene.records() == [("ann", change(first, scene.policy()))]
    assert await scene.parts.audit.verify() == ()


async def test_a_change_that_was_recorded_and_not_made_hides_nobody_elses(tmp_path: Path) -> None:
    scene = Asked(tmp_path, audit=OneAnswerLost(tmp_path / "audit.sqlite", tmp_path / "key.pem"))
    first = scene.policy()
    async with scene.http() as api:
        assert (await scene.put(api, "ann", 1, key=KEY)).status_code == 503
        assert (await scene.put(api, "dora", 3, key=KEY)).status_code == 200
    (ann, _), dora = await scene.records()
    assert ann == "ann" and dora == ("dora", change(first, scene.policy())), "it shows what was replaced"


async def test_nothing_is_changed_without_a_record_and_trying_again_helps(tmp_path: Path) -> None:
    store = tmp_path / "audit"
    store.write_text("no folder, so that no file can be in it")
    scene = Asked(tmp_path, audit=SqliteAuditStore(store / "audit.sqlite", tmp_path / "key.pem"))
    first = scene.policy()
    config = tmp_path / "config"
    there = sorted(config.rglob("*"))
    async with scene.http() as api:
        assert (await scene.put(api, "ann", 1)).status_code == 503
        registering = await api.post("/clusters", json=BODY, headers=scene.acting("ann", key=KEY))
        assert (registering.status_code, rule_of(registering)) == (503, "unreachable")
        assert scene.policy() == first and sorted(config.rglob("*")) == there
        store.unlink()
        assert (await scene.put(api, "ann", 1)).status_code == 200
        again = await api.post("/clusters", json=BODY, headers=scene.acting("ann", key=KEY))
        assert again.status_code == 201, again.text
    changed, registered = await scene.records()
    assert changed == ("ann", change(first, scene.policy()))
    assert registered[1].startswith("nothing → ")


async def test_a_folder_with_something_else_in_it_leaves_no_record_of_a_registration(tmp_path: Path) -> None:
    scene = Asked(tmp_path)
    kept = tmp_path / "config" / "clusters" / "prod-cluster" / "policy.yaml"
    kept.parent.mkdir()
    kept.write_text("name: somebody's draft")
    async with scene.http() as api:
        refused = await api.post("/clusters", json=BODY, headers=scene.acting("ann"))
    assert (refused.status_code, rule_of(refused)) == (409, "cluster_registered")
    assert await scene.records() == [] and kept.read_text() == "name: somebody's draft"


async def test_what_is_registered_and_changed_is_on_disk_before_it_is_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene, disk = Asked(tmp_path), Disk(monkeypatch)
    clusters = tmp_path / "config" / "clusters"
    async with scene.http() as api:
        assert (await scene.put(api, "ann", 1)).status_code == 200
        registered = await api.post("/clusters", json=BODY, headers=scene.acting("ann"))
        assert registered.status_code == 201, registered.text
    made = clusters / "prod-cluster"
    for path in (clusters / "c1" / "policy.yaml", made, made / "policy.yaml", made / "cluster.yaml"):
        assert disk.has(path), path


def read_only(*_: Any, **__: Any) -> Any:
    raise OSError(errno.EROFS, "Read-only file system")


async def test_a_registry_that_cannot_be_written_to_is_named_and_nothing_is_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = Asked(tmp_path)
    first = scene.policy()
    clusters = tmp_path / "config" / "clusters"
    there = everything_in(tmp_path / "config")
    async with scene.http() as api:
        with monkeypatch.context() as patched:
            patched.setattr(changing, "new_beside", read_only)
            patched.setattr(changing, "TemporaryDirectory", read_only)
            for refused, folder in (
                (await scene.put(api, "ann", 1, key=KEY), clusters / "c1"),
                (await api.post("/clusters", json=BODY, headers=scene.acting("ann")), clusters),
            ):
                assert (refused.status_code, rule_of(refused)) == (503, "not_usable")
                assert f"cannot write to {folder} (Read-only file system)" in refused.json()["detail"]
        assert scene.policy() == first and await scene.records() == []
        assert everything_in(tmp_path / "config") == there
        assert (await scene.put(api, "ann", 1, key=KEY)).status_code == 200, "as soon as it can be"


@pytest.mark.parametrize(
    ("number", "status", "rule"),
    [(errno.EACCES, 503, "not_usable"), (errno.ENOTEMPTY, 409, "cluster_registered")],
)
async def test_a_folder_that_cannot_be_put_in_its_place_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, status: int, rule: str
) -> None:
    scene = Asked(tmp_path)
    there = everything_in(tmp_path / "config")

    def fail(*_: object) -> None:
        raise OSError(number, "as the system says")

    async with scene.http() as api:
        monkeypatch.setattr(Path, "rename", fail)
        refused = await api.post("/clusters", json=BODY, headers=scene.acting("ann"))
        assert (refused.status_code, rule_of(refused)) == (status, rule)
        monkeypatch.setattr(Path, "replace", fail)
        refused = await scene.put(api, "ann", 1)
        assert (refused.status_code, rule_of(refused)) == (503, "not_usable")
    assert everything_in(tmp_path / "config") == there


async def test_what_is_registered_needs_the_folder_of_clusters_alone(tmp_path: Path) -> None:
    scene = Asked(tmp_path)
    config = tmp_path / "config"
    there, before = everything_in(config), config.stat().st_mtime_ns
    async with scene.http() as api:
        made = await api.post("/clusters", json=BODY, headers=scene.acting("ann"))
        assert made.status_code == 201, made.text
        seen = scene.parts.registered("prod-cluster").policy
        body = {**seen.model_dump(mode="json", exclude_unset=True), "min_healthy_nodes": 1}
        headers = scene.acting("ann", **{"If-Match": sha256_digest(seen)})
        changed = await api.put("/clusters/prod-cluster/policy", json=body, headers=headers)
        assert changed.status_code == 200, changed.text
    new = {str(path.relative_to(config / "clusters")) for path in everything_in(config) - there}
    assert new == {"prod-cluster", "prod-cluster/cluster.yaml", "prod-cluster/policy.yaml"}
    assert config.stat().st_mtime_ns == before, "nothing was made or renamed beside it"


def everything_in(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


class Two(RequestStore):
    """Says when a second change has come as far as the first lets it."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.came, self.both = 0, asyncio.Event()

    def comes(self) -> None:
        self.came += 1
        if self.came > 2:  # the first comes twice: to the lock, and to Temporal
            self.both.set()

    @asynccontextmanager
    async def alone(self, cluster_id: str, *, within_s: float) -> AsyncIterator[None]:
        self.comes()
        async with super().alone(cluster_id, within_s=within_s):
            yield


async def test_of_two_who_saw_the_same_one_changes_it_and_the_other_is_told(tmp_path: Path) -> None:
    store = Two(tmp_path / "api.sqlite")

    class Slow(NoRuns):
        """Does not answer before the second is there too."""

        async def _refuse(self, name: str) -> Any:
            store.comes()
            await asyncio.wait_for(store.both.wait(), timeout=60)
            return await super()._refuse(name)

    scene = Asked(tmp_path, client=Slow())
    scene.parts = replace(scene.parts, store=store)
    seen = scene.policy()
    async with scene.http() as one, scene.http() as other:
        answers = await asyncio.gather(
            scene.put(one, "ann", 1, seen=seen), scene.put(other, "dora", 3, seen=seen)
        )
    assert sorted(answer.status_code for answer in answers) == [200, 412]
    (told,) = (answer for answer in answers if answer.status_code == 412)
    assert rule_of(told) == "changed_meanwhile"
    assert [where for _, where in await scene.records()] == [change(seen, scene.policy())]
