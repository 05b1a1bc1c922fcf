"""A file that an agent cannot write, as on a disk without room."""

from __future__ import annotations

from pathlib import Path


class NoRoom:
    """For one file, from `fill` to `free`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._in_the_way = path.with_name(path.name + ".new")
        """Of what is written whole, beside the file."""

    def fill(self) -> None:
        self._in_the_way.mkdir()
        if self._path.exists():
            # One byte too many: then nothing is overwritten in its place.
            self._path.write_bytes(self._path.read_bytes() + b"\n")

    def free(self) -> None:
        self._in_the_way.rmdir()
