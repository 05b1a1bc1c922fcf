"""What pages tell people to type: found in the text, and held against the program."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import Any, NamedTuple

import click
import typer

from qnwis.cli.qnwis_continuity import app

from .commands import PROGRAM

FENCED = re.compile(r"^( *)```(\w*)\n(.*?)^\1```", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"`([^`]+)`")
CALL = re.compile(rf"(?<![\w-])(?:{PROGRAM}|python -m qnwis.cli.qnwis_continuity) +(?P<words>[a-z][^`]*)")
BEFORE = re.compile(r"\s*(\$ +)?(\w+=\S+ +)*")
LEFT_OUT = "…"
"""On a page: and so on."""
ENDS = ("|", "||", "&&", "&", ";", ">", ">>", "2>&1")


class Block(NamedTuple):
    language: str
    text: str


def blocks(page: str) -> Iterator[Block]:
    for found in FENCED.finditer(page):
        yield Block(found[2], found[3])


class Typed(NamedTuple):
    words: str
    """Behind the program's name."""
    whole: bool
    """It is there to be typed as it stands; not as a part of something else, and not named in a sentence."""


def commands_on(page: str) -> list[Typed]:
    """Each line of a fenced block, and each piece of code in the text, that calls the program."""
    found = [_typed(line) for block in blocks(page) for line in lines_of(block)]
    said = [_typed(code) for code in INLINE.findall(FENCED.sub("", page))]
    found += [one and one._replace(whole=False) for one in said]
    return [one for one in found if one is not None]


def lines_of(block: Block) -> list[str]:
    """With a line that goes on in the next one as one."""
    return re.sub(r"\\\n\s*", " ", block.text).splitlines()


def _typed(line: str) -> Typed | None:
    found = CALL.search(line)
    return (
        None if found is None else Typed(found["words"], BEFORE.fullmatch(line[: found.start()]) is not None)
    )


def make_targets_on(page: str) -> set[str]:
    lines = [line for block in blocks(page) for line in lines_of(block)]
    lines += INLINE.findall(FENCED.sub("", page))
    return {found[1] for one in lines if (found := re.match(r"(?:\$ +)?make +([a-z-]+)\b", one.strip()))}


def wrong_with(typed: Typed) -> str | None:
    """Why the program would not take this, or None."""
    words = _words(typed.words)
    known, of, name = {}, typer.main.get_command(app), PROGRAM
    while True:
        known |= {option: one for one in of.params for option in (*one.opts, *one.secondary_opts)}
        if not hasattr(of, "list_commands") or not words or words[0].startswith("-"):
            break
        names = words[0].split("|")
        found = [of.get_command(click.Context(of), one) for one in names]
        if None in found:
            if "of" in of.list_commands(click.Context(of)):  # `report RUN` is `report of RUN`
                words = ["of", *words]
                continue
            return f"{name} has no command {names[found.index(None)]}"
        if len(found) > 1:
            return None  # a list of commands that are there
        of, name, words = found[0], f"{name} {words[0]}", words[1:]
    return _wrong_words(of, known, words, name, whole=typed.whole)


def _words(text: str) -> list[str]:
    text = re.sub(r"\)\"?$", "", text)  # of $(…), in which it stands
    words = shlex.split(text, comments=True)
    end = next((number for number, word in enumerate(words) if word in ENDS), len(words))
    last = next((number for number, word in enumerate(words[:end]) if word.endswith(";")), end)
    return [word.rstrip(";,") for word in words[: min(end, last + 1)]]


def _wrong_words(of: Any, known: dict[str, Any], words: list[str], name: str, *, whole: bool) -> str | None:
    given, arguments = set(), []
    left_out = any(word.endswith(LEFT_OUT) for word in words)
    waiting = [word for word in words if word != LEFT_OUT]
    while waiting:
        word = waiting.pop(0)
        if not word.startswith("-") or word == "-":
            arguments.append(word)
            continue
        option, sign, _ = word.partition("=")
        if option not in known and option != "--help":
            return f"{name} has no option {option}"
        given.add(option)
        needs_value = option in known and not known[option].is_flag and not sign
        if needs_value and not waiting and not left_out and words[-1] == word:
            return f"{name} {option} needs a value"
        if needs_value and waiting:
            waiting.pop(0)
    takes = [one for one in of.params if one.param_type_name == "argument"]
    most = sum(100 if one.nargs == -1 else 1 for one in takes)
    if len(arguments) > most:
        return f"{name} takes {most} arguments, not {arguments}"
    if left_out or not whole:
        return None
    if len(arguments) < sum(one.required for one in takes):
        return f"{name} needs {[one.name for one in takes if one.required]}"
    options = (
        one for one in of.params if one.param_type_name == "option" and one.required and not one.envvar
    )
    missing = [one.opts[0] for one in options if not given & set(one.opts)]
    return f"{name} needs {', '.join(missing)}" if missing else None
