"""`docs/reference/commands.md`: every command with its arguments and options, read off the program itself."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any, get_args

import click
import typer

from qnwis.cli.output import Exit
from qnwis.cli.qnwis_continuity import app

from .markdown import cell, code, paragraphs, table

PROGRAM = "qnwis-continuity"
EXIT_CODES = {
    Exit.OK: "done; of a failover: verified",
    Exit.NOT_DONE: "it ran and did not achieve what it was for",
    Exit.USAGE: "wrong usage, or a file that cannot be used",
    Exit.REFUSED: "a rule said no; nothing was changed",
    Exit.UNREACHABLE: "nobody answered: no Temporal server, no agent, no DNS server, no store",
    Exit.INTERRUPTED: "interrupted",
}


def commands(group: Any = None, before: str = "") -> Iterator[tuple[str, Any]]:
    """Every command that does something, by its name."""
    group = typer.main.get_command(app) if group is None else group
    for name in group.list_commands(click.Context(group)):
        found = group.get_command(click.Context(group), name)
        if hasattr(found, "list_commands"):
            if found.invoke_without_command:
                yield f"{before}{name}", found
            yield from commands(found, f"{before}{name} ")
        else:
            yield f"{before}{name}", found


def commands_page() -> str:
    found = list(commands())
    parts = [
        "# Commands\n\n",
        f"`{PROGRAM} COMMAND`, the same as `python -m qnwis.cli.qnwis_continuity COMMAND`. "
        "`--help` after any command prints what is written here.\n\n",
        "## Exit codes\n\n",
        table(("code", "means"), ((str(code.value), cell(text)) for code, text in EXIT_CODES.items())),
        "## All\n\n",
        table(
            ("command", "what it does"),
            (
                (f"[`{name}`](#{name.replace(' ', '-')})", cell((command.help or "").split("\n\n")[0]))
                for name, command in found
            ),
        ),
    ]
    for name, command in found:
        parts += [f"## {name}\n\n", paragraphs(inspect.cleandoc(command.help or "")), _usage(name, command)]
        parts.append(_parameters(command))
    return "".join(parts)


def _usage(name: str, command: Any) -> str:
    words = [PROGRAM, name]
    for one in command.params:
        if one.param_type_name == "argument":
            words.append(_argument(one))
        elif one.required:
            words.append(f"{one.opts[0]} {_type(one).upper()}")
    optional = any(one.param_type_name == "option" and not one.required for one in command.params)
    return "```text\n" + " ".join([*words, *["[OPTIONS]"] * optional]) + "\n```\n\n"


def _argument(one: Any) -> str:
    name = (one.metavar or one.name).upper()
    return (name if one.required else f"[{name}]") + ("…" if one.nargs == -1 else "")


def _parameters(command: Any) -> str:
    rows = []
    for one in command.params:
        option = one.param_type_name == "option"
        names = (
            ", ".join(code(name) for name in (*one.opts, *one.secondary_opts))
            if option
            else code(_argument(one))
        )
        rows.append((names, cell(_type(one)), _default(one), _variable(one), cell(one.help or "")))
    return table(("argument or option", "type", "default", "environment", "meaning"), rows) if rows else ""


def _type(one: Any) -> str:
    annotation = one.type_descriptor.annotation
    inner = get_args(annotation)[0] if get_args(annotation) else annotation
    if getattr(one, "is_flag", False):
        return "flag"
    if issubclass(inner, Enum):
        name = " or ".join(f"`{choice.value}`" for choice in inner)
    else:
        name = {Path: "path", str: "text", int: "number", float: "decimal"}.get(inner, inner.__name__)
    name = f"{name} from {one.min}" if one.min is not None else name
    return f"{name}, several" if inner is not annotation else name


def _default(one: Any) -> str:
    value = one.default
    if one.required:
        return "required"
    if callable(value) or value in (None, "", (), []) or getattr(one, "is_flag", False):
        return ""
    value = value.value if isinstance(value, Enum) else value
    return code(str(value))


def _variable(one: Any) -> str:
    variable = getattr(one, "envvar", None)
    return code(variable if isinstance(variable, str) else ", ".join(variable)) if variable else ""
