"""Requests that schemathesis makes up from the OpenAPI document, each answer held against that document.
`make fuzz CASES=10000` sends more of them, and other ones each time."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import httpx
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

FEW = 300
CASES = int(os.environ.get("QNWIS_FUZZ_CASES", FEW))
"""Of each test, over all operations."""
CHECKS = [
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]

Send = Callable[[dict[str, Any]], Awaitable[httpx.Response]]


async def answers_conform(
    document: dict[str, Any], send: Send, known: Mapping[str, str], *, silent: bool = False
) -> Counter[int]:
    """Send CASES requests, good and bad ones, over all operations; how often each status was answered. Raises
    where an answer is none that the document has.

    `known`: what is there, by the names of parameters and fields; made-up names alone would never get past
    the first look. `silent`: nobody stands behind the API, so that it may answer 503.
    """
    schema = schemathesis.openapi.from_dict(document)
    operations = [found.ok() for found in schema.get_all_operations()]
    checks = CHECKS if silent else [not_a_server_error, *CHECKS]
    statuses = Counter[int]()
    for operation in operations:
        for case in _cases(operation, max(2, CASES // len(operations)), known):
            answered = await send(_request(case))
            statuses[answered.status_code] += 1
            case.validate_response(answered, checks=checks)
            assert answered.status_code < 500 or (silent and answered.status_code == 503), answered.text
    return statuses


def _cases(operation: Any, count: int, known: Mapping[str, str]) -> list[Case]:
    """So many of one operation. All before the first is sent: Hypothesis waits for nothing."""
    made: list[Case] = []
    modes = [operation.as_strategy(generation_mode=mode) for mode in GenerationMode]

    @settings(
        max_examples=count,
        derandomize=CASES == FEW,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=st.one_of(modes), exists=st.booleans())
    def make(case: Case, exists: bool) -> None:
        if exists:
            case.path_parameters = _filled(case.path_parameters, known)
            case.body = _filled(case.body, known)
        made.append(case)

    make()
    return made


def _filled(value: Any, known: Mapping[str, str]) -> Any:
    """With what is there for whatever was made up under its name."""
    if isinstance(value, list):
        return [_filled(one, known) for one in value]
    if not isinstance(value, dict):
        return value
    return {
        name: known[name] if name in known and isinstance(one, str) else _filled(one, known)
        for name, one in value.items()
    }


def _request(case: Case) -> dict[str, Any]:
    """The case as httpx sends it."""
    made = case.as_transport_kwargs(base_url="http://api.test")
    headers = [(name.encode(), str(value).encode("latin-1")) for name, value in made["headers"].items()]
    asked = {"method": made["method"], "url": made["url"], "params": made.get("params"), "headers": headers}
    if "data" in made:
        return {**asked, "content": made["data"]}
    return {**asked, "json": made["json"]} if "json" in made else asked


def with_headers(asked: dict[str, Any], headers: Mapping[str, str]) -> dict[str, Any]:
    """These go before the made-up ones."""
    named = {name.lower().encode(): value.encode() for name, value in headers.items()}
    return {
        **asked,
        "headers": [*named.items(), *((n, v) for n, v in asked["headers"] if n.lower() not in named)],
    }
