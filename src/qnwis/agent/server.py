"""The agent's HTTP API. Handlers decode, ask and encode; they decide nothing.

| request | answer |
|---|---|
| GET /health/live | 200 as long as the agent runs |
| GET /health/ready, /health/deep | 200 or 503, each check named with its finding |
| GET /state | 200, NodeState |
| GET /events | 200, a NodeEvent a line: one at once, one at each change; it ends when the agent does |
| POST /orders | 200 Receipt; 409, 422 Refusal (no change, or taken back); 504 (not known: send it again) |
| GET /journal | 200, the journal's lines |
| POST /lease/ask, /lease/promise | 200 Granted, Promised; 409 Refusal |
| POST /lease/withdraw, /lease/release | 200, the body again |
| GET /membership | 200, MembershipView |
| POST /membership/change | 200 MembershipView; 409 Refusal; on the holder of the lease |
| POST /membership/accept, /membership/adopt | 200 Accepted, MembershipView; 409 Refusal; among peers |
| POST /membership/force | 200 MembershipView; 409 Refusal; by an emergency override that gives nodes up |
| GET /callers/refused | 200, RefusedCallers |
| GET /upkeep | 200, Upkeep; 409 Refusal where the database does not answer |

With mutual TLS, 403 Refusal for whoever may not ask (`qnwis.continuity.allowlist`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from typing import TypeVar

from aiohttp import web
from pydantic import BaseModel, TypeAdapter, ValidationError

from qnwis.continuity.allowlist import RefusedCallers
from qnwis.continuity.lease_messages import Ask, PromiseRequest, Release, Withdrawal
from qnwis.continuity.membership import Adopted, AnyChange, Proposed
from qnwis.continuity.model import Model
from qnwis.continuity.orders import AnyOrder
from qnwis.continuity.refusal import Refusal

from .callers import Callers
from .checks import Checks, Health
from .config import AgentConfig
from .effects import EffectError, Node
from .journal import Journal, Line
from .lease import Leases
from .members import Members
from .orders import Orders
from .reporter import Reporter
from .upkeep import upkeep_of

M = TypeVar("M", bound=Model)

_ORDER: TypeAdapter[AnyOrder] = TypeAdapter(AnyOrder)
_CHANGE: TypeAdapter[AnyChange] = TypeAdapter(AnyChange)
_LINES: TypeAdapter[tuple[Line, ...]] = TypeAdapter(tuple[Line, ...])


_ORDERS = (
    "Send JSON: kind (promote, demote, follow, rejoin, quiesce, prepare, hand_over, resume), effect_id,"
    " run_id, epoch, and what that kind needs besides"
)
_CHANGES = "Send JSON: kind add with peer and disk_id, or kind remove with node_id"


def make_app(
    config: AgentConfig,
    checks: Checks,
    reporter: Reporter,
    orders: Orders,
    journal: Journal,
    leases: Leases,
    members: Members,
    node: Node | None,
    callers: Callers | None = None,
) -> web.Application:
    """The web application over the parts given; `node` is None for a witness, `callers` for an agent that
    speaks plain HTTP."""

    async def live(_: web.Request) -> web.Response:
        return _json(checks.live())

    async def state(_: web.Request) -> web.Response:
        return _json((await reporter.look()).state)

    async def events(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "application/x-ndjson"})
        await response.prepare(request)
        with contextlib.suppress(ConnectionResetError):  # a watcher that is gone needs no answer
            async for event in reporter.events.watch():
                # Vantages of before a field refuse it: it is said where it says something.
                await response.write(event.model_dump_json(exclude_defaults=True).encode() + b"\n")
        return response

    async def order(request: web.Request) -> web.Response:
        try:
            wanted = _ORDER.validate_json(await request.read())
        except ValidationError as error:
            return _json(_unreadable(error, _ORDERS), status=422)
        try:
            answer = await orders.obey(wanted)
        except EffectError as error:
            return web.json_response({"error": str(error)}, status=504)
        return _json(answer, status=409 if isinstance(answer, Refusal) else 200)

    async def lines(_: web.Request) -> web.Response:
        return web.Response(body=_LINES.dump_json(journal.lines), content_type="application/json")

    async def promise(asked: PromiseRequest) -> Model:
        answer = leases.promise(asked)
        if node is None or isinstance(answer, Refusal) or asked.former_holder is not None:
            return answer
        return await node.receiving.hold() or answer

    def withdraw(withdrawal: Withdrawal) -> Model:
        if leases.withdrawn(withdrawal.epoch, withdrawal.run_id) and node is not None:
            node.receiving.go_on()
        return withdrawal

    def release(release: Release) -> Model:
        leases.released(release)
        return release

    async def membership(_: web.Request) -> web.Response:
        return _json(members.view())

    async def change(request: web.Request) -> web.Response:
        try:
            wanted = _CHANGE.validate_json(await request.read())
        except ValidationError as error:
            return _json(_unreadable(error, _CHANGES), status=422)
        answer = await members.change(wanted)
        return _json(answer, status=409 if isinstance(answer, Refusal) else 200)

    async def upkeep(_: web.Request) -> web.Response:
        answer = await upkeep_of(config, node)
        return _json(answer, status=409 if isinstance(answer, Refusal) else 200)

    async def refused(_: web.Request) -> web.Response:
        return _json(callers.told if callers is not None else RefusedCallers())

    def not_theirs(request: web.Request, body: Model) -> Refusal | None:
        return None if callers is None else callers.body_refusal(request, body, leases.membership.members)

    def lease(
        kind: type[M], answer: Callable[[M], Model | Awaitable[Model]]
    ) -> Callable[[web.Request], Awaitable[web.Response]]:
        return _lease(kind, answer, not_theirs)

    app = web.Application(middlewares=[callers.middleware] if callers is not None else [])
    app.add_routes(
        [
            web.get("/health/live", live),
            web.get("/health/ready", _health(checks.ready)),
            web.get("/health/deep", _health(checks.deep)),
            web.get("/state", state),
            web.get("/events", events),
            web.post("/orders", order),
            web.get("/journal", lines),
            web.post("/lease/ask", lease(Ask, leases.grant)),
            web.post("/lease/promise", lease(PromiseRequest, promise)),
            web.post("/lease/withdraw", lease(Withdrawal, withdraw)),
            web.post("/lease/release", lease(Release, release)),
            web.get("/membership", membership),
            web.post("/membership/change", change),
            web.post("/membership/accept", lease(Proposed, members.accept)),
            web.post("/membership/adopt", lease(Adopted, members.adopt)),
            web.post("/membership/force", lease(Adopted, members.force)),
            web.get("/callers/refused", refused),
            web.get("/upkeep", upkeep),
        ]
    )
    return app


def _health(check: Callable[[], Awaitable[Health]]) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handler(_: web.Request) -> web.Response:
        health = await check()
        return _json(health, status=200 if health.ok else 503)

    return handler


def _lease(
    kind: type[M],
    answer: Callable[[M], Model | Awaitable[Model]],
    not_theirs: Callable[[web.Request, Model], Refusal | None],
) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handler(request: web.Request) -> web.Response:
        try:
            asked = kind.model_validate_json(await request.read())
        except ValidationError as error:
            return _json(_unreadable(error, f"Send JSON of {kind.__name__}"), status=422)
        if (refusal := not_theirs(request, asked)) is not None:
            return _json(refusal, status=403)
        answered = answer(asked)
        if not isinstance(answered, Model):
            answered = await answered
        return _json(answered, status=409 if isinstance(answered, Refusal) else 200)

    return handler


def _unreadable(error: ValidationError, expected: str) -> Refusal:
    faults = "; ".join(f"{'.'.join(map(str, f['loc'])) or 'body'}: {f['msg']}" for f in error.errors())
    return Refusal(
        rule="body_not_understood",
        message=f"The body is not what is expected here: {faults}",
        remedy=expected,
    )


def _json(value: BaseModel, *, status: int = 200) -> web.Response:
    return web.Response(text=value.model_dump_json(), content_type="application/json", status=status)
