"""The DNS provider against BIND 9, Knot DNS, PowerDNS and the lab's own server: the same of each."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from qnwis.continuity.topology import DnsService
from qnwis.lab.layout import claimed_block, write_secret
from qnwis.lab.processes import Processes
from qnwis.lab.procfs import kill_inside
from qnwis.providers.dns import Rfc2136Dns, key_file_text
from qnwis.providers.errors import Refused

from .dns_lab import OLD, SECRET, dns_lab
from .nameservers import KINDS, SERVICE_RECORD, Place, start

NEW, THIRD = "127.77.1.11", "127.77.1.12"
PORTS, SECOND_PORTS = 19000, 19300
"""Of the first server and of the one that gets the zone from it; the number of a block is added."""
SETTLED_S = 15.0
"""Knot DNS tells of a change a second late, and the machine may be busy."""


@dataclass(frozen=True)
class Servers:
    """A primary server of zone `lab.test`, and one that gets the zone from it."""

    home: Path
    addresses: tuple[str, ...]

    def service(self, *, key: str | None = "lab.key", servers: int = 1, **changes: str) -> DnsService:
        return DnsService(
            zone="lab.test",
            name="db",
            ttl_s=1,
            servers=self.addresses[:servers],
            tsig_key_file=None if key is None else str(self.home / key),
        ).model_copy(update=changes)


@pytest.fixture(params=["lab", *KINDS])
async def servers(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Servers]:
    write_secret(tmp_path / "unknown.key", key_file_text("somebody.", SECRET))
    write_secret(tmp_path / "wrong.key", key_file_text("lab.", SECRET.replace("c2Vj", "AAAA")))
    if request.param == "lab":
        name = "_postgresql._tcp.db"
        async with dns_lab(tmp_path, OLD, f"--service={name}={SERVICE_RECORD}") as lab:
            yield Servers(tmp_path, lab.service.servers)
        return
    kind = KINDS[request.param]
    if kind.missing is not None:
        pytest.skip(kind.missing)
    write_secret(tmp_path / "lab.key", key_file_text("lab.", SECRET))
    processes = Processes(tmp_path / "processes", tmp_path / "logs")
    with claimed_block(0) as block:
        ports = (PORTS + block.number, SECOND_PORTS + block.number)
        primary = Place(tmp_path / "primary", ports[0], OLD, secondary=ports[1])
        secondary = Place(tmp_path / "secondary", ports[1], OLD, primary=ports[0])
        try:
            await start(kind, processes, primary)
            await start(kind, processes, secondary)
            yield Servers(tmp_path, (primary.address, secondary.address))
        finally:
            kill_inside(tmp_path)


@pytest.fixture
def provider() -> Rfc2136Dns:
    return Rfc2136Dns(timeout_s=2.0, settle_s=SETTLED_S)


async def test_what_a_runbook_asks_of_a_nameserver(servers: Servers, provider: Rfc2136Dns) -> None:
    """One test, since each of these servers takes a second to start."""
    service, first = servers.service(), servers.addresses[0]

    # Whether it would take an update is tried, of a name with a record and of one without; nothing changes.
    for name in ("db", "other"):
        (answer,) = await provider.try_update(servers.service(name=name))
        assert answer.accepted, answer
    assert await provider.read(service) == {first: (OLD,)}
    assert await provider.read(servers.service(name="other")) == {first: ()}

    # Who does not sign with the server's key is refused, and told what to look at.
    for key in (None, "unknown.key", "wrong.key"):
        unproven = servers.service(key=key)
        with pytest.raises(Refused) as caught:
            await provider.swap(unproven, from_address=OLD, to_address=NEW)
        refusal = caught.value.refusal
        assert refusal.rule in ("dns_signature_refused", "dns_update_refused")
        assert first in refusal.message and "dns.tsig_key_file" in refusal.remedy
        (answer,) = await provider.try_update(unproven)
        assert not answer.accepted and refusal.message in answer.reason
    with pytest.raises(Refused, match="NOTAUTH") as caught:
        await provider.swap(servers.service(zone="other.test"), from_address=OLD, to_address=NEW)
    assert "zone other.test" in caught.value.refusal.remedy
    assert await provider.read(service) == {first: (OLD,)}

    # It moves once, and only from where it was expected to be.
    moved = await provider.swap(service, from_address=OLD, to_address=NEW)
    assert (moved.changed, moved.before, moved.after) == (True, (OLD,), (NEW,))
    again = await provider.swap(service, from_address=OLD, to_address=NEW)
    assert (again.changed, again.after, again.serial) == (False, (NEW,), moved.serial)
    with pytest.raises(Refused) as caught:
        await provider.swap(service, from_address=THIRD, to_address=OLD)
    assert caught.value.refusal.values == {"expected": THIRD, "wanted": OLD, "found": [NEW]}
    with pytest.raises(Refused, match="holds no address"):
        await provider.swap(servers.service(name="other"), from_address=OLD, to_address=NEW)
    targets = [f"127.77.1.{100 + number}" for number in range(12)]
    results = await asyncio.gather(
        *(provider.swap(service, from_address=NEW, to_address=target) for target in targets),
        return_exceptions=True,
    )
    assert [type(result) for result in results if not isinstance(result, Refused)] == [type(moved)], results
    (winner,) = (await provider.read(service))[first]
    assert winner in targets

    # The TTL is lowered and restored, and the address stays.
    for ttl_s in (0, 7):
        assert not (await provider.swap(service, from_address=winner, to_address=winner, ttl_s=ttl_s)).changed
        (held,) = await provider.record(service)
        assert (held.addresses, held.ttl_s) == ((winner,), ttl_s)

    # Several addresses are one value: swapped together, or not at all.
    both = (OLD, NEW)
    assert (await provider.swap_all(service, (winner,), both)).changed
    assert not (await provider.swap_all(service, (winner,), both)).changed
    with pytest.raises(Refused, match="dns_record_changed"):
        await provider.swap_all(service, (OLD,), (THIRD,))
    assert await provider.read(service) == {first: both}

    # A service record is compared and set by its whole text.
    weighted = servers.service(srv="_postgresql._tcp")
    assert await provider.read(weighted) == {first: (SERVICE_RECORD,)}
    other = SERVICE_RECORD.replace("60", "0")
    assert (await provider.swap_all(weighted, (SERVICE_RECORD,), (other,))).changed
    assert not (await provider.swap_all(weighted, (SERVICE_RECORD,), (other,))).changed
    (answer,) = await provider.try_update(weighted)
    assert answer.accepted and await provider.read(weighted) == {first: (other,)}


@pytest.mark.parametrize("servers", list(KINDS), indirect=True)
async def test_done_means_that_the_server_that_gets_the_zone_has_it(
    servers: Servers, provider: Rfc2136Dns
) -> None:
    both = servers.service(servers=2)
    first, second = both.servers
    assert await provider.read(both) == {first: (OLD,), second: (OLD,)}
    assert (await provider.swap(both, from_address=OLD, to_address=NEW)).changed
    assert await provider.read(both) == {first: (NEW,), second: (NEW,)}
    for ttl_s in (0, 7):
        await provider.swap(both, from_address=NEW, to_address=NEW, ttl_s=ttl_s)
        assert [answer.ttl_s for answer in await provider.record(both)] == [ttl_s, ttl_s]
    # Who takes updates is asked, and not who would rightly refuse them.
    (answer,) = await provider.try_update(both)
    assert answer.accepted and answer.server == first
    backwards = both.model_copy(update={"servers": (second, first)})
    (answer,) = await provider.try_update(backwards)
    assert not answer.accepted and second in answer.reason
    with pytest.raises(Refused):
        await provider.swap(backwards, from_address=NEW, to_address=OLD)
    assert await provider.read(both) == {first: (NEW,), second: (NEW,)}


@pytest.mark.parametrize(
    ("kind", "file"), [("bind", "named.conf"), ("knot", "knot.conf"), ("powerdns", "pdns.conf")]
)
def test_the_page_says_what_these_servers_are_told(kind: str, file: str, tmp_path: Path) -> None:
    if (missing := KINDS[kind].missing) is not None:
        pytest.skip(missing)
    page = (Path(__file__).parents[3] / "docs/howto/dns.md").read_text()
    (block,) = re.findall(rf"```\n# {file}\n(.*?)```", page, flags=re.DOTALL)
    KINDS[kind].command(Place(tmp_path, 5300, OLD, secondary=5353))
    told = (tmp_path / file).read_text().replace(f"{tmp_path}/", "")
    for here, there in (("lab.test", "shop.example"), ("lab.", "qnwis."), (SECRET, "SECRET")):
        told = told.replace(here, there)
    lines = [line.strip() for line in block.splitlines() if "tsig.key" not in line]
    assert [line for line in lines if line.removesuffix("{").strip() not in told] == []
