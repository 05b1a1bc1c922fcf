"""Patroni's answers, as version 4.1 gives them, and what is made of them; over HTTP, from a server that
repeats them."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web

from qnwis.continuity.evidence import NodeState
from qnwis.continuity.topology import Node
from qnwis.providers.errors import Refused, Unreachable
from qnwis.providers.patroni import HttpPatroni, Tried
from qnwis.transport import Transport
from tests.unit.continuity.patroni_scenes import member

PRIMARY = {
    "state": "running",
    "role": "primary",
    "server_version": 160010,
    "xlog": {"location": 67395656},
    "timeline": 3,
    "replication": [
        {"usename": "replicator", "application_name": "e2", "state": "streaming", "sync_state": "async"}
    ],
    "dcs_last_seen": 1764355000,
    "database_system_identifier": "7577000000000000001",
    "patroni": {"version": "4.1.5", "scope": "east", "name": "e1"},
}
STANDBY_LEADER = {
    **PRIMARY,
    "role": "standby_leader",
    "xlog": {"received_location": 100, "replayed_location": 90, "replayed_timestamp": None, "paused": False},
    "replication_state": "streaming",
}
CLUSTER = {
    "members": [
        {"name": "e1", "role": "leader", "state": "running", "timeline": 3, "lag": 0},
        {"name": "e2", "role": "replica", "state": "streaming", "timeline": 3, "lag": 0},
    ],
    "scope": "east",
}
CONFIG = {"ttl": 30, "loop_wait": 10, "maximum_lag_on_failover": 1048576, "synchronous_mode": False}


@dataclass
class Repeats:
    """A server that gives these answers: a status and a body for each path."""

    answers: dict[str, tuple[int, Any]]
    asked: list[tuple[str, str, Any, str | None]] = field(default_factory=list)
    """Method, path, body and Authorization of each request but those that read."""
    url: str = ""

    async def answer(self, request: web.Request) -> web.Response:
        status, body = self.answers[request.path]
        if request.method != "GET":
            said = json.loads(await request.text())
            self.asked.append((request.method, request.path, said, request.headers.get("Authorization")))
        return web.Response(status=status, text=body if isinstance(body, str) else json.dumps(body))

    @property
    def node(self) -> Node:
        return member("e1", "primary", patroni={"url": self.url, "credentials": "env:PATRONI_OF_TEST"})


@pytest.fixture
async def patroni(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Repeats]:
    monkeypatch.setenv("PATRONI_OF_TEST", "ann:a:b")
    made = Repeats({"/patroni": (200, PRIMARY), "/cluster": (200, CLUSTER), "/config": (200, CONFIG)})
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", made.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    made.url = f"http://{host}:{port}"
    yield made
    await runner.cleanup()


@pytest.fixture
async def api() -> AsyncIterator[HttpPatroni]:
    made = HttpPatroni(Transport())
    yield made
    await made.aclose()


async def state_of(api: HttpPatroni, server: Repeats, **answers: Any) -> NodeState:
    server.answers |= {f"/{path}": (200, body) for path, body in answers.items()}
    return await api.state(server.node, timeout_s=5)


async def test_a_primarys_state(api: HttpPatroni, patroni: Repeats) -> None:
    state = await state_of(api, patroni)
    assert (state.writable, state.in_recovery, state.timeline, state.epoch) == (True, False, 3, 3)
    assert state.write_lsn == 67395656 and state.standbys[0].application_name == "e2"
    assert state.patroni is not None and state.patroni.leader == "e1" and not state.patroni.paused
    assert state.patroni.max_lag_bytes == 1048576 and state.patroni.standby_of is None


async def test_a_standby_leaders_state(api: HttpPatroni, patroni: Repeats) -> None:
    config = {**CONFIG, "standby_cluster": {"host": "10.0.0.3", "port": 5433}, "pause": True}
    state = await state_of(
        api, patroni, patroni=STANDBY_LEADER, config=config, cluster={**CLUSTER, "pause": True}
    )
    assert (state.writable, state.in_recovery, state.streaming) == (False, True, True)
    assert (state.receive_lsn, state.replay_lsn, state.write_lsn) == (100, 90, None)
    assert state.patroni is not None and state.patroni.standby_of == "10.0.0.3:5433" and state.patroni.paused


@pytest.mark.parametrize(
    ("section", "followed"),
    [
        ({}, None),
        (None, None),
        ({"host": "10.0.0.3"}, "10.0.0.3:5432"),
        ({"restore_command": "cp x y"}, "an archive"),
    ],
)
async def test_what_patroni_takes_for_a_standby_cluster_is_one(
    api: HttpPatroni, patroni: Repeats, section: object, followed: str | None
) -> None:
    state = await state_of(api, patroni, config={**CONFIG, "standby_cluster": section})
    assert state.patroni is not None and state.patroni.standby_of == followed


@pytest.mark.parametrize("said", ["stopped", "starting", "start failed", "unknown"])
async def test_a_database_that_does_not_run_is_down(api: HttpPatroni, patroni: Repeats, said: str) -> None:
    """Its last role, which Patroni repeats, makes it no primary."""
    state = await state_of(
        api, patroni, patroni={"state": said, "role": "primary", "patroni": PRIMARY["patroni"]}
    )
    assert not state.database_up and not state.writable and state.in_recovery is None
    assert state.why_down is not None and said in state.why_down


async def test_without_its_dcs_a_member_is_known_of_itself_alone(api: HttpPatroni, patroni: Repeats) -> None:
    patroni.answers["/cluster"] = (503, "<html>Service Unavailable</html>")
    state = await state_of(api, patroni)
    assert state.writable and state.patroni is None


async def test_a_member_of_another_name_is_not_taken_for_the_node(api: HttpPatroni, patroni: Repeats) -> None:
    other = {**PRIMARY, "patroni": {**PRIMARY["patroni"], "name": "e2"}}  # type: ignore[dict-item]
    with pytest.raises(Unreachable, match="says that it is 'e2'"):
        await state_of(api, patroni, patroni=other)


async def test_credentials_go_with_what_changes_something(api: HttpPatroni, patroni: Repeats) -> None:
    await api.follow_as_standby_cluster(patroni.node, host="10.0.0.3", port=5432, timeout_s=5)
    await api.stand_alone(patroni.node, timeout_s=5)
    auth = "Basic " + b64encode(b"ann:a:b").decode()
    assert patroni.asked == [
        ("PATCH", "/config", {"standby_cluster": {"host": "10.0.0.3", "port": 5432}}, auth),
        ("PATCH", "/config", {"standby_cluster": None}, auth),
    ]


async def test_without_its_variable_nothing_is_asked(
    api: HttpPatroni, patroni: Repeats, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PATRONI_OF_TEST")
    with pytest.raises(Refused, match="PATRONI_OF_TEST"):
        await api.stand_alone(patroni.node, timeout_s=5)
    assert patroni.asked == []


@pytest.mark.parametrize(
    ("status", "said", "raised"),
    [
        (412, "candidate name does not match with sync_standby", Refused),
        (401, "no auth header received", Refused),
        (503, "Switchover failed", Tried),
        (503, "Switchover status unknown", Unreachable),
        (502, "", Unreachable),
    ],
)
async def test_a_no_keeps_patronis_words(
    api: HttpPatroni, patroni: Repeats, status: int, said: str, raised: type[Exception]
) -> None:
    patroni.answers["/switchover"] = (status, said)
    with pytest.raises(raised) as no:
        await api.switchover(patroni.node, leader="e1", candidate="e2", timeout_s=5)
    assert type(no.value) is raised
    assert said in str(no.value) and str(status) in str(no.value)
