"""What every command shares: the consoles, JSON out, and how a failure becomes one clear line and a code."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from enum import IntEnum
from typing import Annotated, Any, NoReturn

import typer
from pydantic import BaseModel
from rich.console import Console
from rich.text import Text
from temporalio.client import WorkflowQueryFailedError
from temporalio.service import RPCError

from qnwis.config.problem import ConfigError
from qnwis.continuity.managers import agents_only_refusal
from qnwis.continuity.plain_text import harmless_json, one_line
from qnwis.continuity.refusal import Refusal
from qnwis.continuity.topology import Cluster
from qnwis.providers.errors import Refused, Unreachable
from qnwis.providers.key_store import KeyStoreError
from qnwis.temporal import NoServer, UnusableSettings
from qnwis.tls.files import TlsError


class Terminal(Console):
    """Most of what is shown somebody else wrote: a reason, a name, an answer of a server. Each string is one
    line or one cell, in which nothing is read as markup or reaches the terminal as a command to it."""

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, highlight=False, soft_wrap=True, markup=False, emoji=False)

    def lines(self, text: str) -> None:
        """A text that has lines of its own."""
        for line in text.rstrip("\n").split("\n"):
            self.print(line)

    def render_str(self, text: str, **how: Any) -> Text:
        return super().render_str(one_line(text), **how)


out = Terminal()
err = Terminal(stderr=True)


class Exit(IntEnum):
    """Exit codes of every command."""

    OK = 0  # done; for a failover: verified
    NOT_DONE = 1  # it ran and did not achieve what it was for (not verified, rolled back, chain broken)
    USAGE = 2  # wrong usage, or a file that cannot be used
    REFUSED = 3  # a rule said no; nothing was changed
    UNREACHABLE = 4  # no Temporal server, agent, DNS server or store answered
    INTERRUPTED = 130  # Ctrl-C


AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]


def print_json(value: BaseModel | Mapping[str, Any]) -> None:
    """One JSON document on standard output."""
    data = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
    print(harmless_json(json.dumps(data, indent=2, ensure_ascii=False)))


def styled(text: str, style: str) -> Text:
    """A part of a line, or a cell, in a style of its own."""
    return Text(one_line(text), style)


def fail(code: Exit, message: str) -> NoReturn:
    """End the command with one message on standard error; it may have several lines."""
    err.lines(message)
    raise typer.Exit(code)


def refuse(refusal: Refusal, *, as_json: bool) -> NoReturn:
    """End the command with a refusal: the rule, its values and what would change it."""
    if as_json:
        print_json({"refusal": refusal.model_dump(mode="json")})
    else:
        err.print(f"Refused [{refusal.rule}]: {refusal.message}", markup=False)
        for name, value in refusal.values.items():
            err.print(f"  {name} = {json.dumps(value)}", markup=False)
        err.print(f"  → {refusal.remedy}", markup=False)
    raise typer.Exit(Exit.REFUSED)


def refuse_without_agents(cluster: Cluster, what: str, *, as_json: bool) -> None:
    """End a command that speaks to agents where the nodes have none."""
    if (refusal := agents_only_refusal(cluster, what)) is not None:
        refuse(refusal, as_json=as_json)


@contextlib.contextmanager
def clear_errors(*, as_json: bool = False) -> Iterator[None]:
    """Turn the failures that are expected in life into one clear message and their exit code."""
    try:
        yield
    except (ConfigError, KeyStoreError, TlsError, UnusableSettings) as error:
        fail(Exit.USAGE, str(error))
    except Refused as refused:
        refuse(refused.refusal, as_json=as_json)
    except (NoServer, Unreachable) as error:
        fail(Exit.UNREACHABLE, str(error))
    except RPCError as error:
        fail(Exit.UNREACHABLE, f"the Temporal server does not answer as expected: {error.message}")
    except WorkflowQueryFailedError as error:
        fail(Exit.UNREACHABLE, f"the workflow does not answer as expected: {error.message}")
