"""The tutorial, typed: every command of `docs/tutorial.md`, in its order, in one shell, on a real lab.

Beside what the page says, the test names a lab of its own (`--directory`), so that it never meets somebody's.
"""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from qnwis.lab.processes import import_path
from qnwis.lab.temporal_server import ADDRESS_VARIABLE
from tests.documents.typed import blocks, lines_of

from .real import lab_directory, left_behind

PROJECT = Path(__file__).parents[3]
PAGE = (PROJECT / "docs" / "tutorial.md").read_text()
COMMANDS = [
    line.removeprefix("$ ")
    for block in blocks(PAGE)
    if block.language == "console"
    for line in lines_of(block)
]
END = "=== typed"
SHELL = """
qnwis-continuity() {{
  case "$1" in lab) set -- "$@" --directory {root};; esac
  {python} -m qnwis.cli.qnwis_continuity "$@"
}}
# What make would run, but with the program as it is here.
make() {{
  eval "$(command make --no-print-directory -s -n -C {project} "$@" | tail -1 | sed 's|^.*/bin/||')"
}}
"""
PAUSE_S = 0.5


@pytest.fixture
def root(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.delenv(ADDRESS_VARIABLE, raising=False)
    with lab_directory() as root:
        yield root


class Shell:
    """A person's terminal."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def opened(cls, root: Path, cwd: Path) -> Shell:
        process = await asyncio.create_subprocess_exec(
            "bash",
            cwd=cwd,
            env={**os.environ, **import_path(), "NO_COLOR": "1", "COLUMNS": "200"},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        shell = cls(process)
        words = {"root": root, "python": shlex.quote(sys.executable), "project": shlex.quote(str(PROJECT))}
        await shell.types(SHELL.format(**words))
        return shell

    async def types(self, line: str) -> tuple[int, str]:
        """Its exit code, and what is read on the terminal until it has ended."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f'{{\n{line}\n}} </dev/null\necho "{END} $?"\n'.encode())
        read = ""
        while (found := re.search(rf"^{END} (\d+)\n", read, flags=re.MULTILINE)) is None:
            more = (await self._process.stdout.readline()).decode()
            assert more, f"the shell has ended at {line!r}: {read}"
            read += more
        return int(found[1]), read[: found.start()]

    async def closes(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._process.wait()


SAYS = {
    "make demo": "verified, no acknowledged writes lost",
    "qnwis-continuity status": "primary node-2",
    "qnwis-continuity audit": "failover_execute",
    "qnwis-continuity audit verify": "the chain is unbroken",
    "qnwis-continuity report": "report.html",
    "qnwis-continuity lab restore": "node-1: started",
    "qnwis-continuity rejoin": "node-1 was rewound and streams from node-2",
    "qnwis-continuity readiness": "warning",
    "cat maintenance.txt": "completed: all 9 actions of the plan are done",
    "qnwis-continuity lab stop": "is stopped",
}
"""By the beginning of a command, the longest that fits, what it has to say."""


@pytest.mark.timeout(400)
async def test_every_command_of_the_tutorial_does_what_the_page_says(root: Path, tmp_path: Path) -> None:
    shell, seen = await Shell.opened(root, tmp_path), {}
    try:
        for line in COMMANDS:
            seen[line] = code, said = await typed(shell, line)
            expected = 3 if "bob.pem" in line else 0
            assert code == expected, f"{line}\n{said}"
            begins = [begin for begin in SAYS if line.startswith(begin)]
            assert not begins or SAYS[max(begins, key=len)] in said, f"{line}\n{said}"
    finally:
        await shell.closes()
    demo, votes = seen[COMMANDS[0]][1], [said for line, (_, said) in seen.items() if " approve " in line]
    assert "node-1 → node-2" in demo and re.search(r"acknowledged writes +\d{2,}, lost 0", demo)
    assert "[initiator_excluded]" in votes[0] and "ann's vote is counted" in votes[1]
    assert "<html" in (tmp_path / "report.html").read_text() and left_behind(root) == []


async def typed(shell: Shell, line: str) -> tuple[int, str]:
    """A person who approves has seen that something waits."""
    while True:
        code, said = await shell.types(line)
        if " approve " not in line or not re.search(r"\[(no_run|no_window)\]|does not answer", said):
            return code, said
        await asyncio.sleep(PAUSE_S)


def test_the_tutorial_begins_with_the_demonstration_as_make_runs_it() -> None:
    told = subprocess.run(
        ["make", "-s", "-n", *shlex.split(COMMANDS[0])[1:]], cwd=PROJECT, capture_output=True, text=True
    )
    assert told.stdout.splitlines()[-1] == ".venv/bin/qnwis-continuity lab demo --keep"
