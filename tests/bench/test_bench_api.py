"""What the door costs: `/status` and `/plan` of a 5-node cluster under 16 clients at once, and the same
handlers without credentials, permissions and limits in front of them.

In one process and without a network, so that nothing but the API is measured; nodes answer from memory.
"""

from __future__ import annotations

import asyncio
from math import ceil
from pathlib import Path
from time import perf_counter

import pytest
from fastapi import FastAPI
from pytest_benchmark.fixture import BenchmarkFixture
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from qnwis.api.app import create_app
from qnwis.config.api import ApiFile
from qnwis.continuity.identity import Identity
from qnwis.continuity.requests import Limits
from tests.integration.continuity.world import World, three_nodes
from tests.unit.api.scene import ApiScene, calling

pytestmark = pytest.mark.bench

CLIENTS, EACH, WARM_UP = 16, 20, 2
NAMED = {"cluster": {"cluster_id": "c1"}}


class NoDoor:
    """In place of the door: everybody is an admin."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        identity = Identity(name="anybody", roles=("continuity_admin",), by="nothing")
        scope.setdefault("state", {}).update(request_id="req-0", identity=identity)
        await self._app(scope, receive, send)


def five_nodes() -> World:
    node = {"role": "secondary", "region": "region-1", "site": "a", "status": "healthy"}
    nodes = [{**node, "node_id": f"node-{n}", "hostname": f"10.0.1.{n}", "priority": n} for n in range(1, 6)]
    nodes[0]["role"] = "primary"
    return World.of(three_nodes("c1", nodes=nodes))


@pytest.mark.parametrize("guarded", [True, False], ids=["guarded", "unguarded"])
@pytest.mark.parametrize("path", ["/status", "/plan"])
def test_under_16_clients(
    path: str,
    guarded: bool,
    tmp_path: Path,
    benchmark: BenchmarkFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limits = Limits(per_minute=1e9, burst=10**9)
    scene = ApiScene(tmp_path, ApiFile(limits=limits), world=five_nodes())
    app = create_app(scene.parts)
    if not guarded:
        app.user_middleware = [Middleware(NoDoor)]
        monkeypatch.setattr("qnwis.api.asking.permission_refusal", lambda *_: None)
    taken: list[float] = []

    def measure() -> None:
        taken.extend(asyncio.run(_asked(app, scene, path)))

    benchmark.pedantic(measure, rounds=1)  # type: ignore[no-untyped-call]
    p50_ms, p99_ms = (_percentile_ms(taken, share) for share in (0.50, 0.99))
    what = f"`{path}` {'with' if guarded else 'without'} the door"
    benchmark.extra_info |= {"what": what, "p50_ms": p50_ms, "p99_ms": p99_ms}


async def _asked(app: FastAPI, scene: ApiScene, path: str) -> list[float]:
    """How long each answer took, seconds."""
    headers = scene.signed_in("ann")

    async def client() -> list[float]:
        taken = []
        async with calling(app) as api:
            for _ in range(WARM_UP + EACH):
                began = perf_counter()
                answer = await api.post(path, json=NAMED, headers=headers)
                taken.append(perf_counter() - began)
                assert answer.status_code == 200, answer.text
        return taken[WARM_UP:]

    answered = await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return [took for one in answered for took in one]


def _percentile_ms(taken: list[float], share: float) -> float:
    return sorted(taken)[ceil(share * len(taken)) - 1] * 1000
