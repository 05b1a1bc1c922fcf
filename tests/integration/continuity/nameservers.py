"""Nameservers as people run them, each a process of this account on loopback: BIND 9, Knot DNS, PowerDNS."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from qnwis.continuity.topology import DnsService
from qnwis.lab.processes import Processes
from qnwis.providers.dns import Rfc2136Dns, key_file_text
from qnwis.providers.errors import Refused, Unreachable

from .dns_lab import SECRET

PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
"""Daemons lie where an ordinary account does not look."""
ZONE = "lab.test"
HOST = "127.0.0.1"
SERVICE_RECORD = "0 60 5432 eu.db.lab.test."
"""Of `_postgresql._tcp.db`."""


@dataclass(frozen=True)
class Place:
    """Where one server of the zone lives, and with whom it shares it. All listen on 127.0.0.1: BIND takes an
    address only where an interface has it, and does not know that all of 127.0.0.0/8 is this machine."""

    home: Path
    port: int
    record: str
    """The address that `db` has at first."""
    primary: int | None = None
    """Port of the server that it gets the zone from; None if it is the primary."""
    secondary: int | None = None
    """Port of the server that it tells of a change."""

    @property
    def address(self) -> str:
        return f"{HOST}:{self.port}"

    def write(self, name: str, text: str) -> Path:
        path = self.home / name
        path.write_text(text)
        return path

    def zone_file(self) -> Path:
        return self.write(
            "zone",
            f"$ORIGIN {ZONE}.\n$TTL 1\n@ SOA ns hostmaster 1 3600 60 86400 1\n@ NS ns\n"
            f"ns A {HOST}\ndb A {self.record}\n"
            f"_postgresql._tcp.db SRV {SERVICE_RECORD}\n",
        )


def bind(place: Place) -> list[str]:
    """The command that runs BIND 9."""
    if place.primary is None:
        zone = f'type primary; file "{place.zone_file()}"; update-policy {{ grant lab. zonesub ANY; }};'
        if place.secondary is not None:
            zone += f" notify explicit; also-notify {{ {HOST} port {place.secondary}; }}; notify-delay 0;"
    else:
        zone = f"type secondary; primaries {{ {HOST} port {place.primary}; }};"
    conf = place.write(
        "named.conf",
        f'options {{ directory "{place.home}"; pid-file none; session-keyfile none; lock-file none;\n'
        f"  listen-on port {place.port} {{ {HOST}; }}; listen-on-v6 {{ none; }}; recursion no;\n"
        f"  dnssec-validation no; }};\n"
        f"controls {{ }};\n{key_file_text('lab.', SECRET)}zone {ZONE} {{ {zone} }};\n",
    )
    # Debian's AppArmor profile is for the program at its own path, and lets that read nothing here.
    program = shutil.copy(_program("named"), place.home / "named")
    return [str(program), "-g", "-n", "1", "-c", str(conf)]


def knot(place: Place) -> list[str]:
    """The command that runs Knot DNS."""
    other = place.secondary or place.primary
    remote = "" if other is None else f"remote:\n  - id: other\n    address: {HOST}@{other}\n"
    if place.primary is None:
        acl = "    key: lab.\n    action: update\n  - id: transfer\n    action: transfer\n"
        zone = f"    file: {place.zone_file()}\n    acl: [changes, transfer]\n"
        zone += "    notify: other\n" if place.secondary is not None else ""
    else:
        acl = "    remote: other\n    action: notify\n"
        zone = "    master: other\n    acl: changes\n"
    conf = place.write(
        "knot.conf",
        f"server:\n    rundir: {place.home}\n    listen: {HOST}@{place.port}\n    udp-workers: 1\n"
        "    tcp-workers: 1\n    background-workers: 1\nlog:\n  - target: stderr\n    any: info\n"
        f"database:\n    storage: {place.home}\n"
        f"key:\n  - id: lab.\n    algorithm: hmac-sha256\n    secret: {SECRET}\n{remote}"
        f"acl:\n  - id: changes\n{acl}zone:\n  - domain: {ZONE}\n    storage: {place.home}\n{zone}",
    )
    return [_program("knotd"), "-c", str(conf)]


def powerdns(place: Place) -> list[str]:
    """The command that runs PowerDNS with its zones in SQLite."""
    database = place.home / "pdns.sqlite"
    place.write(
        "pdns.conf",
        f"launch=gsqlite3\ngsqlite3-database={database}\nsocket-dir={place.home}\ndnsupdate=yes\n"
        f"local-address={HOST}\nlocal-port={place.port}\nprimary=yes\nsecondary=yes\nonly-notify=\n"
        + (f"also-notify={HOST}:{place.secondary}\n" if place.secondary is not None else ""),
    )

    def pdnsutil(*words: str) -> None:
        command = [_program("pdnsutil"), f"--config-dir={place.home}", *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, done.stdout + done.stderr

    schema = Path("/usr/share/pdns-backend-sqlite3/schema/schema.sqlite3.sql")
    with sqlite3.connect(database) as made:
        made.executescript(schema.read_text())
    made.close()
    if place.primary is None:
        pdnsutil("load-zone", ZONE, str(place.zone_file()))
        pdnsutil("set-kind", ZONE, "primary")
        pdnsutil("import-tsig-key", "lab.", "hmac-sha256", SECRET)
        pdnsutil("set-meta", ZONE, "TSIG-ALLOW-DNSUPDATE", "lab.")
        pdnsutil("set-meta", ZONE, "NOTIFY-DNSUPDATE", "1")
    else:
        pdnsutil("create-secondary-zone", ZONE, f"{HOST}:{place.primary}")
    return [_program("pdns_server"), f"--config-dir={place.home}", "--disable-syslog"]


def _program(name: str) -> str:
    found = shutil.which(name, path=PATH)
    assert found is not None, f"whoever asks for {name} looks first whether it is there"
    return found


@dataclass(frozen=True)
class Kind:
    """A nameserver that the tests know to run."""

    program: str
    package: str
    """Of Debian."""
    command: Callable[[Place], list[str]]

    @property
    def missing(self) -> str | None:
        """Why it cannot be run here."""
        found = shutil.which(self.program, path=PATH)
        return (
            None if found is not None else f"no {self.program} (Debian: {self.package}): make install-system"
        )


KINDS = {
    "bind": Kind("named", "bind9", bind),
    "knot": Kind("knotd", "knot", knot),
    "powerdns": Kind("pdns_server", "pdns-server and pdns-backend-sqlite3", powerdns),
}


async def start(kind: Kind, processes: Processes, place: Place) -> None:
    """Returns when it answers the record."""
    place.home.mkdir()
    name = f"{kind.program}-{place.port}"
    started = processes.start(name, kind.command(place), cwd=place.home)
    asked = DnsService(zone=ZONE, name="db", servers=(place.address,))
    while True:
        try:
            answers = await Rfc2136Dns(timeout_s=0.2).read(asked)
        except (Unreachable, Refused):
            answers = {}
        if answers == {asked.servers[0]: (place.record,)}:
            return
        assert started.alive, started.log.read_text()
        await asyncio.sleep(0.05)
