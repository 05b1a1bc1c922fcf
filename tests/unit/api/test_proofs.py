"""Who is signed in, what a record's report says, whether it is proved; and votes with a key of one's own."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from qnwis.continuity.access import Deed
from qnwis.continuity.audit import AuditRecord, draft_of
from qnwis.continuity.model import canonical_json
from qnwis.providers.keys import new_key
from qnwis.signing import Signer
from tests.unit.continuity.reports import failover
from tests.unit.continuity.test_audit import tampered

from .scene import ApiScene, rule_of

RUN_ID = "00000000-0000-4000-8000-000000000000"
DIGEST = "sha256:" + "0" * 64


async def recorded(scene: ApiScene) -> AuditRecord:
    artefacts = failover(reason="<script>alert(1)</script>")
    texts = {name: canonical_json(value) for name, value in artefacts.parts().items()}
    return await scene.parts.audit.append(draft_of(artefacts), texts)


async def test_whoever_is_signed_in_is_told_who_the_api_takes_them_for(tmp_path: Path) -> None:
    scene = ApiScene(tmp_path)
    async with scene.http() as api:
        eve = (await api.get("/me", headers=scene.signed_in("eve"))).json()
        stranger = (await api.get("/me", headers=scene.signed_in("stranger"))).json()
        ann = (await api.get("/me", headers=scene.signed_in("ann"))).json()
    assert (eve["name"], eve["roles"]) == ("eve", ["continuity_viewer"]) and eve["by"].startswith("jwt ")
    assert eve["permissions"] == ["continuity:read_status", "continuity:view_audit", "continuity:list_plans"]
    assert stranger["permissions"] == [] and "continuity:emergency_override" in ann["permissions"]


async def test_a_report_is_read_in_each_form_and_nobodys_text_is_markup(tmp_path: Path) -> None:
    scene = ApiScene(tmp_path)
    record = await recorded(scene)
    url = f"/audit/{record.audit_id}/report"
    async with scene.http() as api:
        made = (await api.get(url, headers=scene.signed_in("eve"))).json()
        page = await api.get(url, params={"format": "html"}, headers=scene.signed_in("eve"))
        text = await api.get(url, params={"format": "md"}, headers=scene.signed_in("eve"))
        other = await api.get(url, params={"format": "pdf"}, headers=scene.signed_in("eve"))
        missing = await api.get("/audit/audit-none-1/report", headers=scene.signed_in("eve"))
    assert made["report"]["new_primary"] == "node-2" and made["document"]["verdict"].startswith("verified")
    assert "Timeline" in [section["title"] for section in made["document"]["sections"]]
    assert page.headers["content-type"].startswith("text/html") and "<script" not in page.text
    assert page.headers["content-disposition"].startswith("attachment"), "it is never a page of this origin"
    assert text.headers["content-type"].startswith("text/markdown") and "## Timeline" in text.text
    assert (other.status_code, missing.status_code) == (422, 404)


async def test_how_long_runs_took_is_held_against_the_clusters_own_objective(tmp_path: Path) -> None:
    scene = ApiScene(tmp_path, cluster_id="prod-cluster")
    record = await recorded(scene)
    async with scene.http() as api:
        answer = await api.get("/clusters/prod-cluster/trend", headers=scene.signed_in("eve"))
        unknown = await api.get("/clusters/another/trend", headers=scene.signed_in("eve"))
    (one,) = answer.json()["trends"]
    objective_s = scene.parts.registered("prod-cluster").policy.max_failover_time_s
    assert one["objective_ms"] == objective_s * 1000 and one["forecast"] is None
    assert [run["audit_id"] for run in one["runs"]] == [record.audit_id]
    assert rule_of(unknown) == "cluster_unknown"


async def test_a_record_is_proved_and_a_change_of_any_record_shows(tmp_path: Path) -> None:
    scene = ApiScene(tmp_path)
    record = await recorded(scene)
    await scene.parts.bundles.write(record.audit_id)
    async with scene.http() as api:

        async def seen() -> dict[str, Any]:
            url = f"/audit/{record.audit_id}/verification"
            answer = await api.get(url, headers=scene.signed_in("eve"))
            return dict(answer.json())

        good = await seen()
        assert good["proved"] and good["faults"] == [] and good["records"] == 1
        bundle = next((tmp_path / "bundles").iterdir())
        content = bundle.read_bytes()
        bundle.chmod(0o600)
        bundle.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        assert [(one["where"], one["code"]) for one in (await seen())["faults"]] == [
            ("bundle", "bad_signature")
        ]
        bundle.write_bytes(content)
        tampered(tmp_path / "audit.sqlite", "UPDATE artefacts SET content = '{}' WHERE name = 'plan'")
        bad = await seen()
    assert not bad["proved"]
    assert [(one["where"], one["code"]) for one in bad["faults"]] == [("log, record 1", "altered_artefact")]


@pytest.mark.parametrize(
    ("signed_by", "changes", "rule"),
    [
        ("dora", {}, "token_of_another"),
        ("ann", {"digest": "sha256:" + "1" * 64}, "token_for_another"),
        ("ann", {"reason": "something else"}, "token_for_another"),
    ],
)
async def test_a_vote_signed_by_another_or_for_another_plan_goes_nowhere(
    tmp_path: Path, signed_by: str, changes: dict[str, str], rule: str
) -> None:
    scene = ApiScene(tmp_path)
    said = {"digest": DIGEST, "reason": "agreed"}
    signer = Signer(signed_by, new_key(), timedelta(minutes=2))
    token = signer.token(Deed.APPROVE, cluster_id="c1", run_id=RUN_ID, **{**said, **changes})
    async with scene.http() as api:
        url = f"/clusters/c1/runs/{RUN_ID}/approve"
        body = {**said, "token": json.loads(token.model_dump_json())}
        answer = await api.post(url, json=body, headers=scene.acting("ann"))
    assert (answer.status_code, rule_of(answer)) == (403, rule)
    assert scene.client.asked == []
