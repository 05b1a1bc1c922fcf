"""Where a lab lives and which addresses it takes.

A lab is one directory and one block of addresses, by default 127.77.N.0/24, so that several labs run side
by side with the same ports. The directory is not below a home folder by default: PostgreSQL's unprivileged
user must be able to reach its data, and a home folder is often closed (root's is 0700).
"""

from __future__ import annotations

import os
import secrets
import socket
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path
from typing import Self

from qnwis.continuity.model import Model

from .errors import LabError
from .places import HERE, Place

DATABASE_PORT = 15432
AGENT_PORT = 18443
DNS_PORT = 15353
POWER_PORT = 18623
METRICS_PORT, SDK_METRICS_PORT = 19464, 19465
"""Of each worker: this project's metrics, and the Temporal SDK's."""
VANTAGES_APART = 2
"""Vantages besides the one that stands in the worker."""
TEMPORAL_HOST = "127.0.0.1"
"""The dev server's own parts find each other here and nowhere else, so labs differ by port instead."""
TEMPORAL_PORTS = 17000
TEMPORAL_UI_PORTS = 18000
_CLAIM_PORT = 15001


class Block(Model):
    """The addresses of one lab, and where its parties run."""

    number: int
    """Tells labs on one machine apart."""
    network: IPv4Network
    """A /24."""
    temporal_host: str = TEMPORAL_HOST
    """Where the others reach Temporal."""
    temporal_listen: str = TEMPORAL_HOST
    """Where it listens: its loopback address must be among it."""
    places: Mapping[str, Place] = {}
    """By party; one that is not named runs here."""

    @classmethod
    def on_loopback(cls, number: int) -> Self:
        """The block 127.77.`number`.0/24."""
        return cls(number=number, network=IPv4Network(f"127.77.{number}.0/24"))

    def place(self, party: str) -> Place:
        return self.places.get(party, HERE)

    @property
    def temporal_port(self) -> int:
        return TEMPORAL_PORTS + self.number

    @property
    def temporal_ui_port(self) -> int:
        return TEMPORAL_UI_PORTS + self.number

    @property
    def control(self) -> str:
        """Address of the worker, which is the first vantage too."""
        return str(self.network[2])

    def vantage(self, index: int) -> str:
        """Address of a vantage that stands apart, counted from 0."""
        return str(self.network[70 + index])

    @property
    def power_switch(self) -> str:
        return str(self.network[3])

    @property
    def nameserver(self) -> str:
        return str(self.network[53])

    def node(self, index: int) -> str:
        """Address of the node of that index, counted from 0."""
        return str(self.network[10 + index])

    def listeners(self, nodes: int) -> list[tuple[str, int]]:
        """Every address and port that a lab of so many nodes listens on."""
        own = [
            (self.nameserver, DNS_PORT),
            (self.power_switch, POWER_PORT),
            (self.temporal_host, self.temporal_port),
            (self.temporal_host, self.temporal_ui_port),
        ]
        workers = [self.control, *(self.vantage(index) for index in range(VANTAGES_APART))]
        own += [(worker, port) for worker in workers for port in (METRICS_PORT, SDK_METRICS_PORT)]
        return own + [(self.node(i), port) for i in range(nodes) for port in (DATABASE_PORT, AGENT_PORT)]


Ground = Callable[[int], AbstractContextManager[Block]]
"""Gives a block with addresses for so many nodes, the lab's own until the context ends."""


@contextmanager
def claimed_block(nodes: int) -> Iterator[Block]:
    """The first block in which every address is free, kept from other labs until the context ends.

    Hold it until the lab's processes listen: then their own sockets keep the block. Raises LabError when
    no block is free.
    """
    for number in range(1, 255):
        block = Block.on_loopback(number)
        try:
            # The kernel arbitrates: of two labs that start at once, only one can bind this address.
            claim = _bound(f"127.77.{number}.1", _CLAIM_PORT)
        except OSError:
            continue
        with claim:
            if _all_free(block.listeners(nodes)):
                yield block
                return
    raise LabError(
        "no free block of addresses among 127.77.1.0/24 to 127.77.254.0/24; stop a lab that is still "
        "running, or check that this machine has 127.0.0.0/8 on its loopback interface"
    )


def _bound(address: str, port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        # As servers do, so that connections of an earlier lab in TIME_WAIT do not make the block look taken.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address, port))
        sock.listen()
    except OSError:
        sock.close()
        raise
    return sock


def _all_free(listeners: list[tuple[str, int]]) -> bool:
    for address, port in listeners:
        try:
            _bound(address, port).close()
        except OSError:
            return False
    return True


@dataclass(frozen=True)
class Folder:
    """The lab's directory and what lies where in it."""

    root: Path

    @property
    def state_file(self) -> Path:
        return self.root / "lab.json"

    @property
    def config(self) -> Path:
        """cluster.yaml and policy.yaml, as `qnwis.config` reads them."""
        return self.root / "config"

    @property
    def allowlist(self) -> Path:
        """Which certificates are whose."""
        return self.config / "allowlist.yaml"

    @property
    def pki(self) -> Path:
        """The authority and the identities that it made."""
        return self.root / "pki"

    @property
    def processes(self) -> Path:
        """One JSON file for each process the lab has started."""
        return self.root / "processes"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def secrets(self) -> Path:
        return self.root / "secrets"

    @property
    def run(self) -> Path:
        """Working directory of the lab's processes that belong to no node, and their files."""
        return self.root / "run"

    @property
    def tsig_key_file(self) -> Path:
        return self.secrets / "tsig.key"

    @property
    def dns_journal(self) -> Path:
        return self.run / "dns.jsonl"

    @property
    def dns_refusing(self) -> Path:
        """While this file is there, the DNS server refuses updates."""
        return self.run / "dns-refuses-updates"

    @property
    def power_journal(self) -> Path:
        return self.run / "power.jsonl"

    @property
    def audit(self) -> Path:
        """The worker's state: the audit store and its signing key."""
        return self.run / "audit"

    @property
    def history(self) -> Path:
        """What the clients of the service's name wrote and were answered."""
        return self.run / "history.jsonl"

    def pinned_history(self, node_id: str) -> Path:
        """The same of the client that is pinned to a node."""
        return self.run / f"history-{node_id}.jsonl"

    @property
    def nodes(self) -> Path:
        return self.root / "nodes"

    @property
    def cache(self) -> Path:
        """Beside the lab: programs that were copied or downloaded, for later labs as well."""
        return self.root.with_name(self.root.name + "-cache")

    def password(self, role: str) -> Path:
        """File with the password of that database role."""
        return self.secrets / f"{role}.password"

    @property
    def passfile(self) -> Path:
        """The superuser's password, in the form that every PostgreSQL client reads (PGPASSFILE)."""
        return self.secrets / "pgpass"

    def key(self, person: str) -> Path:
        """File with the private key of one of the lab's people."""
        return self.secrets / f"{person}.pem"


def default_directory() -> Path:
    return Path(f"/var/tmp/qnwis-lab-{os.geteuid()}")


def prepare_directory(path: Path) -> Path:
    """Make the lab's directory, or check that an existing one is ours. Raises LabError.

    Everybody may enter it (0711) but not list it: PostgreSQL's unprivileged user needs to reach its data.
    """
    try:
        path.mkdir(mode=0o711, parents=True, exist_ok=True)
        found = path.lstat()
    except OSError as error:
        raise LabError(f"lab directory {path}: {error.strerror}; give another one") from error
    # The default lies in a folder that everybody can write to: somebody else's directory, or a link of
    # theirs, must not be taken for ours.
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise LabError(
            f"lab directory {path}: expected a directory of user id {os.geteuid()}, found "
            f"{'a directory' if stat.S_ISDIR(found.st_mode) else 'no directory'} of user id {found.st_uid}; "
            "remove it or give another one"
        )
    path.chmod(0o711)
    return path


def write_secret(path: Path, text: str) -> Path:
    """Write a file that only its owner may read, never readable by others even for a moment."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    return path


def new_password() -> str:
    return secrets.token_urlsafe(24)
