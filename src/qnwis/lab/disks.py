"""Disks that can be filled: small file systems in memory. Only root can mount them."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path

from .errors import LabError
from .postgres import OsUser

SMALL_MB = 64
"""Room for a lab's log of some minutes, and filled in no time."""
_FILLER = "filler"


def mount_small(folder: Path, owner: OsUser | None) -> None:
    """Mount a small file system on an empty folder. Raises LabError."""
    whose = "" if owner is None else f",uid={owner.uid},gid={owner.gid}"
    options = f"size={SMALL_MB}m,mode={folder.stat().st_mode & 0o777:o}{whose}"
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "qnwis-lab", str(folder)], capture_output=True, text=True
    )
    if done.returncode != 0:
        raise LabError(f"no small disk on {folder}: {done.stderr.strip()}; mounting needs root")


def fill(folder: Path) -> None:
    """Leave not a byte free on the folder's file system. Raises LabError for a folder on no small disk."""
    if not folder.is_mount():
        raise LabError(f"{folder} is no small disk; the lab's shape has to name it in `small_disks`")
    with (folder / _FILLER).open("ab") as filler:
        size = os.statvfs(folder).f_bfree * os.statvfs(folder).f_bsize
        while size:
            try:
                os.posix_fallocate(filler.fileno(), filler.tell(), size)
                filler.seek(0, os.SEEK_END)
                size = os.statvfs(folder).f_bfree * os.statvfs(folder).f_bsize
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                size //= 2  # somebody else has taken some meanwhile


def free(folder: Path) -> None:
    """Take back what `fill` took."""
    (folder / _FILLER).unlink(missing_ok=True)


def unmount_all(folder: Path) -> None:
    """Unmount every small disk below the folder."""
    mounted = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for mount in reversed(mounted):
        if mount.startswith(str(folder) + os.sep):
            subprocess.run(["umount", "--lazy", mount], check=False)
