"""Same seed, same bytes: plans and simulations, in processes of their own, whatever the hash seed, and under
the other interpreters that are here.

Those are looked for on PATH and among pyenv's. One that has not what the project needs cannot be compared:
`make interpreters` makes an environment with that for each.

    python -m qnwis.scripts.qa.rg8.determinism    # prints where they are
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from .found import Found, Measured, NotHere, found, repository

NAME = "determinism"
HOLDS = (
    "the same seed gives the same plan and the same simulations, byte by byte, in every process and"
    " interpreter"
)
HASH_SEEDS = ("0", "1", "4711")
VERSIONS = ("3.11", "3.12", "3.13", "3.14", "3.15")
MODULE = "qnwis.scripts.qa.rg8.same_bytes"

Ask = Callable[[str, str], str]
"""(interpreter, hash seed): what it printed. Raises CannotRun."""


class CannotRun(Exception):
    """That interpreter cannot run the project."""


def check(interpreters: Mapping[str, str] | None = None, ask: Ask | None = None) -> Found:
    """`interpreters`: others than this one, and where they are; by default those that are here."""
    ask = ask or run
    others = interpreters if interpreters is not None else others_here()
    misses, notes = [], []
    try:
        first = parts(ask(sys.executable, HASH_SEEDS[0]))
    except CannotRun as error:
        return found(NAME, HOLDS, [f"this interpreter cannot run {MODULE}: {error}"])
    compared = 1
    for hash_seed in HASH_SEEDS[1:]:
        misses += different(first, parts(ask(sys.executable, hash_seed)), f"PYTHONHASHSEED={hash_seed}")
        compared += 1
    for other, place in others.items():
        try:
            printed = parts(ask(place, HASH_SEEDS[0]))
        except CannotRun as error:
            notes.append(f"{other} is here and cannot run the project, so it was not compared: {error}")
            continue
        misses += different(first, printed, other)
        compared += 1
        notes.append(f"{other} was compared")
        if lacking := first.keys() - printed.keys():
            notes.append(f"{other} has not what {', '.join(sorted(lacking))} takes")
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


def others_here() -> dict[str, str]:
    """Where the other interpreters are, by name. An environment that `make interpreters` made goes first."""
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    found_here = {}
    for version in VERSIONS:
        for place in (*_environments(version), *_installed(version)) if version != own else ():
            if _runs(place):
                found_here[f"python{version}"] = place
                break
    return found_here


def _environments(version: str) -> list[str]:
    try:
        return [str(repository() / f".venv-{version}" / "bin" / "python")]
    except NotHere:
        return []


def _installed(version: str) -> list[str]:
    """On PATH, and in pyenv's folder, whose newest goes first."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    newest = sorted(pyenv.glob(f"{version}.*"), key=lambda place: (len(place.name), place.name), reverse=True)
    on_path = shutil.which(f"python{version}")
    return [*([on_path] if on_path else []), *(str(place / "bin" / "python") for place in newest)]


def _runs(interpreter: str) -> bool:
    """A name on PATH may be that of a chooser, which has no such interpreter to choose."""
    try:
        return subprocess.run([interpreter, "-c", ""], capture_output=True).returncode == 0
    except OSError:
        return False


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


if __name__ == "__main__":
    for where in others_here().values():
        print(where)
