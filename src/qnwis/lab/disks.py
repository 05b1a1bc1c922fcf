"""Disks that can be filled: small file systems in memory. Only root can mount them."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path

from .errors import LabError
from .postgres import OsUser

SMALL_BYTES = 128 * 1024 * 1024
"""Room for a lab's log of some minutes, and filled at once."""
_FILLER = "filler"


def mount_small(folder: Path, owner: OsUser | None) -> None:
    """Mount a small file system on an empty folder. Raises LabError."""
    whose = "" if owner is None else f",uid={owner.uid},gid={owner.gid}"
    options = f"size={SMALL_BYTES},mode={folder.stat().st_mode & 0o777:o}{whose}"
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "qnwis-lab", str(folder)], capture_output=True, text=True
    )
    if done.returncode != 0:
        raise LabError(f"no small disk on {folder}: {done.stderr.strip()}; mounting needs root")


def fill(folder: Path) -> None:
    """Leave not a byte free on the folder's file system. Raises LabError for a folder on no small disk."""
    if not folder.is_mount():
        raise LabError(f"{folder} is no small disk; the lab's shape has to name it in `small_disks`")
    chunk = bytes(1024 * 1024)
    with (folder / _FILLER).open("ab", buffering=0) as filler:
        while chunk:
            try:
                filler.write(chunk)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                chunk = chunk[: len(chunk) // 2]


def free(folder: Path) -> None:
    """Take back what `fill` took."""
    (folder / _FILLER).unlink(missing_ok=True)


def unmount_all(folder: Path) -> None:
    """Unmount every small disk below the folder."""
    mounted = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for mount in reversed(mounted):
        if mount.startswith(str(folder) + os.sep):
            subprocess.run(["umount", "--lazy", mount], check=False)
