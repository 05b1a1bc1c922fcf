"""`docs/reference/refusals.md`: every rule that refuses, with its words, found in the source itself.

Found is each place that makes a `Refusal`, and each call of a function that makes one of the rule that it is
given. What a sentence is filled in with stands as its name, in braces.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from .markdown import cell, table

PROJECT = Path(__file__).parents[2]
PLACES = ("src/qnwis", "workflows", "activities", "workers")


class Found(NamedTuple):
    rule: str
    """Empty where the name is made from a value."""
    message: str
    remedy: str
    where: Path
    line: int


def refusals() -> list[Found]:
    """By rule; one that is made at several places stands once for each."""
    return sorted(
        (found for path in _sources() for found in _in_module(path)), key=lambda f: (f.rule, f.where, f.line)
    )


def refusals_page() -> str:
    found = refusals()
    named = [one for one in found if one.rule]
    made = {one.where for one in found if not one.rule}
    rows = [(f"[`{o.rule}`](../../{o.where})", cell(o.message), cell(o.remedy)) for o in named]
    return "".join(
        [
            "# Refusals\n\n",
            "A refusal names its rule, says in a sentence what was compared, and says what would change the"
            " answer. A command prints `Refused [rule]: sentence`, the values and the remedy, and exits with"
            " 3; the API answers with the same as a problem. Nothing was changed. A rule is linked to where"
            " it is decided. What stands in braces is filled in; `…` is a longer expression.\n\n",
            f"{len({one.rule for one in named})} rules:\n\n",
            table(("rule", "what it says", "remedy"), rows),
            "Here a rule's name is made from a value, for example from that of a package that is missing: ",
            ", ".join(f"[`{where.name}`](../../{where})" for where in sorted(made)),
            ".\n",
        ]
    )


def _sources() -> list[Path]:
    return [path for place in PLACES for path in sorted((PROJECT / place).rglob("*.py"))]


def _in_module(path: Path) -> Iterator[Found]:
    where, tree = path.relative_to(PROJECT), ast.parse(path.read_text())
    makers: dict[str, tuple[list[str], ast.Call]] = {}
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            names = [one.arg for one in (*function.args.args, *function.args.kwonlyargs)]
            for call in _calls(function, "Refusal"):
                rule = _keywords(call).get("rule")
                if isinstance(rule, ast.Name) and rule.id in names:
                    makers[function.name] = (names, call)
    given = {id(call) for _, call in makers.values()}
    for call in _calls(tree, "Refusal"):
        if id(call) not in given:
            yield from _made(_keywords(call), {}, where, call.lineno)
    for name, (parameters, made) in makers.items():
        for call in _calls(tree, name):
            values = {**dict(zip(parameters, call.args, strict=False)), **_keywords(call)}
            yield from _made(_keywords(made), values, where, call.lineno)


def _made(
    fields: dict[str, ast.expr], values: dict[str, ast.expr], where: Path, line: int
) -> Iterator[Found]:
    message, remedy = (_text(fields.get(name), values) for name in ("message", "remedy"))
    for rule in _names(fields.get("rule"), values, where):
        yield Found(rule, message, remedy, where, line)


def _names(rule: ast.expr | None, values: dict[str, ast.expr], where: Path) -> list[str]:
    match rule:
        case ast.Constant(value=str(name)):
            return [name]
        case ast.Name(id=name) if name in values:
            return _names(values[name], {}, where)
        case ast.IfExp(body=one, orelse=other):
            return [*_names(one, values, where), *_names(other, values, where)]
        case ast.Name() | ast.Attribute():
            name = _constant(ast.unparse(rule).split("."), where)
            return [""] if name is None else [name]
    return [""]


def _constant(names: list[str], where: Path) -> str | None:
    """What a constant of the module is."""
    parts = where.with_suffix("").parts
    found = import_module(".".join(parts[1:] if parts[0] == "src" else parts))
    for name in names:
        found = getattr(found, name, None)  # type: ignore[assignment]
    return found if isinstance(found, str) else None


def _text(value: ast.expr | None, values: dict[str, ast.expr]) -> str:
    match value:
        case None:
            return ""
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(_text(part, values) for part in parts)
        case ast.FormattedValue(value=inner):
            return (
                _text(inner, values) if isinstance(inner, ast.Name) and inner.id in values else _filled(inner)
            )
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _text(left, values) + _text(right, values)
        case ast.Name(id=name) if name in values:
            return _text(values[name], {})
    return _filled(value)


def _filled(value: ast.expr) -> str:
    return f"{{{ast.unparse(value)}}}" if isinstance(value, ast.Name | ast.Attribute) else "…"


def _calls(tree: ast.AST, name: str) -> Iterator[ast.Call]:
    for one in ast.walk(tree):
        if isinstance(one, ast.Call) and isinstance(one.func, ast.Name) and one.func.id == name:
            yield one


def _keywords(call: ast.Call) -> dict[str, ast.expr]:
    return {one.arg: one.value for one in call.keywords if one.arg is not None}
