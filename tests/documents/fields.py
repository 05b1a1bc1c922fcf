"""The fields of a pydantic model for people: names, types, defaults, and the text beneath each."""

from __future__ import annotations

import ast
import inspect
import json
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from pydantic import BaseModel

from .markdown import cell, code, table

Schema = Mapping[str, Any]
NO_TITLES: Mapping[str, str] = {}
LIMITS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}


@cache
def meanings(model: type[BaseModel]) -> dict[str, str]:
    """By field, the text that stands beneath it in the source; a field of a base has the base's."""
    found: dict[str, str] = {}
    for one in reversed(model.__mro__):
        if not issubclass(one, BaseModel) or one is BaseModel:
            continue
        written = _classes(one.__module__)[one.__name__]
        for line, after in zip(written.body, [*written.body[1:], None], strict=True):
            if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
                text = after.value if isinstance(after, ast.Expr) else None
                if isinstance(text, ast.Constant) and isinstance(text.value, str):
                    found[line.target.id] = text.value
    return found


@cache
def _classes(module: str) -> dict[str, ast.ClassDef]:
    """Those of a module's top level, as they are written."""
    written = ast.parse(inspect.getsource(sys.modules[module]))
    return {one.name: one for one in written.body if isinstance(one, ast.ClassDef)}


def schema_of(model: type[BaseModel]) -> dict[str, Any]:
    return model.model_json_schema(by_alias=True)


def all_models(model: type[BaseModel]) -> dict[str, type[BaseModel]]:
    """This model and each that a field of it leads to, by name, in the order in which one comes to them."""
    found: dict[str, type[BaseModel]] = {}
    waiting = [model]
    while waiting:
        one = waiting.pop(0)
        if one.__name__ not in found:
            found[one.__name__] = one
            waiting += [
                inner for field in one.model_fields.values() for inner in _models_in(field.annotation)
            ]
    return found


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in getattr(annotation, "__args__", ()):
        yield from _models_in(inner)


def anchor(title: str) -> str:
    """Of a section."""
    kept = (letter for letter in title.lower() if letter.isalnum() or letter in "-_ ")
    return "".join(kept).replace(" ", "-")


def field_table(
    schema: Schema, whole: Schema, texts: Mapping[str, str], titles: Mapping[str, str] = NO_TITLES
) -> str:
    """One object of a JSON schema. `titles`: of the sections of objects whose name is not their title."""
    required = set(schema.get("required", ()))
    rows = []
    for field, of in schema.get("properties", {}).items():
        default = "required" if field in required else _default(of)
        text = texts.get(field) or of.get("description", "")
        rows.append((code(field), type_of(of, whole, titles), default, cell(text)))
    return table(("field", "type", "default", "meaning"), rows) if rows else ""


def type_of(of: Schema, whole: Schema, titles: Mapping[str, str] = NO_TITLES) -> str:
    """A type in words, with a link where it is an object that has a table of its own."""
    if "$ref" in of:
        name = of["$ref"].rpartition("/")[2]
        other = _definitions(whole).get(name, {})
        if "properties" in other or other.get("type") == "object":
            return f"[{name}](#{anchor(titles.get(name, name))})"
        return type_of(other, whole, titles)
    if "const" in of:
        return code(json.dumps(of["const"]))
    if "enum" in of:
        return ", ".join(code(str(value)) for value in of["enum"])
    for several in ("anyOf", "oneOf", "allOf"):
        if several in of:
            named = dict.fromkeys(type_of(one, whole, titles) for one in of[several])
            return " or ".join(one for one in named if one != "nothing") or "anything"
    match of.get("type"):
        case "null":
            return "nothing"
        case "array" if "prefixItems" in of:
            return "list of " + ", ".join(type_of(one, whole, titles) for one in of["prefixItems"])
        case "array":
            least = f", at least {of['minItems']}" if of.get("minItems") else ""
            most = f", at most {of['maxItems']}" if of.get("maxItems") else ""
            return f"list of {type_of(of.get('items', {}), whole, titles)}{least}{most}"
        case "object" if isinstance(of.get("additionalProperties"), Mapping):
            return f"mapping to {type_of(of['additionalProperties'], whole, titles)}"
        case "object":
            return "mapping"
        case "integer":
            return "whole number" + _limits(of)
        case "number":
            return "number" + _limits(of)
        case "boolean":
            return "true or false"
        case "string":
            form = of.get("format", "")
            named = {"date-time": "time (RFC 3339)", "path": "path", "duration": "duration"}.get(form, "text")
            return named + (f" like {code(of['pattern'])}" if "pattern" in of else "")
    return "anything"


def _limits(of: Schema) -> str:
    told = [f"{sign} {of[name]:,}" for name, sign in LIMITS.items() if name in of]
    return f" {' and '.join(told)}" if told else ""


def _default(of: Schema) -> str:
    value = of.get("default")
    if value in (None, "", [], {}) and not isinstance(value, bool):
        return "none"
    if isinstance(value, Mapping):
        return "its defaults"
    return code(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def _definitions(whole: Schema) -> Schema:
    found: Schema = whole.get("$defs") or whole.get("components", {}).get("schemas", {})
    return found
