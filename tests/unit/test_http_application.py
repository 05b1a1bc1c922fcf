"""Asking an application over HTTP: what counts as an answer, what a header is made of, and what is hidden."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from qnwis.continuity.http_application import HttpApplication
from qnwis.continuity.topology import Node
from qnwis.providers.all_nodes import AllNodes
from qnwis.providers.errors import Refused, Unreachable
from qnwis.providers.http_application import HttpApplications, at_pointer
from qnwis.transport import Transport
from tests.unit.continuity.application_scenes import member

TOLD = "made-up"
"""What the token file holds after `Bearer`."""


@dataclass
class Served:
    """An application that answers as the test says, and repeats what it was sent."""

    port: int = 0
    status: int = 200
    state: Any = None
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.Response:
        if request.method == "GET":
            return web.json_response(self.state, status=self.status)
        self.asked.append((request.method, request.path, request.headers.get("Idempotency-Key")))
        return web.Response(status=self.status, text=f"got {request.headers.get('Authorization')}")

    def node(self, folder: Path, **http: Any) -> Node:
        place, headers = f"http://{{hostname}}:{self.port}", {"Authorization": f"file:{folder / 'token'}"}
        application = {
            "state": {"url": f"{place}/state", "writable": "/node/writable", "position": "/node/position"},
            "demote": {"url": f"{place}/{{node_id}}/demote", "headers": headers, "method": "PUT"},
            "promote": {"url": f"{place}/{{node_id}}/promote", "headers": headers},
            **http,
        }
        return member("t1", hostname="127.0.0.1", http=HttpApplication.model_validate(application))


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    (tmp_path / "token").write_text(f"Bearer {TOLD}\n")
    made, application = Served(), web.Application()
    application.router.add_route("*", "/{tail:.*}", made.answer)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.port = runner.addresses[0][1]
    yield made
    await runner.cleanup()


@pytest.fixture
async def applications() -> AsyncIterator[HttpApplications]:
    made = HttpApplications(Transport())
    yield made
    await made.aclose()


async def test_a_state_is_read_by_its_pointers(
    served: Served, applications: HttpApplications, tmp_path: Path
) -> None:
    served.state = {"node": {"writable": True, "position": 12}}
    state = await applications.state(served.node(tmp_path), timeout_s=5)
    assert (state.writable, state.position, state.node_id) == (True, 12, "t1")


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"node": {"position": 1}}, "/node/writable is missing"),
        ({"node": {"writable": "false", "position": 1}}, "expected true or false"),
        ({"node": {"writable": 0, "position": 1}}, "expected true or false"),
        ({"node": {"writable": False, "position": True}}, "expected a whole number"),
        ({"node": {"writable": False}}, "/node/position is missing"),
        ([], "/node/writable is missing"),
    ],
)
async def test_an_answer_that_does_not_say_it_is_no_answer(
    served: Served, applications: HttpApplications, tmp_path: Path, said: Any, told: str
) -> None:
    served.state = said
    with pytest.raises(Unreachable, match=told):
        await applications.state(served.node(tmp_path), timeout_s=5)


async def test_a_state_of_another_status_is_no_answer_and_no_health(served: Served, tmp_path: Path) -> None:
    served.state, served.status = {"node": {"writable": True, "position": 1}}, 503
    async with AllNodes(Transport()) as nodes:
        probed = await nodes.probe(served.node(tmp_path), "/health/ready", timeout_s=5)
        served.status = 200
        well = await nodes.probe(served.node(tmp_path), "/health/ready", timeout_s=5)
    assert (probed.ok, probed.error_type) == (False, "answer") and "status 503, not 200" in (
        probed.error or ""
    )
    assert well.ok


async def test_an_order_carries_its_effect_id_and_a_secret_from_a_file_that_nobody_repeats(
    served: Served, applications: HttpApplications, tmp_path: Path
) -> None:
    said = await applications.change(served.node(tmp_path), "demote", effect_id="run-1/2-demote-t1")
    assert served.asked == [("PUT", "/t1/demote", "run-1/2-demote-t1")]
    assert "got ***" in said and TOLD not in said


@pytest.mark.parametrize(("status", "kind"), [(409, Refused), (500, Unreachable), (202, Unreachable)])
async def test_another_status_is_a_no_or_not_known(
    served: Served, applications: HttpApplications, tmp_path: Path, status: int, kind: type[Exception]
) -> None:
    served.status = status
    with pytest.raises(kind) as error:
        await applications.change(served.node(tmp_path), "promote", effect_id="e")
    said = str(error.value.refusal) if isinstance(error.value, Refused) else str(error.value)
    assert str(status) in said and TOLD not in said


async def test_a_secret_file_that_is_not_there_is_named_and_nothing_is_sent(
    served: Served, applications: HttpApplications, tmp_path: Path
) -> None:
    (tmp_path / "token").unlink()
    with pytest.raises(Unreachable, match=r"header Authorization .*token on this worker: FileNotFoundError"):
        await applications.change(served.node(tmp_path), "demote", effect_id="e")
    assert served.asked == []


def test_pointers_follow_rfc_6901() -> None:
    answer = {"a/b": [{"m~n": 1}]}
    assert at_pointer(answer, "/a~1b/0/m~0n") == 1
    assert at_pointer(answer, "/a~1b/1") is at_pointer(answer, "/nothing/there") is None
