"""Same seed, same bytes: plans and simulations, in processes of their own, whatever the hash seed, and under
the other interpreters that are here."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from .found import Found, Measured, found

NAME = "determinism"
HOLDS = (
    "the same seed gives the same plan and the same simulations, byte by byte, in every process and"
    " interpreter"
)
HASH_SEEDS = ("0", "1", "4711")
NAMES = ("python3.11", "python3.12", "python3.13", "python3.14", "python3.15", "pypy3")
MODULE = "qnwis.scripts.qa.rg8.same_bytes"

Ask = Callable[[str, str], str]
"""(interpreter, hash seed): what it printed. Raises CannotRun."""


class CannotRun(Exception):
    """That interpreter cannot run the project."""


def check(interpreters: Sequence[str] | None = None, ask: Ask | None = None) -> Found:
    """`interpreters`: others than this one; by default those on PATH."""
    ask = ask or run
    others = list(interpreters) if interpreters is not None else others_here()
    misses, notes = [], []
    try:
        first = parts(ask(sys.executable, HASH_SEEDS[0]))
    except CannotRun as error:
        return found(NAME, HOLDS, [f"this interpreter cannot run {MODULE}: {error}"])
    compared = 1
    for hash_seed in HASH_SEEDS[1:]:
        misses += different(first, parts(ask(sys.executable, hash_seed)), f"PYTHONHASHSEED={hash_seed}")
        compared += 1
    for other in others:
        try:
            misses += different(first, parts(ask(other, HASH_SEEDS[0])), other)
            compared += 1
        except CannotRun as error:
            notes.append(f"{other} is here and cannot run the project, so it was not compared: {error}")
    if not others:
        notes.append("no other interpreter is here; name one with --interpreter")
    measured = [
        Measured(what="processes compared", value=compared),
        Measured(what="texts compared in each", value=len(first)),
    ]
    return found(NAME, HOLDS, misses, measured, notes)


def different(first: dict[str, str], other: dict[str, str], where: str) -> list[str]:
    """Of what both have: an interpreter may lack an extra."""
    return [
        f"{name} has the digest {other[name][:12]}… under {where}, expected {digest[:12]}…"
        for name, digest in first.items()
        if name in other and other[name] != digest
    ]


def parts(printed: str) -> dict[str, str]:
    return dict(line.split(" ", 1) for line in printed.splitlines())


def others_here() -> list[str]:
    """The other interpreters on PATH, by name: a summary tells nothing of where a machine keeps them."""
    here = Path(sys.executable).resolve()
    places = {name: shutil.which(name) for name in NAMES}
    return [
        name
        for name, place in places.items()
        if place is not None
        and Path(place).resolve() != here
        and name != f"python{sys.version_info.major}.{sys.version_info.minor}"
        and _runs(place)
    ]


def _runs(interpreter: str) -> bool:
    """A name on PATH may be that of a chooser, which has no such interpreter to choose."""
    return subprocess.run([interpreter, "-c", ""], capture_output=True).returncode == 0


def run(interpreter: str, hash_seed: str) -> str:
    source = str(Path(__file__).resolve().parents[4])
    environment = {
        **{name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        "PYTHONPATH": source,
        "PYTHONHASHSEED": hash_seed,
    }
    try:
        ran = subprocess.run(
            [interpreter, "-m", MODULE], env=environment, capture_output=True, text=True, timeout=300
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CannotRun(str(error)) from error
    if ran.returncode != 0:
        lines = ran.stderr.strip().splitlines() or [f"it ended with {ran.returncode}"]
        # A traceback says why at its end; other programs begin with it.
        raise CannotRun(lines[-1] if lines[0].startswith("Traceback") else lines[0])
    return ran.stdout
