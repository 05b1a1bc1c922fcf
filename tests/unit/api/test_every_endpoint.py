"""Every endpoint × every role, and nobody: who is let in is what `config/rbac/continuity.yaml` says."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pytest

from qnwis.api.app import BASE, create_app
from qnwis.config.load import load_rbac
from qnwis.config.shipped import shipped
from qnwis.continuity.identity import Identity, Permission, may

from .scene import ROLES, ApiScene, stamped

DIGEST = "sha256:" + "0" * 64
RBAC = load_rbac(shipped("config") / "rbac" / "continuity.yaml")
ANYBODY = None


class Endpoint(NamedTuple):
    method: str
    path: str
    needs: Permission | None
    """None where no permission is needed: a vote's rules are the approval workflow's, and whoever is let in
    may know as whom."""
    body: dict[str, Any] | None = None


RUN_ID = "00000000-0000-4000-8000-000000000000"
RUN = f"/clusters/c1/runs/{RUN_ID}"
REGION = "/regions/region-1"
LEAVING = f"{REGION}/runs/{RUN_ID}"
WHY = {"reason": "test"}
VOTE = {"digest": DIGEST}
ENDPOINTS = [
    Endpoint("POST", "/plan", Permission.GENERATE_PLAN, {"cluster": {"cluster_id": "c1"}}),
    Endpoint("POST", "/execute", Permission.TRIGGER, {"plan": {"plan_id": "plan-000000000000"}}),
    Endpoint("POST", "/status", Permission.READ_STATUS, {"cluster": {"cluster_id": "c1"}}),
    Endpoint("POST", "/simulate", Permission.SIMULATE, {"cluster": {"cluster_id": "c1"}}),
    Endpoint("GET", "/me", ANYBODY),
    Endpoint("GET", "/runs", Permission.READ_STATUS),
    Endpoint("GET", "/clusters", Permission.READ_STATUS),
    Endpoint("GET", "/clusters/c1", Permission.READ_STATUS),
    Endpoint("POST", "/clusters", Permission.MANAGE_CLUSTER),
    Endpoint("PUT", "/clusters/c1", Permission.MANAGE_CLUSTER),
    Endpoint("GET", "/clusters/c1/policy", Permission.READ_STATUS),
    Endpoint("PUT", "/clusters/c1/policy", Permission.CONFIGURE_POLICY),
    Endpoint("GET", "/clusters/c1/readiness", Permission.READ_STATUS),
    Endpoint("GET", "/clusters/c1/runs", Permission.READ_STATUS),
    Endpoint("GET", "/clusters/c1/trend", Permission.VIEW_AUDIT),
    Endpoint("GET", RUN, Permission.READ_STATUS),
    Endpoint("GET", f"{RUN}/events", Permission.READ_STATUS),
    Endpoint("POST", f"{RUN}/approve", ANYBODY, VOTE),
    Endpoint("POST", f"{RUN}/reject", ANYBODY, VOTE),
    Endpoint("POST", f"{RUN}/pause", Permission.TRIGGER, WHY),
    Endpoint("POST", f"{RUN}/resume", Permission.TRIGGER, WHY),
    Endpoint("POST", f"{RUN}/abort", Permission.TRIGGER, WHY),
    Endpoint("POST", f"{RUN}/extend", Permission.TRIGGER, {**WHY, "by_s": 60}),
    Endpoint("POST", f"{RUN}/confirm", Permission.TRIGGER, {**WHY, "manual_step": "stop-jobs"}),
    Endpoint("POST", f"{RUN}/skip", Permission.TRIGGER, {**WHY, "step": "notification"}),
    Endpoint("GET", "/clusters/c1/guardian", Permission.READ_STATUS),
    Endpoint("POST", "/clusters/c1/guardian/pause", Permission.TRIGGER, WHY),
    Endpoint("POST", "/clusters/c1/guardian/resume", Permission.TRIGGER, WHY),
    Endpoint("POST", "/clusters/c1/guardian/acknowledge", Permission.TRIGGER, {**WHY, "run_id": RUN_ID}),
    Endpoint("GET", REGION, Permission.READ_STATUS),
    Endpoint("POST", f"{REGION}/evacuate", Permission.TRIGGER, WHY),
    Endpoint("POST", f"{REGION}/failback", Permission.TRIGGER, WHY),
    Endpoint("POST", f"{LEAVING}/approve", ANYBODY, VOTE),
    Endpoint("POST", f"{LEAVING}/reject", ANYBODY, VOTE),
    Endpoint("POST", f"{LEAVING}/pause", Permission.TRIGGER, WHY),
    Endpoint("POST", f"{LEAVING}/resume", Permission.TRIGGER, WHY),
    Endpoint("POST", f"{LEAVING}/abort", Permission.TRIGGER, WHY),
    Endpoint("POST", "/clusters/c1/maintenance", Permission.TRIGGER, WHY),
    Endpoint("GET", "/policies", Permission.READ_STATUS),
    Endpoint("GET", "/plans", Permission.LIST_PLANS),
    Endpoint("GET", "/plans/plan-000000000000", Permission.LIST_PLANS),
    Endpoint("GET", "/audit", Permission.VIEW_AUDIT),
    Endpoint("GET", "/audit/audit-cont-1", Permission.VIEW_AUDIT),
    Endpoint("GET", "/audit/audit-cont-1/bundle", Permission.VIEW_AUDIT),
    Endpoint("GET", "/audit/audit-cont-1/report", Permission.VIEW_AUDIT),
    Endpoint("GET", "/audit/audit-cont-1/verification", Permission.VIEW_AUDIT),
    Endpoint("POST", "/alerts", Permission.TRIGGER, {"alerts": []}),
    Endpoint("POST", "/trigger", Permission.TRIGGER, {"cluster_id": "c1", "reason": "test"}),
]
NAMES = {"c1": "{cluster_id}", "region-1": "{region}", RUN_ID: "{run_id}", "audit-cont-1": "{audit_id}"}


def test_the_table_has_every_endpoint(tmp_path: Path) -> None:
    documented = {
        (method.upper(), path)
        for path, operations in create_app(ApiScene(tmp_path).parts).openapi()["paths"].items()
        for method in operations
    }
    assert {(one.method, BASE + _template(one.path)) for one in ENDPOINTS} == documented


def _template(path: str) -> str:
    parts = [NAMES.get(part, part) for part in path.split("/")]
    return "/".join("{plan_id}" if part.startswith("plan-0") else part for part in parts)


async def test_each_role_is_let_in_where_a_permission_of_its_own_says_so(tmp_path: Path) -> None:
    scene = ApiScene(tmp_path)
    async with scene.http() as api:
        wrong = []
        for endpoint in ENDPOINTS:
            for person, role in ROLES.items():
                scene.client.asked.clear()
                headers = {**scene.signed_in(person), **stamped()}
                answer = await api.request(
                    endpoint.method, endpoint.path, json=endpoint.body, headers=headers
                )
                assert answer.status_code != 500, answer.text
                identity = Identity(name=person, roles=(role,), by="test")
                allowed = endpoint.needs is ANYBODY or may(identity, endpoint.needs, RBAC)
                let_in = answer.status_code not in (401, 403)
                if let_in is not allowed or (not allowed and scene.client.asked):
                    wrong.append((endpoint.method, endpoint.path, role, answer.status_code))
        assert wrong == []


async def test_nobody_is_let_in_anywhere_and_has_no_effect(tmp_path: Path) -> None:
    scene = ApiScene(tmp_path)
    forged = {"Authorization": "Bearer qnwis_000000000000_guessed"}
    async with scene.http() as api:
        for endpoint in ENDPOINTS:
            for headers in ({}, forged, {"Authorization": "Basic YWRtaW46YWRtaW4="}):
                answer = await api.request(
                    endpoint.method, endpoint.path, json=endpoint.body, headers={**headers, **stamped()}
                )
                assert answer.status_code in (401, 429), (endpoint, answer.status_code)
        for path in ("/nothing", "/openapi.json", "/../../etc/passwd"):
            assert (await api.get(path)).status_code in (401, 429)
    assert scene.client.asked == []


async def test_every_body_has_an_example_that_the_api_understands(tmp_path: Path) -> None:
    scene = ApiScene(tmp_path)
    document = create_app(scene.parts).openapi()
    async with scene.http() as api:
        for one in (one for one in ENDPOINTS if one.method != "GET"):
            operation = document["paths"][BASE + _template(one.path)][one.method.lower()]
            form = operation["requestBody"]["content"]["application/json"]["schema"]
            named = document["components"]["schemas"][form["$ref"].split("/")[-1]]
            for example in form.get("examples") or named["examples"]:
                headers = scene.acting("ann")
                answer = await api.request(one.method, one.path, json=example, headers=headers)
                understood = answer.status_code < 300 or answer.json()["rule"] != "not_understood"
                assert understood, (one, answer.text)


@pytest.mark.parametrize("permission", list(Permission))
def test_every_permission_guards_something(permission: Permission) -> None:
    by_body = {Permission.OVERRIDE_CONSTRAINTS, Permission.EMERGENCY_OVERRIDE}  # test_door.py
    assert permission in {endpoint.needs for endpoint in ENDPOINTS} | by_body
    shipped_permissions = {one for role in RBAC.roles for one in role.permissions} - {"continuity:*"}
    assert permission.value in shipped_permissions and shipped_permissions == {p.value for p in Permission}
