"""`docs/api/step27_service_api.md`: the HTTP API, read off its OpenAPI document."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from qnwis.api.app import BASE, create_app
from qnwis.api.problems import STATUS
from qnwis.continuity.model import Model
from tests.unit.api.scene import ApiScene

from .fields import field_table, meanings, type_of
from .markdown import cell, code, paragraphs, table

ACTS = "Idempotency-Key"
SHARED = ("X-Request-Timestamp", "X-Request-Nonce", ACTS)
"""Headers of every request that acts."""


def document() -> dict[str, Any]:
    with TemporaryDirectory() as home:
        return create_app(ApiScene(Path(home)).parts).openapi()


def api_page() -> str:
    whole = document()
    parts = [
        "# HTTP API\n\n",
        "Served by [`api serve`](../reference/commands.md#api-serve); the same as an OpenAPI"
        f" {whole['openapi']} document is at `{BASE}/openapi.json`. Every request has"
        " `Authorization: Bearer …`, a JWT of an issuer in"
        " [`api.yaml`](../reference/configuration.md#apiyaml) or a service token."
        " [Security](../security.md) says who may do what.\n\n",
        "A request that acts also has these headers, so that it is fresh, cannot be replayed, and is done"
        " once:\n\n",
        _headers(whole),
        "What is refused is answered with `application/problem+json` (RFC 9457): the rule, its values, and"
        " what would change the answer. A rule that is not in this table has status 422:\n\n",
        table(("status", "rules"), _statuses()),
        "## All endpoints\n\n",
        table(
            ("", "path", "what it does"),
            ((f"`{m.upper()}`", code(p), cell(_first(o))) for p, m, o in _each(whole)),
        ),
    ]
    used: list[str] = []
    for path, method, operation in _each(whole):
        parts.append(_endpoint(path, method, operation, whole, used))
    parts.append("## Bodies\n\n")
    schemas = whole["components"]["schemas"]
    for name in used:  # it grows while it is read
        schema = schemas[name]
        _refs(schema, used, schemas)
        text, told = schema.get("description", ""), _meanings(name.partition("-")[0], schema)
        parts += [f"### {name}\n\n", paragraphs(text) if text else "", field_table(schema, whole, told)]
    return "".join(parts)


def _meanings(name: str, schema: Mapping[str, Any]) -> Mapping[str, str]:
    """What the fields mean, by the model of the product that has this name and these fields."""
    waiting, found = list(Model.__subclasses__()), []
    while waiting:
        one = waiting.pop()
        waiting += one.__subclasses__()
        names = {field.alias or key for key, field in one.model_fields.items()}
        if (
            one.__name__ == name
            and one.__module__.startswith("qnwis.")
            and names >= set(schema.get("properties", ()))
        ):
            found.append(one)
    return meanings(min(found, key=lambda one: one.__module__)) if found else {}


def _each(whole: Mapping[str, Any]) -> list[tuple[str, str, Mapping[str, Any]]]:
    return [(path, method, of) for path, methods in whole["paths"].items() for method, of in methods.items()]


def _first(operation: Mapping[str, Any]) -> str:
    return str(operation.get("description") or operation["summary"]).partition("\n\n")[0]


def _headers(whole: Mapping[str, Any]) -> str:
    parameters = next(of["parameters"] for _, _, of in _each(whole) if _acts(of))
    told = {one["name"]: one.get("description", "") for one in parameters}
    return table(("header", "value"), ((code(name), cell(told[name])) for name in SHARED))


def _acts(operation: Mapping[str, Any]) -> bool:
    return any(one["name"] == ACTS for one in operation.get("parameters", ()))


def _statuses() -> list[tuple[str, str]]:
    by_status: dict[int, list[str]] = {}
    for rule, status in STATUS.items():
        by_status.setdefault(status, []).append(code(rule))
    return [(str(status), ", ".join(rules)) for status, rules in sorted(by_status.items())]


def _endpoint(
    path: str, method: str, operation: Mapping[str, Any], whole: Mapping[str, Any], used: list[str]
) -> str:
    schemas = whole["components"]["schemas"]
    parts = [f"## {method.upper()} {path.removeprefix(BASE)}\n\n", paragraphs(_first(operation))]
    if _acts(operation):
        parts.append("It acts: the three headers are needed.\n\n")
    own = [one for one in operation.get("parameters", ()) if one["name"] not in SHARED]
    if own:
        rows = [
            (code(one["name"]), one["in"], type_of(one["schema"], whole), cell(one.get("description", "")))
            for one in own
        ]
        parts.append(table(("parameter", "in", "type", "meaning"), rows))
    rows = []
    bodies = {"request": operation.get("requestBody", {})}
    bodies |= {s: of for s, of in operation["responses"].items() if s.startswith("2")}
    for name, body in sorted(bodies.items(), key=lambda item: (item[0] != "request", item[0])):
        for media, content in body.get("content", {}).items():
            schema = content.get("schema", {})
            _refs(schema, used, schemas)
            rows.append((name, code(media), type_of(schema, whole)))
    if rows:
        parts.append(table(("body", "media type", "form"), rows))
    return "".join(parts)


def _refs(schema: Any, used: list[str], schemas: Mapping[str, Any]) -> None:
    """Note the objects that a schema leads to, for a section each."""
    if isinstance(schema, Mapping):
        name = str(schema.get("$ref", "")).rpartition("/")[2]
        if name and name not in used:
            other = schemas.get(name, {})
            if "properties" in other or other.get("type") == "object":
                used.append(name)
            else:
                _refs(other, used, schemas)
        for inner in schema.values():
            _refs(inner, used, schemas)
    elif isinstance(schema, list):
        for inner in schema:
            _refs(inner, used, schemas)
