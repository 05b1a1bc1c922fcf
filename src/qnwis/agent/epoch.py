"""The highest epoch this agent has obeyed: on disk before anything is done under it."""

from __future__ import annotations

from pathlib import Path

from .files import StateError, write_durably


class EpochStore:
    """A number that only grows, in a file of its own."""

    def __init__(self, path: Path) -> None:
        """Raises StateError when the file holds no number: an agent that forgot its epoch must not serve."""
        self._path = path
        text = path.read_text() if path.exists() else "0"
        if not text.strip().isdigit():
            raise StateError(
                f"{path}: holds {text[:40]!r}; expected the highest epoch obeyed, a number."
                " Write the cluster's current epoch there"
            )
        self._value = int(text)

    @property
    def value(self) -> int:
        return self._value

    def raise_to(self, epoch: int) -> None:
        """Obey `epoch` from now on. On disk when this returns; never lowers."""
        if epoch > self._value:
            write_durably(self._path, f"{epoch}\n")
            self._value = epoch
