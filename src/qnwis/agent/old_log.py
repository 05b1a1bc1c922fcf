"""The log of a database that is down, read with pg_waldump. What it lacks, the archive may have."""

from __future__ import annotations

import asyncio
import gzip
import re
import subprocess
from pathlib import Path

from qnwis.continuity.discarded import Found, LogReader
from qnwis.continuity.timelines import Stretch, lsn_text

from .archive import Archive
from .effects import EffectError
from .files import as_user
from .postgres import Postgres

RESTORED_AT_MOST = 64
"""Files before the part that is looked for: a transaction that began longer ago is not found."""

_SEGMENT = re.compile(r"^[0-9A-F]{24}$")
# What pg_waldump says where the log simply ends.
_ENDS = re.compile(r"error in WAL record at|could not find a valid record after")
_NO_FILE = re.compile(r'could not (?:find|open) file "(?:pg_wal/)?([0-9A-F]{24})"')


class Segments:
    """The files of the log, by timeline and number. PostgreSQL makes files ahead: one that it has not written
    yet is none of them."""

    def __init__(self, postgres: Postgres, size: int) -> None:
        """`size`: of each, in bytes."""
        self.folder = postgres.data_dir / "pg_wal"
        self.size = size
        names = [
            path.name for path in self.folder.iterdir() if _SEGMENT.match(path.name) and _is_written(path)
        ]
        self.timeline = max((int(name[:8], 16) for name in names), default=0)
        """The newest; 0 where there is none."""
        self._there = set(names)

    def history(self, timeline: int) -> str:
        """The history file; empty for the first timeline, which has none. Raises EffectError."""
        path = self.folder / f"{timeline:08X}.history"
        if path.exists():
            return path.read_text()
        if timeline == 1:
            return ""
        raise EffectError(f"the history of timeline {timeline} is not in {self.folder}")

    def path(self, timeline: int, number: int) -> Path:
        per_file = (1 << 32) // self.size
        return self.folder / f"{timeline:08X}{number // per_file:08X}{number % per_file:08X}"

    async def restore_one_before(self, archive: Archive, timeline: int, lsn: int) -> bool:
        """Have the archive bring the file before the one that begins at `lsn`."""
        number = lsn // self.size
        if number == 0 or not await archive.restore(name := self.path(timeline, number - 1).name):
            return False
        self._there.add(name)
        return True

    def oldest_before(self, timeline: int, lsn: int) -> int:
        """The first of the files that lead without a gap to the one that holds `lsn`: its start."""
        number = lsn // self.size
        while number > 0 and self.path(timeline, number - 1).name in self._there:
            number -= 1
        return number * self.size

    def ends_before(self, name: str) -> bool:
        """Whether the log's files end without a gap right before the one of this name."""
        timeline = name[:8]
        later = {one for one in self._there if one[:8] == timeline and one >= name}
        earlier = {one for one in self._there if one[:8] == timeline and one < name}
        number = int(name[8:16], 16) * ((1 << 32) // self.size) + int(name[16:], 16)
        return not later and number > 0 and self.path(int(timeline, 16), number - 1).name in earlier

    def outermost(self, stretch: Stretch, start: int) -> list[str]:
        """Names of the first and the last file of that part of the stretch, where both are there."""
        number = start // self.size
        if stretch.to_lsn is not None:
            last = self.path(stretch.timeline, max(number, (stretch.to_lsn - 1) // self.size)).name
        else:
            last = max((one for one in self._there if int(one[:8], 16) == stretch.timeline), default="")
        names = [self.path(stretch.timeline, number).name, last]
        return names if self._there.issuperset(names) else []

    def holding(self, stretch: Stretch) -> list[Path]:
        """Those of a stretch, as far as there are any."""
        number, found = stretch.from_lsn // self.size, []
        while (path := self.path(stretch.timeline, number)).name in self._there:
            if stretch.to_lsn is not None and number * self.size >= stretch.to_lsn:
                break
            found.append(path)
            number += 1
        return found


async def read_stretch(postgres: Postgres, segments: Segments, stretch: Stretch, listing: Path) -> Found:
    """What the stretch holds; its records are listed in `listing`, gzipped. Raises EffectError."""
    start = stretch.from_lsn // segments.size * segments.size
    if start == stretch.from_lsn and segments.ends_before(_name(segments, stretch.timeline, start)):
        return LogReader(start).found()  # its log ends where a file ends
    oldest = segments.oldest_before(stretch.timeline, stretch.from_lsn)
    found = await asyncio.to_thread(_read, postgres, segments, stretch, start, listing)
    if not found.whole and oldest < start:
        found = await asyncio.to_thread(_read, postgres, segments, stretch, oldest, listing)
    archive = Archive(postgres, segments.size)
    for _ in range(RESTORED_AT_MOST):
        if found.whole or not await segments.restore_one_before(archive, stretch.timeline, oldest):
            break
        oldest -= segments.size
        found = await asyncio.to_thread(_read, postgres, segments, stretch, oldest, listing)
    if not found.whole:
        raise EffectError(
            f"a transaction that committed after {lsn_text(stretch.from_lsn)} may have begun before the log"
            f" that is left, which begins at {lsn_text(oldest)}"
        )
    return found


def _is_written(path: Path) -> bool:
    """Whether its first page has a header. What was made ahead is zeros."""
    with path.open("rb") as file:
        return file.read(2) != bytes(2)


def _name(segments: Segments, timeline: int, lsn: int) -> str:
    return segments.path(timeline, lsn // segments.size).name


def _read(postgres: Postgres, segments: Segments, stretch: Stretch, start: int, listing: Path) -> Found:
    reader = LogReader(stretch.from_lsn)
    arguments = ["--path", "pg_wal", "--timeline", str(stretch.timeline), "--start", lsn_text(start)]
    if stretch.to_lsn is not None:
        arguments += ["--end", lsn_text(stretch.to_lsn)]
    # It learns from a file how large they are: without a name from any, be that one that was made ahead.
    arguments += segments.outermost(stretch, start)
    with (
        gzip.open(listing, "wt") as kept,
        subprocess.Popen(
            [postgres.program("pg_waldump"), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=postgres.data_dir,
            env={**postgres.environment(), "TZ": "UTC"},
            text=True,
            errors="replace",
            **as_user(postgres.owner),
        ) as process,
    ):
        assert process.stdout is not None and process.stderr is not None
        try:
            for line in process.stdout:
                if reader.read(line):
                    kept.write(line)
            said = process.stderr.read()  # a line or two, at the end
        except BaseException:
            process.kill()
            raise
    no_file = _NO_FILE.search(said)
    ends = _ENDS.search(said) or (no_file is not None and segments.ends_before(no_file[1]))
    if process.returncode != 0 and not ends:
        raise EffectError(f"pg_waldump ended with status {process.returncode}: {said.strip()[-500:]}")
    return reader.found()
