"""The application: the door in front, the endpoints behind it, and one form for every no."""

from __future__ import annotations

import logging
import warnings
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse
from pydantic.warnings import UnsupportedFieldAttributeWarning
from starlette.exceptions import HTTPException
from temporalio.client import WorkflowQueryFailedError
from temporalio.service import RPCError

from qnwis.config.problem import ConfigError
from qnwis.continuity.refusal import Refusal
from qnwis.providers.errors import Refused, Unreachable
from qnwis.providers.key_store import KeyStoreError

from . import (
    alerts,
    continuity,
    guardians,
    maintenance,
    me,
    proofs,
    records,
    regions,
    registered,
    runs,
    steering,
)
from .console import pages
from .door import Door, too_large, too_slow
from .parts import Parts
from .problems import DESCRIBED, Problem, problem, unreachable

log = logging.getLogger(__name__)

BASE = "/api/v1/continuity"

PARTS = (
    *(me, continuity, runs, steering, guardians, regions, maintenance),
    *(registered, records, proofs, alerts),
)

OF_BODIES = {408: too_slow, 413: too_large}

# FastAPI silences this while it makes its adapters; those of the domain's models are built when first used.
warnings.filterwarnings("ignore", category=UnsupportedFieldAttributeWarning)


def create_app(parts: Parts) -> FastAPI:
    app = FastAPI(
        title="QNWIS Continuity",
        version="1",
        docs_url=None,
        redoc_url=None,
        openapi_url=f"{BASE}/openapi.json",
    )
    app.state.parts = parts
    whole = APIRouter(prefix=BASE, responses=DESCRIBED)
    for part in PARTS:
        whole.include_router(part.router)
    app.include_router(whole)
    app.add_api_route("/health/live", _live, include_in_schema=False)
    console = pages()
    for path, page in console.items():
        app.add_api_route(path, page, include_in_schema=False)
    app.add_middleware(Door, parts=parts, open_to_all=console)
    app.add_exception_handler(Refused, _refused)
    app.add_exception_handler(Unreachable, _unreachable)
    app.add_exception_handler(RPCError, _no_temporal)
    app.add_exception_handler(WorkflowQueryFailedError, _no_temporal)
    app.add_exception_handler(ConfigError, _not_usable)
    app.add_exception_handler(KeyStoreError, _not_usable)
    app.add_exception_handler(RequestValidationError, _not_understood)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _broken)
    app.openapi = lambda: _document(app)  # type: ignore[method-assign]
    return app


async def _live() -> Response:
    return JSONResponse({"live": True})


def _answer(request: Request, refusal: Refusal) -> JSONResponse:
    return problem(refusal, request_id=getattr(request.state, "request_id", ""), path=request.url.path)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    who = request.state.identity.name
    request.app.state.parts.alarms.saw(error.refusal.rule, who)
    return _answer(request, error.refusal)


async def _unreachable(request: Request, error: Exception) -> Response:
    log.warning("%s: %s", request.url.path, error)
    return _answer(request, unreachable(str(error)))


async def _no_temporal(request: Request, error: Exception) -> Response:
    assert isinstance(error, RPCError | WorkflowQueryFailedError)
    log.warning("%s: Temporal: %s", request.url.path, error.message)
    return _answer(request, unreachable(f"The Temporal server does not answer as expected: {error.message}"))


async def _not_usable(request: Request, error: Exception) -> Response:
    log.error("%s: %s", request.url.path, error)
    refusal = Refusal(
        rule="not_usable",
        message="A configuration file or a key cannot be used; the API's log says which and why",
        values={},
        remedy="Correct the file (qnwis-continuity validate).",
    )
    return _answer(request, refusal)


async def _not_understood(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    errors = [
        {
            "field": ".".join(map(str, one["loc"])),
            "expected": str(one.get("ctx", {}).get("error", one["msg"])),
            "type": one["type"],
        }
        for one in error.errors()[:50]
    ]
    refusal = Refusal(
        rule="not_understood",
        message=f"{errors[0]['field']}: {errors[0]['expected']}" if errors else "The request is malformed",
        values={"errors": [*errors]},
        remedy=f"GET {BASE}/openapi.json describes every request.",
    )
    return _answer(request, refusal)


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code in OF_BODIES:
        return _answer(request, OF_BODIES[error.status_code]())
    rule = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "not_understood")
    refusal = Refusal(
        rule=rule,
        message=f"{request.method} {request.url.path}: {error.detail}",
        values={},
        remedy=f"GET {BASE}/openapi.json describes every request.",
    )
    answered = _answer(request, refusal)
    for name, value in (error.headers or {}).items():
        answered.headers[name] = value
    return answered


async def _broken(request: Request, error: Exception) -> Response:
    log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    refusal = Refusal(
        rule="broken",
        message="The API failed; its log says how",
        values={},
        remedy="Report it, with request_id.",
    )
    answered = _answer(request, refusal)
    answered.status_code = 500
    return answered


def _document(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document, with the form of a problem and how one signs in."""
    if app.openapi_schema is None:
        made = get_openapi(title=app.title, version=app.version, routes=app.routes)
        components = made.setdefault("components", {})
        components.setdefault("schemas", {})["Problem"] = Problem.model_json_schema()
        components["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer"}}
        made["security"] = [{"bearer": []}]
        app.openapi_schema = made
    return app.openapi_schema
