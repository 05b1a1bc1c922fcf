"""A machine to install on, made of this one: the same programs, with an /etc and other folders of its own.

Everything runs in namespaces for mounts and processes that end with the shell. What a unit starts is started
here as systemd would, as its user and with its environment.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from pathlib import Path

PROJECT = Path(__file__).parents[3]
OWN = ("/opt", "/var/lib", "/usr/local/bin")
"""Folders that are empty at first."""
MACHINE = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--", "bash", "-euc")
SYSTEMD = """
systemctl() {
  [ "$1" = enable ] || return 0
  local unit=/etc/systemd/system/$3.service
  (
    set -a
    eval "$(sed -n 's/^Environment=//p' $unit)"
    . "$(sed -n 's/^EnvironmentFile=-//p' $unit)"
    user=$(sed -n 's/^User=//p' $unit)
    exec setpriv --reuid=$user --regid=$user --init-groups --no-new-privs --inh-caps=-all \
      $(sed -n 's/^ExecStart=//p' $unit)
  ) > $HERE/$3.log 2>&1 &
}
"""


def blocks(page: Path) -> list[str]:
    """What the page says to type into a shell."""
    return re.findall(r"^```bash\n(.*?)^```$", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def script(here: Path, typed: Iterable[str]) -> str:
    """The machine, with `here` as the folder in which the blocks are typed, one after the other."""
    return "\n".join([f"HERE={here}", *_mounted(here), SYSTEMD, f"cd {here}", *typed])


def _mounted(here: Path) -> list[str]:
    own = here / "own"
    lines = [f"mkdir -p {own}/etc", f"cp -a /etc/. {own}/etc", f"mount --bind {own}/etc /etc"]
    for number, folder in enumerate(OWN):
        lines += [f"mkdir {own}/{number}", f"mount --bind {own}/{number} {folder}"]
    return lines + _readable([Path(sys.base_prefix), Path(sys.prefix), PROJECT, here])


def _readable(folders: Iterable[Path]) -> list[str]:
    """Commands by which everybody may enter what this machine keeps below folders of one user."""
    kept, closed = {}, set()
    for folder in sorted({folder.resolve() for folder in folders}):
        barred = next((p for p in reversed(folder.parents) if not p.stat().st_mode & 0o001), None)
        if barred is not None:
            kept[folder] = f"/mnt/{len(kept)}"
            closed.add(barred)
    return [
        "mount -t tmpfs -o mode=755 none /mnt",
        *(f"mkdir {place}; mount --bind {folder} {place}" for folder, place in kept.items()),
        *(f"mount -t tmpfs -o mode=755 none {folder}" for folder in sorted(closed)),
        *(f"mkdir -p {folder}; mount --bind {place} {folder}" for folder, place in kept.items()),
    ]
