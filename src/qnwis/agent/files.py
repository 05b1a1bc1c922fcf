"""Files that survive a power cut (written beside, synced, renamed), owned by PostgreSQL's user where due."""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from qnwis.durable import sync_directory


class StateError(Exception):
    """What the agent finds on its machine cannot be used; the text names it and what to do."""


@dataclass(frozen=True)
class Owner:
    """The operating-system user of PostgreSQL's files and processes."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()
    """Its further ones: on Debian the key of a server's certificate is for group ssl-cert."""

    @classmethod
    def named(cls, user: str | None) -> Self | None:
        """The user of that name; None for None, the agent's own. Raises StateError for an unknown one."""
        if user is None:
            return None
        try:
            entry = pwd.getpwnam(user)
        except KeyError:
            raise StateError(f"os_user is {user!r}; expected a user that this machine has") from None
        return cls(entry.pw_uid, entry.pw_gid, tuple(os.getgrouplist(user, entry.pw_gid)))


def as_user(owner: Owner | None) -> dict[str, Any]:
    """Arguments for `subprocess` that run a program as `owner`, with its groups and none of the agent's."""
    if owner is None:
        return {}
    return {"user": owner.uid, "group": owner.gid, "extra_groups": list(owner.groups)}


def read_kept(path: Path) -> bytes | None:
    """What an agent of this node wrote there; None if nothing is. Raises StateError if it cannot be read."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StateError(
            f"{path}: cannot be read ({error.strerror}); let the agent's user read it, or restore it"
        ) from error


def write_durably(path: Path, text: str, owner: Owner | None = None) -> None:
    """Replace `path` by `text` so that after a crash it holds either the old or the new text, whole."""
    beside = path.with_name(path.name + ".new")
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        if owner is not None:
            os.fchown(file.fileno(), owner.uid, owner.gid)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    sync_directory(path.parent)


def write_if_other(path: Path, text: str, owner: Owner | None = None) -> None:
    """`write_durably`, unless that would change nothing: a full disk is no reason not to start."""
    if not _is_so(path, text, owner):
        write_durably(path, text, owner)


def _is_so(path: Path, text: str, owner: Owner | None) -> bool:
    try:
        kept, found = path.read_bytes(), path.stat()
    except OSError:
        return False
    owned = owner is None or (found.st_uid, found.st_gid) == (owner.uid, owner.gid)
    return kept == text.encode() and owned and found.st_mode & 0o777 == 0o600


def remove_durably(path: Path) -> None:
    """Remove `path` if it exists, for good."""
    path.unlink(missing_ok=True)
    sync_directory(path.parent)
