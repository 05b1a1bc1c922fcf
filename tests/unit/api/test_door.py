"""The door: credentials, freshness, one answer for one key, limits; and that a body is data, not trust."""

from __future__ import annotations

import asyncio
import json
from base64 import b64decode
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest
import yaml
from aiohttp import web

from qnwis.config.api import ApiFile, JwtIssuer
from qnwis.continuity.alerts import AlertRule
from qnwis.continuity.identity import Identity
from qnwis.continuity.requests import Limits
from qnwis.continuity.simulate import Scenario, simulate
from qnwis.continuity.tokens import Claim
from qnwis.providers.errors import Unreachable
from qnwis.providers.jwt_bearer import Bearer
from qnwis.providers.keys import new_key, verify
from qnwis.providers.request_store import GIVEN_UP_AFTER
from qnwis.transport import Transport
from workflows.guardian_state import AlertAnswer, AlertRequest

from .scene import AUDIENCE, ISSUER, ApiScene, jwk_set, rule_of

NAMED = {"cluster": {"cluster_id": "c1"}}
TRIGGER = {"cluster_id": "c1", "reason": "test"}


def now(**off: float) -> datetime:
    return datetime.now(UTC) + timedelta(**off)


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": "another-service"},
        {"iss": "https://id.test/another"},
        {"exp": datetime(2020, 1, 1, tzinfo=UTC)},
        {"exp": None},
        {"sub": None},
        {"iat": None},
        {"signer": new_key()},
        {"nbf": datetime(2099, 1, 1, tzinfo=UTC)},
    ],
)
async def test_a_jwt_of_another_issuer_audience_time_or_key_is_refused(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    scene = ApiScene(tmp_path)
    async with scene.http() as api:
        assert (await api.get("/runs", headers=scene.signed_in("ann"))).status_code == 503  # let in
        answer = await api.get("/clusters", headers=scene.signed_in("ann", **changes))
    assert (answer.status_code, rule_of(answer)) == (401, "credentials_refused")
    assert answer.headers["www-authenticate"] == "Bearer"


async def test_a_jwt_without_a_public_key_signature_is_refused(tmp_path: Path) -> None:
    scene = ApiScene(tmp_path)
    claims = jwt.decode(scene.jwt("ann"), options={"verify_signature": False})
    public = json.loads((tmp_path / "jwks.json").read_text())["keys"][0]["x"]
    by_secret = jwt.encode(claims, public, algorithm="HS256", headers={"kid": "k1"})
    unsigned = jwt.encode(claims, None, algorithm="none")
    async with scene.http() as api:
        for text in (by_secret, unsigned, "a.b.c", "", "x" * 20_000):
            answer = await api.get("/clusters", headers={"Authorization": f"Bearer {text}"})
            assert answer.status_code == 401, text[:40]


@pytest.mark.parametrize(
    ("said", "counts"),
    [(True, True), ("true", True), (False, False), (None, False), ("false", False), (1, False), (0, False)],
)
async def test_an_email_counts_only_where_it_was_verified(tmp_path: Path, said: object, counts: bool) -> None:
    scene = ApiScene(tmp_path)
    token = scene.jwt("ann", email="ann@example.com", email_verified=said)
    issuer = JwtIssuer(
        issuer=ISSUER, audience=AUDIENCE, jwks_file=str(tmp_path / "jwks.json"), name_claim="email"
    )
    found = await Bearer([issuer], Transport()).identity(token)
    assert (getattr(found, "name", found) == "ann@example.com") is counts, found
    by_setting = issuer.model_copy(update={"emails_verified": True})
    assert isinstance(await Bearer([by_setting], Transport()).identity(token), Identity)


async def test_keys_are_found_by_discovery_kept_and_asked_for_again_when_one_is_unknown(
    aiohttp_served: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, served = new_key(), new_key(), {"asked": 0}
    keys = [("k1", first)]

    async def configuration(request: web.Request) -> web.Response:
        return web.json_response({"issuer": base, "jwks_uri": f"{base}/keys"})

    async def published(request: web.Request) -> web.Response:
        served["asked"] += 1
        return web.json_response(jwk_set(*keys))

    base = await aiohttp_served({"/.well-known/openid-configuration": configuration, "/keys": published})
    bearer = Bearer([JwtIssuer(issuer=base, audience=AUDIENCE)], Transport(connect_timeout_s=5))
    scene = ApiScene(tmp_path, signer=first)
    token = scene.jwt("ann", iss=base)
    for _ in range(3):
        found = await bearer.identity(token)
        assert not isinstance(found, str) and found.name == "ann"
    assert served["asked"] == 1

    claims = jwt.decode(token, options={"verify_signature": False})
    rotated = jwt.encode(claims, second, algorithm="EdDSA", headers={"kid": "k2"})
    assert isinstance(await bearer.identity(rotated), str)
    assert served["asked"] == 1, "whoever invents key ids does not have the issuer asked each time"
    keys.append(("k2", second))
    monkeypatch.setattr("qnwis.providers.jwt_bearer.ASK_AGAIN_S", 0.0)
    assert not isinstance(await bearer.identity(rotated), str)


class Provider:
    """An identity provider that may break or hang; each question begins with its configuration."""

    def __init__(self) -> None:
        self.key = new_key()
        self.base = ""
        self.asked = 0
        self.broken = False
        self.reached = asyncio.Event()
        self.answers = asyncio.Event()
        self.answers.set()

    def bearer(self) -> Bearer:
        return Bearer([JwtIssuer(issuer=self.base, audience=AUDIENCE)], Transport(connect_timeout_s=5))

    async def configuration(self, request: web.Request) -> web.Response:
        self.asked += 1
        self.reached.set()
        await self.answers.wait()
        if self.broken:
            raise web.HTTPServiceUnavailable
        return web.json_response({"issuer": self.base, "jwks_uri": f"{self.base}/keys"})

    async def keys(self, request: web.Request) -> web.Response:
        return web.json_response(jwk_set(("k1", self.key)))


@pytest.fixture
async def provider(aiohttp_served: Any) -> Provider:
    made = Provider()
    routes = {"/.well-known/openid-configuration": made.configuration, "/keys": made.keys}
    made.base = await aiohttp_served(routes)
    return made


async def test_an_issuer_that_fails_is_asked_once_in_a_while_and_its_keys_serve_for_an_hour(
    provider: Provider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = 0.0
    monkeypatch.setattr("qnwis.providers.jwt_bearer.monotonic", lambda: now_s)
    bearer = provider.bearer()
    token = ApiScene(tmp_path, signer=provider.key).jwt("ann", iss=provider.base)
    claims = jwt.decode(token, options={"verify_signature": False})
    invented = jwt.encode(claims, provider.key, algorithm="EdDSA", headers={"kid": "k2"})

    async def found(text: str) -> set[type]:
        asked = await asyncio.gather(*(bearer.identity(text) for _ in range(20)), return_exceptions=True)
        return {type(one) for one in asked}

    assert await found(token) == {Identity}
    provider.broken = True
    now_s = 601.0
    assert (await found(token), provider.asked) == ({Identity}, 2)
    assert (await found(invented), provider.asked) == ({str}, 2), "the question in vain counts too"
    now_s = 632.0
    assert (await found(invented), provider.asked) == ({str}, 3)
    assert (await found(token), provider.asked) == ({Identity}, 3)
    now_s = 3601.0
    assert (await found(token), provider.asked) == ({Unreachable}, 4), "who waited shares the answer"
    provider.broken = False
    now_s = 3603.0
    assert (await found(token), provider.asked) == ({Identity}, 5)


async def test_who_has_a_known_key_waits_for_no_issuer_that_hangs(
    provider: Provider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = 0.0
    monkeypatch.setattr("qnwis.providers.jwt_bearer.monotonic", lambda: now_s)
    bearer = provider.bearer()
    token = ApiScene(tmp_path, signer=provider.key).jwt("ann", iss=provider.base)
    assert isinstance(await bearer.identity(token), Identity)
    now_s = 601.0
    provider.reached.clear()
    provider.answers.clear()
    first = asyncio.create_task(bearer.identity(token))
    await provider.reached.wait()
    assert isinstance(await bearer.identity(token), Identity)
    assert not first.done()
    provider.answers.set()
    assert isinstance(await first, Identity)


async def test_a_service_token_signs_in_until_it_is_revoked_and_only_its_hash_is_kept(tmp_path: Path) -> None:
    scene = ApiScene(tmp_path)
    text = scene.tokens.issue("robot", ("service",), now(), now(days=1))
    ended = scene.tokens.issue("robot", ("service",), now(days=-2), now(days=-1))
    file = tmp_path / "config" / "service-tokens.yaml"
    secret = text.split("_", 2)[2]
    assert secret not in file.read_text() and file.stat().st_mode & 0o777 == 0o600
    async with scene.http() as api:

        async def status_with(token: str) -> int:
            return (await api.get("/clusters", headers={"Authorization": f"Bearer {token}"})).status_code

        assert [await status_with(t) for t in (text, ended, text[:-1], text + "A")] == [200, 401, 401, 401]
        scene.tokens.revoke(text.split("_")[1], now())
        assert await status_with(text) == 401


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"X-Request-Timestamp": None}, "freshness_missing"),
        ({"X-Request-Nonce": None}, "freshness_missing"),
        ({"X-Request-Nonce": "short"}, "nonce_malformed"),
        ({"X-Request-Timestamp": "yesterday"}, "timestamp_malformed"),
        ({"X-Request-Timestamp": timedelta(minutes=-2)}, "request_stale"),
        ({"X-Request-Timestamp": timedelta(minutes=2)}, "request_stale"),
        ({"Idempotency-Key": None}, "idempotency_key_missing"),
        ({"Idempotency-Key": "k"}, "idempotency_key_malformed"),
    ],
)
async def test_what_acts_has_to_be_fresh_and_to_have_a_key(
    tmp_path: Path, changes: dict[str, str | timedelta | None], rule: str
) -> None:
    scene = ApiScene(tmp_path)
    # How far a clock is off counts from the moment of sending, not of collecting the tests.
    changed = {k: (now() + v).isoformat() if isinstance(v, timedelta) else v for k, v in changes.items()}
    headers = {k: v for k, v in {**scene.acting("bob"), **changed}.items() if v is not None}
    async with scene.http() as api:
        answer = await api.post("/trigger", json=TRIGGER, headers=headers)
    assert (answer.status_code, rule_of(answer)) == (400, rule)
    assert scene.client.asked == []


async def test_a_request_that_was_captured_is_refused_by_every_process(tmp_path: Path) -> None:
    scene = ApiScene(tmp_path)
    headers = scene.acting("bob")
    async with scene.http() as one, scene.http() as another:
        first = await one.post("/trigger", json={**TRIGGER, "cluster_id": "gone"}, headers=headers)
        assert rule_of(first) == "cluster_unknown"
        for api in (one, another):
            answer = await api.post("/trigger", json=TRIGGER, headers=headers)
            assert (answer.status_code, rule_of(answer)) == (409, "request_replayed")
        # A nonce is its sender's: nobody uses up another's.
        again = {**headers, **scene.signed_in("ann")}
        assert (await one.post("/trigger", json=TRIGGER, headers=again)).status_code == 503
    assert scene.client.asked == ["execute_update"]


async def test_the_same_key_gives_the_same_answer_and_takes_no_other_request(tmp_path: Path) -> None:
    scene = ApiScene(tmp_path)
    unknown = {**TRIGGER, "cluster_id": "gone"}
    async with scene.http() as one, scene.http() as another:
        first = await one.post("/trigger", json=unknown, headers=scene.acting("bob", key="key-12345"))
        again = await another.post("/trigger", json=unknown, headers=scene.acting("bob", key="key-12345"))
        assert again.json() == first.json() and again.status_code == first.status_code == 404
        assert again.headers["idempotency-replayed"] == "true" and "idempotency-replayed" not in first.headers
        other = await one.post("/trigger", json=TRIGGER, headers=scene.acting("bob", key="key-12345"))
        assert (other.status_code, rule_of(other)) == (422, "idempotency_key_reused")
        # Another person's key of the same name is another key.
        theirs = await one.post("/trigger", json=TRIGGER, headers=scene.acting("ann", key="key-12345"))
        assert theirs.status_code == 503
        # What failed for no reason of its own is carried out when it is sent again.
        await one.post("/trigger", json=TRIGGER, headers=scene.acting("ann", key="key-12345"))
    assert scene.client.asked == ["execute_update", "execute_update"]


async def test_each_identity_has_a_limit_of_its_own_and_guessed_credentials_one_by_address(
    tmp_path: Path,
) -> None:
    scene = ApiScene(tmp_path, ApiFile(limits=Limits(per_minute=1, burst=3)))
    async with scene.http() as api:
        answers = [await api.get("/clusters", headers=scene.signed_in("ann")) for _ in range(5)]
        assert [one.status_code for one in answers] == [200, 200, 200, 429, 429]
        assert rule_of(answers[-1]) == "rate_limited" and int(answers[-1].headers["retry-after"]) >= 30
        assert (await api.get("/clusters", headers=scene.signed_in("bob"))).status_code == 200
        guesses = [await api.get("/clusters") for _ in range(5)]
        assert [one.status_code for one in guesses] == [401, 401, 401, 429, 429]
        assert (await api.get("/clusters", headers=scene.signed_in("bob"))).status_code == 200


async def test_a_body_that_is_too_large_is_refused_however_it_comes(tmp_path: Path) -> None:
    scene = ApiScene(tmp_path)

    async def pieces() -> Any:
        for _ in range(20):
            yield b" " * 100_000

    async with scene.http() as api:
        for body in (b" " * 2_000_000, pieces()):
            headers = {**scene.signed_in("ann"), "Content-Type": "application/json"}
            answer = await api.post("/plan", content=body, headers=headers)
            assert (answer.status_code, rule_of(answer)) == (413, "body_too_large")


async def test_a_body_that_does_not_come_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qnwis.api.door.BODY_WITHIN_S", 0.1)
    scene = ApiScene(tmp_path)

    async def half() -> Any:
        yield b"{"
        await asyncio.Event().wait()

    async with scene.http() as api, asyncio.timeout(30):
        headers = {**scene.signed_in("ann"), "Content-Type": "application/json"}
        answer = await api.post("/plan", content=half(), headers=headers)
    assert (answer.status_code, rule_of(answer)) == (408, "body_too_slow")


async def test_what_goes_past_the_policys_limits_needs_the_permission_for_that(tmp_path: Path) -> None:
    scene = ApiScene(tmp_path)
    async with scene.http() as api:
        plan = (await api.post("/plan", json=NAMED, headers=scene.signed_in("bob"))).json()["plan"]
        answer = await api.post("/plan", json={**NAMED, "override": True}, headers=scene.signed_in("bob"))
        assert answer.json()["values"]["missing"] == ["continuity:override_constraints"]
        assert (
            await api.post("/plan", json={**NAMED, "override": True}, headers=scene.signed_in("ann"))
        ).status_code == 200
        for more in ({"override": True}, {"even_if_healthy": True}):
            answer = await api.post("/execute", json={"plan": plan, **more}, headers=scene.acting("bob"))
            assert (answer.status_code, rule_of(answer)) == (403, "permission_missing")
    assert scene.client.asked == []


async def test_plan_answers_in_the_specifications_form_and_keeps_the_plan(tmp_path: Path) -> None:
    scene = ApiScene(tmp_path)
    assert scene.world is not None
    topology = scene.world.cluster.model_dump(mode="json")
    policy = yaml.safe_load((tmp_path / "config" / "clusters" / "c1" / "policy.yaml").read_text())
    async with scene.http() as api:
        body = {"cluster": topology, "policy": policy, "trigger_reason": "manual"}
        answer = (await api.post("/plan", json=body, headers=scene.signed_in("bob"))).json()
        listed = (await api.get("/plans", headers=scene.signed_in("eve"))).json()["plans"]
        shown = await api.get(f"/plans/{answer['plan_id']}", headers=scene.signed_in("eve"))
    assert [*answer][:9] == [
        "request_id",
        "plan_id",
        "cluster_id",
        "policy_id",
        "primary_node_id",
        "failover_target_id",
        "estimated_total_ms",
        "action_count",
        "timings_ms",
    ]
    assert (answer["primary_node_id"], answer["failover_target_id"]) == ("node-1", "node-2")
    assert {*answer["timings_ms"]} == {"total", "planning"}
    assert [(one["plan_id"], one["made_by"]) for one in listed] == [(answer["plan_id"], "bob")]
    assert shown.json()["plan"] == answer["plan"] and shown.json()["digest"] == answer["digest"]


async def test_only_registered_nodes_are_asked_whatever_a_body_says(tmp_path: Path) -> None:
    scene = ApiScene(tmp_path)
    assert scene.world is not None
    topology = scene.world.cluster.model_dump(mode="json")
    elsewhere = {**topology, "nodes": [*topology["nodes"]]}
    elsewhere["nodes"][1] = {**topology["nodes"][1], "endpoint": "http://169.254.169.254"}
    async with scene.http() as api:
        headers = scene.signed_in("eve")
        answer = (await api.post("/status", json={"cluster": topology}, headers=headers)).json()
        assert [*answer][:8] == [
            "request_id",
            "cluster_id",
            "total_nodes",
            "healthy_nodes",
            "quorum_size",
            "has_quorum",
            "primary_node_id",
            "timings_ms",
        ]
        assert (answer["healthy_nodes"], answer["primary_node_id"]) == (3, "node-1")
        refused = await api.post("/status", json={"cluster": elsewhere}, headers=headers)
        assert (refused.status_code, rule_of(refused)) == (422, "cluster_differs")
        assert refused.json()["values"]["differing"] == ["nodes.node-2"]
        live = {"cluster": elsewhere, "live": True}
        assert (
            rule_of(await api.post("/plan", json=live, headers=scene.signed_in("bob"))) == "cluster_differs"
        )
        unknown = {"cluster": {**topology, "cluster_id": "mine"}}
        assert rule_of(await api.post("/status", json=unknown, headers=headers)) == "cluster_unknown"


async def test_simulate_answers_what_the_domain_does(tmp_path: Path) -> None:
    scene = ApiScene(tmp_path)
    registered = scene.parts.registered("c1")
    expected = simulate(registered.cluster, registered.policy, Scenario.PRIMARY_FAILURE, 42)
    async with scene.http() as api:
        body = {**NAMED, "scenario": "primary_failure", "seed": 42}
        answer = (await api.post("/simulate", json=body, headers=scene.signed_in("bob"))).json()
    assert {*answer.pop("timings_ms")} == {"total", "simulation"} and answer.pop("request_id")
    assert answer == expected.model_dump(mode="json")
    assert answer["failover"]["success"] and answer["verification"]["passed"]


async def test_a_plan_that_the_world_does_not_give_again_is_refused_with_the_rule(tmp_path: Path) -> None:
    scene = ApiScene(tmp_path)
    assert scene.world is not None
    async with scene.http() as api:
        plan = (await api.post("/plan", json=NAMED, headers=scene.signed_in("bob"))).json()["plan"]
        healthy = await api.post("/execute", json={"plan": plan}, headers=scene.acting("bob"))
        assert healthy.status_code == 422, "the primary is well"
        scene.world.kill("node-1")
        edited = {**plan, "failover_target_id": "node-3"}
        answer = await api.post("/execute", json={"plan": edited}, headers=scene.acting("bob"))
        assert (answer.status_code, rule_of(answer)) == (422, "plan_no_longer_fits")
        assert answer.json()["remedy"] and answer.json()["type"] == "urn:qnwis:rule:plan_no_longer_fits"
    assert scene.client.asked == []


async def test_what_the_api_signs_names_the_person_and_is_its_own_keys(tmp_path: Path) -> None:
    scene = ApiScene(tmp_path)
    assert scene.world is not None
    scene.world.kill("node-1")
    sent: list[Any] = []

    async def start(run: Any, request: Any, **more: Any) -> Any:
        sent.append(request)
        return await scene.client._refuse("start_workflow")

    scene.client.start_workflow = start
    async with scene.http() as api:
        plan = (await api.post("/plan", json=NAMED, headers=scene.signed_in("bob"))).json()["plan"]
        await api.post("/execute", json={"plan": plan}, headers=scene.acting("bob"))
    claim: Claim = sent[0].token.claim
    assert (claim.person, claim.issuer, claim.digest) == ("bob", "api", sent[0].digest)
    key = scene.parts.access.load().issuers.issuers[0].public_key
    assert verify(key, b64decode(sent[0].token.signature), claim.message())


async def test_an_alert_that_nobody_mapped_or_that_is_over_asks_nobody(tmp_path: Path) -> None:
    rules = (AlertRule(match={"alertname": "PostgresDown"}, cluster_label="cluster"),)
    scene = ApiScene(tmp_path, ApiFile(alerts=rules))
    alert = {"status": "firing", "labels": {"alertname": "PostgresDown", "cluster": "c1"}}
    alert["startsAt"] = "2026-01-01T00:00:00Z"
    over = {**alert, "status": "resolved"}
    other = {**alert, "labels": {"alertname": "DiskFull"}}
    gone = {**alert, "labels": {"alertname": "PostgresDown", "cluster": "gone"}}
    async with scene.http() as api:
        body = {"version": "4", "alerts": [over, other, gone], "receiver": "qnwis"}
        answer = (await api.post("/alerts", json=body, headers=scene.signed_in("robot"))).json()
        told = [one["decision"] for one in answer["alerts"]]
        assert "over" in told[0] and "alert_not_mapped" in told[1] and "cluster_unknown" in told[2]
        assert scene.client.asked == []
        await api.post("/alerts", json={"alerts": [alert]}, headers=scene.signed_in("robot"))
    assert scene.client.asked == ["execute_update"]


async def test_an_alert_that_came_right_after_another_is_asked_about_when_it_comes_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = (AlertRule(match={"alertname": "PostgresDown"}, cluster_label="cluster"),)
    scene = ApiScene(tmp_path, ApiFile(alerts=rules))
    asked: list[str] = []

    async def alerted(update: str, request: AlertRequest, **more: Any) -> AlertAnswer:
        asked.append(request.alert_id)
        why = "it answers"
        return AlertAnswer(run_id=None, primary_node_id="node-1", finding="healthy", why=why, holding=None)

    scene.client.execute_update = alerted
    labels = {"alertname": "PostgresDown", "cluster": "c1"}
    first, other = (
        {"status": "firing", "labels": {**labels, "instance": name}, "startsAt": "2026-01-01T00:00:00Z"}
        for name in ("a", "b")
    )
    async with scene.http() as api:

        async def send(alert: dict[str, Any]) -> str:
            answer = await api.post("/alerts", json={"alerts": [alert]}, headers=scene.signed_in("robot"))
            return str(answer.json()["alerts"][0]["decision"])

        monkeypatch.setattr("qnwis.api.alerts.ASK_EVERY_S", 1e9)  # all that follows is within the same time
        assert (await send(first)).startswith("nothing to do")
        assert "was asked within the last" in await send(other)
        monkeypatch.setattr("qnwis.api.alerts.ASK_EVERY_S", 1e-3)
        assert (await send(other)).startswith("nothing to do")
        for kept in (first, other):
            assert (await send(kept)).startswith("nothing to do")
    assert len(asked) == len({*asked}) == 2


async def test_an_alert_whose_process_was_killed_is_asked_about_again(tmp_path: Path) -> None:
    store = ApiScene(tmp_path).parts.store
    cut_off_at, gave_up_at = now(), now() + GIVEN_UP_AFTER + timedelta(seconds=1)
    assert await store.alert_begins("alert-1", cut_off_at) is None
    assert await store.alert_begins("alert-1", now()) == "", "another process may still be asking"
    assert await store.alert_begins("alert-1", gave_up_at) is None
    await store.alert_ends("alert-1", "asked")
    assert await store.alert_begins("alert-1", gave_up_at + 2 * GIVEN_UP_AFTER) == "asked"


async def test_a_policy_is_replaced_only_by_who_saw_it(tmp_path: Path) -> None:
    scene = ApiScene(tmp_path)
    async with scene.http() as api:
        found = (await api.get("/clusters/c1/policy", headers=scene.signed_in("ann"))).json()
        wanted = {**found["policy"], "min_healthy_nodes": 1}

        async def put(**headers: str) -> tuple[int, str]:
            headers = scene.acting("ann", **headers)
            answer = await api.put("/clusters/c1/policy", json=wanted, headers=headers)
            return answer.status_code, rule_of(answer)

        assert await put() == (428, "if_match_missing")
        assert await put(**{"If-Match": '"sha256:0"'}) == (412, "changed_meanwhile")
        # Whether a run goes on is not known here, so nothing is written.
        assert await put(**{"If-Match": found["digest"]}) == (503, "unreachable")
    assert scene.parts.registered("c1").policy.min_healthy_nodes == 2
