"""Files that are whole after a power cut: their content is on disk before they have their name, and their
name before anybody counts on it."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


def sync_directory(path: Path) -> None:
    """Have the names in it on disk: those of files that were made, renamed or removed."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_folder(path: Path, *, mode: int = 0o777) -> None:
    """With those above it, unless it is there."""
    if path.is_dir():
        return
    make_folder(path.parent)
    path.mkdir(mode, exist_ok=True)
    sync_directory(path.parent)


def new_beside(path: Path, content: str | bytes, *, mode: int = 0o600) -> Path:
    """A file with this content that is on disk beside `path`, to be `put` in its place. Its name is nobody
    else's, so that no other writer, of this process or another, touches it. Nothing is left where it raises.

    It belongs to whom `path` belongs to, as far as this process may say so: what root changes is read by
    another user.
    """
    beside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    with _whole(beside, 0o600) as file:
        with suppress(FileNotFoundError, PermissionError):
            held = path.stat()
            os.fchown(file.fileno(), held.st_uid, held.st_gid)
        os.fchmod(file.fileno(), mode)
        file.write(_bytes(content))
    return beside


def put(new: Path, path: Path) -> None:
    """In the place of what is there. A reader finds either the old or the new."""
    new.replace(path)
    sync_directory(path.parent)


def write_private(path: Path, text: str) -> None:
    """Replace the file whole, readable by its owner only."""
    new = new_beside(path, text)
    try:
        put(new, path)
    finally:
        new.unlink(missing_ok=True)


def write_new(path: Path, content: str | bytes, *, mode: int = 0o600) -> None:
    """Raises FileExistsError for what is there already. Nothing is left where it cannot be written whole. Of
    `mode` the process has its own part (umask)."""
    with _whole(path, mode) as file:
        file.write(_bytes(content))
    sync_directory(path.parent)


def write_once(path: Path, content: bytes, *, mode: int) -> None:
    """Make a file with all of its content or not at all; one that is there already stays as it is."""
    draft = new_beside(path, content, mode=mode)
    try:
        with suppress(FileExistsError):
            path.hardlink_to(draft)
    finally:
        draft.unlink()
    # Also of one that is there: whoever made it may not have come to this yet.
    sync_directory(path.parent)


@contextmanager
def _whole(path: Path, mode: int) -> Iterator[BinaryIO]:
    """A new file, whose content is on disk at the end; by an exception it is gone again."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(descriptor)
    except BaseException:
        path.unlink()
        raise


def _bytes(content: str | bytes) -> bytes:
    return content.encode() if isinstance(content, str) else content
