"""Answers that say no: RFC 9457 problem details, which carry a refusal whole."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi.responses import JSONResponse
from pydantic import Field

from qnwis.continuity.model import Model
from qnwis.continuity.refusal import Refusal

MEDIA_TYPE = "application/problem+json"
TYPE = "urn:qnwis:rule:"
"""Before the rule's name: the problem's type."""

STATUS: Mapping[str, int] = {
    "credentials_missing": 401,
    "credentials_refused": 401,
    "permission_missing": 403,
    "role_not_allowed": 403,
    "initiator_excluded": 403,
    "person_unknown": 403,
    "not_vouched_for": 403,
    "token_missing": 403,
    "token_forged": 403,
    "token_of_another": 403,
    "token_for_another": 403,
    "token_expired": 403,
    "token_used": 403,
    "not_found": 404,
    "method_not_allowed": 405,
    "cluster_unknown": 404,
    "no_run": 404,
    "no_plan": 404,
    "no_record": 404,
    "no_guardian": 404,
    "freshness_missing": 400,
    "nonce_malformed": 400,
    "timestamp_malformed": 400,
    "request_stale": 400,
    "request_replayed": 409,
    "idempotency_key_missing": 400,
    "idempotency_key_malformed": 400,
    "request_in_progress": 409,
    "not_taken": 409,
    "run_in_progress": 409,
    "cluster_registered": 409,
    "round_trip_in_progress": 409,
    "evacuation_in_progress": 409,
    "changed_meanwhile": 412,
    "body_too_slow": 408,
    "body_too_large": 413,
    "if_match_missing": 428,
    "rate_limited": 429,
    "too_many_streams": 429,
    "unreachable": 503,
    "not_usable": 503,
}
"""Of each rule; every other one refuses what was understood: 422."""

TITLES: Mapping[int, str] = {
    400: "The request lacks what it has to show",
    401: "Nobody known asks",
    403: "Not allowed",
    404: "Not there",
    405: "Not possible here",
    408: "It came too slowly",
    409: "Something goes on already",
    412: "It changed meanwhile",
    413: "Too large",
    422: "A rule says no",
    428: "A condition is needed",
    429: "Too many requests",
    503: "Not to be had now",
}


class Problem(Model):
    """RFC 9457. What a rule refused is told with its operands and what would change the answer."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    request_id: str
    rule: str
    values: dict[str, Any] = Field(default_factory=dict)
    remedy: str


def problem(
    refusal: Refusal, *, request_id: str, path: str, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """The answer to a request that a rule refuses."""
    status = STATUS.get(refusal.rule, 422)
    body = Problem(
        type=TYPE + refusal.rule,
        title=TITLES.get(status, "Refused"),
        status=status,
        detail=refusal.message,
        instance=path,
        request_id=request_id,
        rule=refusal.rule,
        values=dict(refusal.values),
        remedy=refusal.remedy,
    )
    more = dict(headers or {})
    if status == 401:
        more["WWW-Authenticate"] = "Bearer"
    if status == 429:
        more["Retry-After"] = str(max(1, round(float(str(refusal.values.get("retry_after_s", 1))) + 0.5)))
    return JSONResponse(body.model_dump(mode="json"), status_code=status, headers=more, media_type=MEDIA_TYPE)


def unreachable(what: str) -> Refusal:
    return Refusal(
        rule="unreachable",
        message=what,
        values={},
        remedy="Try again in a while; what was asked for may have happened.",
    )


DESCRIBED: dict[int | str, dict[str, Any]] = {
    status: {
        "description": title,
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
    for status, title in TITLES.items()
}
"""For the OpenAPI document: every operation may answer with any of these."""
