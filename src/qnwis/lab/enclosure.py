"""A part of this machine apart: its own network, mounts and processes, in which a lab can be cut and filled.

    run_enclosed(["python", "-m", "tests.chaos.real", "story.yaml"])

The command runs in namespaces of its own. Nothing in it reaches the machine's network; when it ends, by
itself or killed, every process, interface and mount in it is gone with the namespaces.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

from .errors import LabError

INSIDE_VARIABLE = "QNWIS_LAB_ENCLOSED"
PROGRAMS = {
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "setpriv": "util-linux",
    "mount": "mount",
    "ip": "iproute2",
    "tc": "iproute2",
    "nft": "nftables",
}
"""What is called, and the Debian package that brings it."""

_UNSHARE = (
    *("setpriv", "--pdeathsig", "KILL"),  # whoever asked for the enclosure is gone: so is the enclosure
    *("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"),
)
_INIT = ("sh", "-c", '"$@"; exit "$?"', "init")
"""The first process inside: it lets go of orphans, which the command itself would not."""


def missing(*, uid: int, found: Mapping[str, str | None]) -> str | None:
    """Why nothing can be enclosed here, and what to do; None if it can.

    `found` says for each of PROGRAMS where it is.
    """
    absent = {name: package for name, package in PROGRAMS.items() if not found.get(name)}
    if absent:
        packages = " ".join(sorted(set(absent.values())))
        return f"{', '.join(sorted(absent))} not found; install them (Debian: apt-get install {packages})"
    if uid != 0:
        return f"user id {uid}; namespaces, mounts and packet filters need root"
    return None


def check_possible() -> None:
    """Raises LabError that names what is missing."""
    reason = missing(uid=os.geteuid(), found={name: shutil.which(name) for name in PROGRAMS})
    if reason is None:
        tried = subprocess.run([*_UNSHARE, "true"], capture_output=True, text=True)
        reason = None if tried.returncode == 0 else f"this kernel refuses: {tried.stderr.strip()}"
    if reason is not None:
        raise LabError(f"no network of its own for the lab: {reason}")


def run_enclosed(
    command: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    log: Path | None = None,
    timeout_s: float | None = None,
) -> int:
    """Run a command in an enclosure; its exit status.

    `env` is added to this process's environment; the output goes to `log`, where one is given. Raises
    LabError, also when it takes longer than `timeout_s`; then everything in the enclosure is killed.
    """
    check_possible()
    inside = {**os.environ, **(env or {}), INSIDE_VARIABLE: "1"}
    with nullcontext() if log is None else log.open("ab") as output:
        try:
            done = subprocess.run(
                [*_UNSHARE, *_INIT, *command],
                env=inside,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                timeout=timeout_s,
            )
        except subprocess.TimeoutExpired as error:
            raise LabError(f"{' '.join(command)}: not done within {timeout_s:g} s") from error
    return done.returncode


def is_inside() -> bool:
    return os.environ.get(INSIDE_VARIABLE) == "1"
