"""A deadline that outlives the agent: what is let be for a while must not be so for ever."""

from __future__ import annotations

import asyncio
from pathlib import Path

from pydantic import ValidationError

from qnwis.continuity.model import Model

from .guard import now
from .two_copies import TwoCopies

QUIESCED, HANDED_OVER = "quiesced", "handed-over"
"""What ends with one, and its file's name."""


class _Kept(Model):
    until_s: float
    """In the clock that also counts while the machine is suspended; it begins anew with the machine."""
    for_s: float


class Deadline:
    """A deadline in a file; there is one or there is none."""

    def __init__(self, file: Path) -> None:
        """A damaged file is a deadline that has passed. Raises StateError for one that cannot be read."""
        self._file = TwoCopies(file)
        self._kept: _Kept | None = None
        self.ended = asyncio.Event()
        """Set when it is ended early; cleared by the next one."""
        if self._file.text != "":
            try:
                self._kept = _Kept.model_validate_json(self._file.text or "")
            except ValidationError:
                self._kept = _Kept(until_s=0, for_s=0)

    @property
    def there(self) -> bool:
        return self._kept is not None

    @property
    def left_s(self) -> float:
        """0 without a deadline, and once it has passed."""
        if self._kept is None:
            return 0.0
        return min(max(0.0, self._kept.until_s - now()), self._kept.for_s)

    def begin(self, for_s: float) -> None:
        """On disk when this returns."""
        self._kept = _Kept(until_s=now() + for_s, for_s=for_s)
        self._file.write(self._kept.model_dump_json())
        self.ended.clear()

    def end(self) -> None:
        self._file.clear()
        self._kept = None
        self.ended.set()
