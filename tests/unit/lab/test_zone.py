"""RFC 2136 as the lab's DNS server understands it: prerequisites (2.4, 3.2), updates (2.5, 3.4)."""

from __future__ import annotations

from collections.abc import Callable

import dns.message
import dns.name
import dns.rdataset
import dns.rrset
import dns.update
import pytest
from dns.flags import AA
from dns.rcode import Rcode
from dns.rdatatype import RdataType
from dns.update import UpdateMessage
from hypothesis import given
from hypothesis import strategies as st

from qnwis.lab.zone import Zone, answer, new_zone, updated

ORIGIN = dns.name.from_text("lab.test")
ADDRESSES = st.sampled_from(["127.77.1.10", "127.77.1.11", "127.77.1.12"])


def zone(**addresses: str) -> Zone:
    named = {dns.name.from_text(name, None): address for name, address in addresses.items()}
    return new_zone(
        ORIGIN,
        nameserver="127.77.1.53",
        addresses=named or {dns.name.from_text("db", None): "1.1.1.1"},
        ttl_s=1,
    )


def as_received(update: UpdateMessage) -> UpdateMessage:
    """The update as the wire brings it: the server never sees the object that a client has built."""
    received = dns.message.from_wire(update.to_wire())
    assert isinstance(received, UpdateMessage)
    return received


def apply(
    before: Zone, build: Callable[[UpdateMessage], None], origin: str = "lab.test."
) -> tuple[Rcode, Zone]:
    update = UpdateMessage(origin)
    build(update)
    return updated(before, as_received(update))


def addresses(of: Zone, name: str = "db") -> list[str]:
    return sorted(str(r) for r in of.rrsets.get((dns.name.from_text(name, ORIGIN), RdataType.A), ()))


PREREQUISITES = [
    # RRset exists, whatever it is (2.4.1)
    ("db exists", lambda u: u.present("db", "A"), Rcode.NOERROR),
    ("db of another type", lambda u: u.present("db", "TXT"), Rcode.NXRRSET),
    ("another name", lambda u: u.present("other", "A"), Rcode.NXRRSET),
    # RRset exists, and is exactly this (2.4.2)
    ("db is this", lambda u: u.present("db", "A", "1.1.1.1"), Rcode.NOERROR),
    ("db is not that", lambda u: u.present("db", "A", "2.2.2.2"), Rcode.NXRRSET),
    ("db is not both", lambda u: u.present("db", "A", "1.1.1.1", "2.2.2.2"), Rcode.NXRRSET),
    ("no such record", lambda u: u.present("other", "A", "1.1.1.1"), Rcode.NXRRSET),
    # RRset does not exist (2.4.3)
    ("no TXT", lambda u: u.absent("db", "TXT"), Rcode.NOERROR),
    ("an A", lambda u: u.absent("db", "A"), Rcode.YXRRSET),
    # the name is in use (2.4.4), or not (2.4.5)
    ("db in use", lambda u: u.present("db"), Rcode.NOERROR),
    ("other not in use", lambda u: u.present("other"), Rcode.NXDOMAIN),
    ("other free", lambda u: u.absent("other"), Rcode.NOERROR),
    ("db not free", lambda u: u.absent("db"), Rcode.YXDOMAIN),
    # outside the zone (3.2.1)
    ("outside", lambda u: u.present(dns.name.from_text("db.other.test."), "A"), Rcode.NOTZONE),
]


@pytest.mark.parametrize(
    ("build", "rcode"), [p[1:] for p in PREREQUISITES], ids=[p[0] for p in PREREQUISITES]
)
def test_a_prerequisite_decides_whether_the_update_happens(
    build: Callable[[UpdateMessage], None], rcode: Rcode
) -> None:
    before = zone()

    def with_change(update: UpdateMessage) -> None:
        build(update)
        update.add("new", 1, "A", "9.9.9.9")

    found, after = apply(before, with_change)
    assert found == rcode
    assert addresses(after, "new") == (["9.9.9.9"] if rcode == Rcode.NOERROR else [])
    assert (after is before) is (rcode != Rcode.NOERROR)


def test_the_exact_rrset_is_compared_as_a_whole_and_in_any_order() -> None:
    before = apply(zone(), lambda u: u.add("db", 1, "A", "2.2.2.2"))[1]

    def both(update: UpdateMessage) -> None:
        update.present("db", "A", "2.2.2.2", "1.1.1.1")
        update.delete("db", "A", "1.1.1.1")

    assert addresses(before) == ["1.1.1.1", "2.2.2.2"]
    assert addresses(apply(before, both)[1]) == ["2.2.2.2"]
    assert apply(before, lambda u: u.present("db", "A", "1.1.1.1"))[0] == Rcode.NXRRSET


def test_an_update_of_another_zone_is_not_for_this_server() -> None:
    assert apply(zone(), lambda u: u.add("db", 1, "A", "9.9.9.9"), origin="other.test.")[0] == Rcode.NOTAUTH


def test_a_record_outside_the_zone_spoils_the_whole_update() -> None:
    before = zone()

    def mixed(update: UpdateMessage) -> None:
        update.add("new", 1, "A", "9.9.9.9")
        update.add(dns.name.from_text("db.other.test."), 1, "A", "9.9.9.9")

    assert apply(before, mixed) == (Rcode.NOTZONE, before)


def test_the_zone_keeps_its_soa_and_its_name_server() -> None:
    def everything(update: UpdateMessage) -> None:
        update.delete("@")
        update.delete("@", "NS", "ns.lab.test.")
        update.delete("@", "SOA")

    rcode, after = apply(zone(), everything)
    assert rcode == Rcode.NOERROR
    assert {(ORIGIN, RdataType.SOA), (ORIGIN, RdataType.NS)} <= after.rrsets.keys()


def test_a_cname_never_joins_other_data() -> None:
    before = zone()
    assert apply(before, lambda u: u.add("db", 1, "CNAME", "x.lab.test."))[1] is before
    alias = apply(before, lambda u: u.add("alias", 1, "CNAME", "db.lab.test."))[1]
    assert apply(alias, lambda u: u.add("alias", 1, "A", "1.1.1.1"))[1] is alias


def test_an_soa_only_replaces_an_older_one() -> None:
    before = zone()
    newer = "ns.lab.test. hostmaster.lab.test. 100 3600 600 86400 1"
    assert apply(before, lambda u: u.add("@", 1, "SOA", newer))[1].serial == 100
    older = apply(before, lambda u: u.add("@", 1, "SOA", newer))[1]
    same = apply(older, lambda u: u.add("@", 1, "SOA", newer.replace(" 100 ", " 99 ")))[1]
    assert same is older


def test_a_changed_ttl_is_a_change() -> None:
    before = zone()
    after = apply(before, lambda u: u.replace("db", 30, "A", "1.1.1.1"))[1]
    assert after.serial == before.serial + 1
    assert after.rrsets[dns.name.from_text("db", ORIGIN), RdataType.A].ttl == 30


@given(st.lists(st.tuples(ADDRESSES, ADDRESSES), max_size=12))
def test_compare_and_swap_moves_exactly_from_what_is_there(swaps: list[tuple[str, str]]) -> None:
    """The serial counts the real changes, and the record follows them one by one."""
    now, expected, changes = zone(db="127.77.1.10"), "127.77.1.10", 0
    for old, new in swaps:

        def swap(update: UpdateMessage, old: str = old, new: str = new) -> None:
            update.present("db", "A", old)
            update.replace("db", 1, "A", new)

        rcode, after = apply(now, swap)
        assert (rcode == Rcode.NOERROR) is (old == expected)
        if rcode == Rcode.NOERROR:
            changes += old != new
            expected = new
        assert (after is now) is (rcode != Rcode.NOERROR or old == new)
        now = after
        assert addresses(now) == [expected]
    assert now.serial == 1 + changes


def ask(of: Zone, name: str, rdtype: str = "A") -> dns.message.Message:
    return answer(of, dns.message.make_query(name, rdtype))


def test_answers_are_authoritative_and_say_what_is_not_there() -> None:
    found = ask(zone(), "db.lab.test.")
    assert found.flags & AA
    assert [rrset.to_text() for rrset in found.answer] == ["db.lab.test. 1 IN A 1.1.1.1"]
    nothing = ask(zone(), "other.lab.test.")
    assert (nothing.rcode(), nothing.answer, nothing.authority[0].rdtype) == (
        Rcode.NXDOMAIN,
        [],
        RdataType.SOA,
    )
    no_such_type = ask(zone(), "db.lab.test.", "TXT")
    assert (no_such_type.rcode(), no_such_type.answer) == (Rcode.NOERROR, [])
    assert ask(zone(), "db.other.test.").rcode() == Rcode.REFUSED
    assert ask(zone(), "lab.test.", "SOA").answer[0][0].to_text().split()[2] == "1"
