"""What is registered and recorded, through the API: a new cluster, and the bundle of a record."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from qnwis.api.bodies import TOPOLOGY
from qnwis.bundle_check import check, read_public_key
from qnwis.config.load import load_cluster, load_policy
from qnwis.continuity.audit import draft_of
from qnwis.continuity.model import canonical_json
from tests.unit.continuity.test_audit import tampered
from tests.unit.continuity.test_bundle import run

from .scene import ApiScene, rule_of

POLICY = {"policy_id": "shop", "name": "Shop", "strategy": "manual"}
BODY = {"cluster": TOPOLOGY, "policy": POLICY}


async def test_a_cluster_is_registered_once_with_the_policy_that_governs_it(tmp_path: Path) -> None:
    scene = ApiScene(tmp_path)
    folder = tmp_path / "config" / "clusters" / "prod-cluster"
    async with scene.http() as api:
        refused = await api.post("/clusters", json=BODY, headers=scene.acting("bob"))
        assert (refused.status_code, rule_of(refused)) == (403, "permission_missing")
        assert not folder.exists()
        made = await api.post("/clusters", json=BODY, headers=scene.acting("ann"))
        assert made.status_code == 201 and made.headers["location"].endswith("/clusters/prod-cluster")
        again = await api.post("/clusters", json=BODY, headers=scene.acting("ann"))
        assert (again.status_code, rule_of(again)) == (409, "cluster_registered")
        listed = (await api.get("/clusters", headers=scene.signed_in("eve"))).json()
        simulated = await api.post(
            "/simulate", json={"cluster": {"cluster_id": "prod-cluster"}}, headers=scene.signed_in("bob")
        )
    assert listed["cluster_ids"] == ["c1", "prod-cluster"] and simulated.status_code == 200
    assert [node.node_id for node in load_cluster(folder / "cluster.yaml").nodes] == [
        "node-1",
        "node-2",
        "node-3",
    ]
    assert load_policy(folder / "policy.yaml").policy_id == "shop"
    assert yaml.safe_load((folder / "policy.yaml").read_text()) == POLICY, "defaults stay defaults"
    assert sorted(path.name for path in (tmp_path / "config" / "clusters").iterdir()) == [
        "c1",
        "prod-cluster",
    ]


async def test_a_topology_whose_file_could_not_be_read_back_is_not_registered(tmp_path: Path) -> None:
    scene = ApiScene(tmp_path)
    dns = {"zone": "example.org", "name": "db", "servers": ["127.0.0.1:53"]}
    named = [{**TOPOLOGY["nodes"][0], "hostname": "db-1.example.org"}, *TOPOLOGY["nodes"][1:]]
    body = {**BODY, "cluster": {**TOPOLOGY, "nodes": named, "dns": dns}}
    async with scene.http() as api:
        refused = await api.post("/clusters", json=body, headers=scene.acting("ann"))
        put = await api.put(
            "/clusters/prod-cluster", json=body["cluster"], headers={**scene.acting("ann"), "If-Match": "x"}
        )
    for answer in (refused, put):
        assert (answer.status_code, rule_of(answer)) == (422, "not_understood"), answer.text
        assert "nodes.0.hostname" in answer.text and "an IPv4 address like" in answer.text
    assert not (tmp_path / "config" / "clusters" / "prod-cluster").exists()


async def test_who_registered_a_cluster_is_on_record_once(tmp_path: Path) -> None:
    scene = ApiScene(tmp_path)
    async with scene.http() as api:
        headers = scene.acting("ann")
        assert (await api.post("/clusters", json=BODY, headers=headers)).status_code == 201
        again = {**scene.acting("ann"), "Idempotency-Key": headers["Idempotency-Key"]}
        assert (await api.post("/clusters", json=BODY, headers=again)).status_code == 201
        assert (await api.post("/clusters", json=BODY, headers=scene.acting("bob"))).status_code == 403
    (record,) = await scene.parts.audit.latest(10)
    assert (record.operation, record.initiated_by) == ("register_cluster", "ann")
    assert record.cluster_id == "prod-cluster" and record.role == "continuity_admin"
    beside = await scene.parts.audit.artefacts(record.audit_id)
    assert '"cluster_id":"prod-cluster"' in beside["after"] and "before" not in beside
    assert await scene.parts.audit.verify() == ()


async def test_a_record_that_cannot_be_read_is_named_and_hides_no_other(tmp_path: Path) -> None:
    scene = ApiScene(tmp_path)
    records = [await scene.parts.audit.append(draft_of(run(number)), {}) for number in (1, 2)]
    async with scene.http() as api:

        async def listed() -> dict[str, Any]:
            return (await api.get("/audit", headers=scene.signed_in("eve"))).json()  # type: ignore[no-any-return]

        whole = await listed()
        assert [one["audit_id"] for one in whole["records"]] == [one.audit_id for one in reversed(records)]
        assert whole["unreadable"] == []
        tampered(tmp_path / "audit.sqlite", "UPDATE records SET record = '{}' WHERE sequence = 2")
        damaged = await listed()
    assert [one["audit_id"] for one in damaged["records"]] == [records[0].audit_id]
    (one,) = damaged["unreadable"]
    assert one["sequence"] == 2 and one["refusal"]["rule"] == "audit_record_unreadable"


async def test_a_bundle_is_downloaded_and_proved_offline(tmp_path: Path) -> None:
    scene = ApiScene(tmp_path)
    artefacts = run(1)
    texts = {name: canonical_json(value) for name, value in artefacts.parts().items()}
    record = await scene.parts.audit.append(draft_of(artefacts), texts)
    async with scene.http() as api:
        url = f"/audit/{record.audit_id}/bundle"
        made = await api.get(url, headers=scene.signed_in("eve"))
        assert made.headers["content-type"] == "application/octet-stream"
        assert f'filename="{record.audit_id}.qnwis-bundle"' in made.headers["content-disposition"]
        # The bundle that the run made has its history, and goes before one made now.
        own = (await scene.parts.bundles.write(record.audit_id, "{}")).read_bytes()
        again = await api.get(url, headers=scene.signed_in("eve"))
        missing = await api.get("/audit/audit-none-1/bundle", headers=scene.signed_in("eve"))
    for content in (made.content, own):
        report = check(content, public_key=read_public_key(tmp_path / "key.pem.pub"))
        assert report.faults == [] and report.audit_id == record.audit_id
    assert again.content == own != made.content
    assert (missing.status_code, rule_of(missing)) == (404, "no_record")
