"""The command `qnwis-continuity`, also `python -m qnwis.cli.qnwis_continuity`.

Exit codes: 0 done (for a failover: verified); 1 it ran and did not achieve what it was for; 2 wrong usage or
a file that cannot be used; 3 refused by a rule, nothing changed; 4 nobody answered; 130 interrupted.
"""

from __future__ import annotations

import logging
import os
import sys
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup
from typer.main import get_command, get_group

COMMANDS = {
    "plan": "plan:plan",
    "simulate": "simulate:simulate",
    "execute": "execute:execute",
    "approve": "approving:approve",
    "reject": "approving:reject",
    "abort": "steering:abort",
    "skip": "steering:skip",
    "finish": "ending:finish",
    "status": "status:status",
    "rejoin": "rejoin:rejoin",
    "validate": "validate:validate",
    "worker": "processes:worker",
    "agent": "processes:agent",
    "builds": "builds:app",
    "api": "api:app",
    "tokens": "tokens:app",
    "access": "access:app",
    "audit": "audit:app",
    "codec-server": "codec_server:codec_server",
    "break-glass": "break_glass:app",
    "conflicts": "conflicts:app",
    "guardian": "guardian:app",
    "maintenance": "maintenance:app",
    "member": "member:app",
    "notify": "notify:app",
    "people": "people:app",
    "pki": "pki:app",
    "readiness": "readiness:app",
    "report": "report:app",
    "region": "region:app",
    "review": "review:app",
    "run": "steering:app",
    "lab": "lab:app",
}
"""Module of this package and what in it: a function, or the application of a command with commands."""


class Commands(TyperGroup):
    """Loads a command's module when that command is asked for: who types one does not wait for all."""

    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]
        return list(COMMANDS)

    def get_command(self, ctx: typer.Context, cmd_name: str) -> Any:  # type: ignore[override]
        # What is misspelled may be meant for any of them.
        for name in (cmd_name,) if cmd_name in COMMANDS else COMMANDS:
            if name not in self.commands:
                self.commands[name] = _loaded(name)
        return self.commands.get(cmd_name)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except ValueError as error:
            # Loaded only here: whoever types a command right does not wait for it.
            from .output import Exit, fail
            from .typed import not_usable

            if (told := not_usable(error)) is None:
                raise
            fail(Exit.USAGE, told)


def _loaded(name: str) -> Any:
    module, _, attribute = COMMANDS[name].partition(":")
    found = getattr(import_module(f".{module}", __package__), attribute)
    if isinstance(found, typer.Typer):
        group = get_group(found)
        group.name = name
        return group
    alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    alone.command(name)(found)
    return get_command(alone)


app = typer.Typer(
    cls=Commands,
    name="qnwis-continuity",
    help="Failover runbooks as durable Temporal workflows.\n\n" + (__doc__ or "").partition("\n\n")[2],
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


@app.callback()
def _root() -> None:
    """Without it Typer takes an application that has loaded no command for an empty one."""


def main() -> None:
    """Ends without Python's own clean-up: a thread of Temporal's client that still runs would abort that, and
    the exit code would be lost."""
    code = 0
    try:
        app()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
