"""Nothing that can be written into a request has the API break, or answer what its document does not have."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

import httpx
import pytest

from qnwis.api.app import create_app
from qnwis.config.api import ApiFile
from qnwis.continuity.requests import Limits

from .made_up import answers_conform, with_headers
from .scene import ApiScene, stamped

WITHOUT_LIMITS = ApiFile(limits=Limits(per_minute=1e9, burst=10**9))
PLAN, RUN = "plan-000000000000", "00000000-0000-4000-8000-000000000000"
KNOWN = {"cluster_id": "c1", "plan_id": PLAN, "run_id": RUN}
NOBODY = (
    {},
    {"Authorization": "Bearer qnwis_000000000000_guessed"},
    {"Authorization": "Bearer a.b.c"},
    {"Authorization": "Basic YWRtaW46YWRtaW4="},
)
ODD = (None, -1, 1e308, 10**30, "", "\0", "\ud800", {"\ud800": 1})


@pytest.mark.timeout(3600)
async def test_made_up_requests_are_answered_as_documented(tmp_path: Path) -> None:
    scene = ApiScene(tmp_path, WITHOUT_LIMITS)
    async with scene.http() as api:

        async def send(asked: dict[str, Any]) -> httpx.Response:
            headers = {**scene.signed_in("ann"), **stamped()}
            return await api.request(**with_headers(asked, headers))

        document = create_app(scene.parts).openapi()
        statuses = await answers_conform(document, send, KNOWN, silent=True)
    assert statuses[200] and statuses[404] and statuses[422] and statuses[503]


@pytest.mark.timeout(3600)
async def test_made_up_requests_of_nobody_have_no_effect(tmp_path: Path) -> None:
    scene = ApiScene(tmp_path, WITHOUT_LIMITS)
    assert scene.world is not None
    before, credentials = _files(tmp_path), cycle(NOBODY)
    async with scene.http() as api:

        async def send(asked: dict[str, Any]) -> httpx.Response:
            return await api.request(**with_headers(asked, {**next(credentials), **stamped()}))

        statuses = await answers_conform(create_app(scene.parts).openapi(), send, KNOWN)
    assert {*statuses} == {401}
    assert scene.client.asked == [] and scene.world.journal == []
    assert _files(tmp_path) == before


@pytest.mark.parametrize("path", ["/simulate", "/execute", "/alerts"])
async def test_a_good_request_with_one_odd_value_never_breaks_the_api(tmp_path: Path, path: str) -> None:
    scene = ApiScene(tmp_path, WITHOUT_LIMITS)
    broken = []
    async with scene.http() as api:
        good = await _good(api, scene, path)
        for place, body in _with_one_odd_value(good):
            headers = {**scene.acting("ann"), "Content-Type": "application/json"}
            answer = await api.post(path, content=json.dumps(body), headers=headers)
            if answer.status_code >= 500 and answer.status_code != 503:
                broken.append((place, answer.text))
    assert broken == []


async def _good(api: httpx.AsyncClient, scene: ApiScene, path: str) -> dict[str, Any]:
    """A request of this path that says everything that it may say."""
    registered = scene.parts.registered("c1").model_dump(mode="json")
    if path == "/alerts":
        alert = {"status": "firing", "labels": {"alertname": "Down"}, "startsAt": "2026-01-01T00:00:00Z"}
        return {"version": "4", "alerts": [alert]}
    if path == "/execute":
        answer = await api.post("/plan", json={"cluster": {"cluster_id": "c1"}}, headers=scene.acting("ann"))
        return {"plan": answer.json()["plan"], "dry_run": True}
    return {"cluster": registered["cluster"], "policy": registered["policy"], "seed": 1}


def _with_one_odd_value(body: Any) -> Iterator[tuple[str, Any]]:
    """The body with each of its parts in turn replaced by each odd value, and where that is."""
    parts = body.items() if isinstance(body, dict) else enumerate(body) if isinstance(body, list) else ()
    for key, part in parts:
        for place, changed in [*((f"={odd!r:.20}", odd) for odd in ODD), *_with_one_odd_value(part)]:
            copied: Any = [*body] if isinstance(body, list) else {**body}
            copied[key] = changed
            yield f".{key}{place}", copied


def _files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
