"""What the commands share by which a person says something: who it is, how it is proved, sent and printed."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from .output import AsJson
from .settings import Address
from .signing import By, KeyFile, Me, Print, me


@dataclass(frozen=True)
class Speaker:
    """A person at the command line."""

    by: str
    key: Path | None
    only_print: bool
    """Print what would be sent, for the Temporal UI's form."""
    address: str | None
    as_json: bool

    @cached_property
    def me(self) -> Me:
        """Ends the command when a key is named and cannot be used."""
        return me(self.key, self.by)

    @property
    def name(self) -> str:
        return self.me.name


OPTIONS = [
    inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
    for name, default, kind in (
        ("by", "", By),
        ("key", None, KeyFile),
        ("only_print", False, Print),
        ("address", None, Address),
        ("as_json", False, AsJson),
    )
]


def spoken(command: Callable[..., None]) -> Callable[..., None]:
    """Give the command these options; it takes them together, as its parameter `speaker`."""
    own = inspect.signature(command, eval_str=True)

    @functools.wraps(command)
    def with_options(**typed: Any) -> None:
        speaker = Speaker(**{option.name: typed.pop(option.name) for option in OPTIONS})
        command(speaker=speaker, **typed)

    kept = [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for name, parameter in own.parameters.items()
        if name != "speaker"
    ]
    with_options.__signature__ = own.replace(parameters=[*kept, *OPTIONS])  # type: ignore[attr-defined]
    with_options.__annotations__ = {}  # the signature has them
    return with_options
