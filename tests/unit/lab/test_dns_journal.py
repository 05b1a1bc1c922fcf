"""The DNS server's journal: what a restart rebuilds the zone from."""

from __future__ import annotations

from pathlib import Path

import dns.message
import dns.name
import pytest
from dns.rdatatype import RdataType
from dns.update import UpdateMessage
from hypothesis import given
from hypothesis import strategies as st

from qnwis.lab.errors import LabError
from qnwis.lab.nameserver import Journal
from qnwis.lab.zone import Zone, new_zone, updated

ORIGIN = dns.name.from_text("lab.test")
CHANGES = st.lists(
    st.tuples(st.sampled_from(["add", "delete"]), st.sampled_from(["db", "web"]), st.sampled_from("123")),
    max_size=8,
)


def fresh() -> Zone:
    names = {dns.name.from_text("db", None): "1.1.1.1"}
    return new_zone(ORIGIN, nameserver="127.77.1.53", addresses=names, ttl_s=1)


def changed(before: Zone, change: tuple[str, str, str]) -> Zone:
    what, name, digit = change
    update = UpdateMessage(ORIGIN)
    if what == "add":
        update.add(name, 1, "A", f"10.0.0.{digit}")
    else:
        update.delete(name, "A", f"10.0.0.{digit}")
    received = dns.message.from_wire(update.to_wire())
    assert isinstance(received, UpdateMessage)
    return updated(before, received)[1]


@given(CHANGES)
def test_a_zone_rebuilt_from_its_journal_is_the_same(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[str, str, str]]
) -> None:
    journal = Journal(tmp_path_factory.mktemp("dns") / "dns.jsonl")
    zone = fresh()
    for change in changes:
        after = changed(zone, change)
        if after is not zone:
            journal.append(zone, after, client="127.0.0.1")
        zone = after
    assert journal.replayed(fresh()) == zone


def test_a_line_cut_short_by_a_crash_was_never_answered_and_is_dropped(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "dns.jsonl")
    one = changed(fresh(), ("add", "db", "1"))
    two = changed(one, ("add", "db", "2"))
    journal.append(fresh(), one, client="c")
    whole = journal.path.read_bytes()
    journal.append(one, two, client="c")
    journal.path.write_bytes(journal.path.read_bytes()[:-7])
    assert journal.replayed(fresh()) == one
    assert journal.path.read_bytes() == whole
    journal.append(one, two, client="c")
    assert journal.replayed(fresh()) == two


def test_a_line_that_is_no_change_is_named(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "dns.jsonl")
    journal.append(fresh(), changed(fresh(), ("add", "db", "1")), client="c")
    journal.path.write_bytes(journal.path.read_bytes() + b'{"serial": 3}\n')
    with pytest.raises(LabError, match=r"dns\.jsonl:2: not a change"):
        journal.replayed(fresh())


def test_the_journal_says_what_was_before_and_after(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "dns.jsonl")
    after = changed(fresh(), ("add", "db", "1"))
    journal.append(fresh(), after, client="127.0.0.9")
    line = journal.path.read_text()
    assert '"before": ["1.1.1.1"], "after": ["1.1.1.1", "10.0.0.1"]' in line or (
        '"before": ["1.1.1.1"], "after": ["10.0.0.1", "1.1.1.1"]' in line
    )
    assert '"serial": 2' in line
    assert '"client": "127.0.0.9"' in line
    assert RdataType.A.name in line
