"""The allowlist as a file that several commands may change: one at a time, whole, never half written."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import yaml

from qnwis.continuity.allowlist import AllowedClient, AllowedNode, Allowlist
from qnwis.tls.files import TlsError, read_allowlist

HEAD = (
    "# Which certificates are whose. Made and changed by `qnwis-continuity pki`; safe to read and to edit.\n"
)


class Changing(Protocol):
    """Takes the allowlist as the file has it, and gives the one to be written."""

    def __call__(self, found: Allowlist) -> Allowlist: ...


def changed(file: Path, change: Changing) -> Allowlist:
    """Change the file. Raises TlsError where it cannot be read or written: then it is as before."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with _alone(file):
            found = read_allowlist(file) if file.exists() else Allowlist()
            wanted = Allowlist.model_validate(change(found).model_dump())
            beside = file.with_name(f".{file.name}.{os.getpid()}")
            data = wanted.model_dump(mode="json", exclude_none=True)
            beside.write_text(HEAD + yaml.safe_dump(data, sort_keys=False))
            beside.replace(file)
    except OSError as error:
        raise TlsError(f"{file}: cannot be changed ({error.strerror}: {error.filename})") from error
    return wanted


def with_node(found: Allowlist, node: AllowedNode) -> Allowlist:
    """In place of what is listed for its endpoint."""
    others = tuple(one for one in found.allowed_nodes if one.endpoint != node.endpoint)
    return found.model_copy(update={"allowed_nodes": (*others, node)})


def with_client(found: Allowlist, client: AllowedClient) -> Allowlist:
    """In place of what is listed under its name."""
    others = tuple(one for one in found.allowed_clients if one.name != client.name)
    return found.model_copy(update={"allowed_clients": (*others, client)})


def without(found: Allowlist, fingerprint: str) -> Allowlist:
    """Without whoever shows this."""
    return found.model_copy(
        update={
            "allowed_nodes": tuple(n for n in found.allowed_nodes if fingerprint not in n.fingerprints),
            "allowed_clients": tuple(c for c in found.allowed_clients if fingerprint not in c.fingerprints),
        }
    )


def with_fingerprints(found: Allowlist, known: str, *, current: str, following: str | None) -> Allowlist:
    """Whoever is listed with the fingerprint `known` has these from now on."""
    update = {"fingerprint": current, "next_fingerprint": following}
    return found.model_copy(
        update={
            "allowed_nodes": tuple(
                n.model_copy(update=update) if known in n.fingerprints else n for n in found.allowed_nodes
            ),
            "allowed_clients": tuple(
                c.model_copy(update=update) if known in c.fingerprints else c for c in found.allowed_clients
            ),
        }
    )


def entry_of(found: Allowlist, fingerprint: str) -> AllowedNode | AllowedClient | None:
    entries: tuple[AllowedNode | AllowedClient, ...] = (*found.allowed_nodes, *found.allowed_clients)
    return next((entry for entry in entries if fingerprint in entry.fingerprints), None)


@contextmanager
def _alone(file: Path) -> Iterator[None]:
    with file.with_name(f".{file.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
