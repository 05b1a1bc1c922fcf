"""The rules by which the lab's network is cut and slowed, and what is said where it cannot be made."""

from __future__ import annotations

import pytest

from qnwis.lab.enclosure import PROGRAMS, missing
from qnwis.lab.errors import LabError
from qnwis.lab.network import NETWORK, How, Network, addresses, filter_rules, speed_rules

AT = {"node-1": "10.77.0.10", "node-2": "10.77.0.11", "dns": "10.77.0.53"}


def lines(rules: str, about: str) -> list[str]:
    return [line.strip() for line in rules.splitlines() if about in line]


def test_a_cut_in_one_direction_is_a_rule_of_the_one_who_no_longer_hears() -> None:
    cuts = {("node-1", "node-2"): How.DROP}
    assert lines(filter_rules("node-2", cuts, AT), "saddr") == ["ip saddr 10.77.0.10 drop"]
    assert lines(filter_rules("node-1", cuts, AT), "saddr") == []


def test_a_link_that_refuses_answers_with_resets_and_lets_resets_through() -> None:
    """Else two sides that both refuse would drop each other's refusals, and nobody would be refused."""
    rules = lines(filter_rules("dns", {("node-1", "dns"): How.REFUSE}, AT), "saddr 10.77.0.10")
    assert rules == [
        "ip saddr 10.77.0.10 tcp flags & rst == 0 reject with tcp reset",
        "ip saddr 10.77.0.10 meta l4proto udp reject",
    ]


def test_the_rules_replace_what_was_there_in_one_step() -> None:
    """In one transaction: no packet passes between the end of the old rules and the new ones."""
    assert filter_rules("node-2", {}, AT).splitlines()[:2] == ["table ip cuts", "flush table ip cuts"]


def test_only_packets_to_the_slow_side_are_slowed() -> None:
    marks, queues = speed_rules("node-1", {("node-1", "dns"): 200, ("dns", "node-1"): 50}, AT)
    assert lines(marks, "daddr") == ["ip daddr 10.77.0.53 meta priority set 1:10"]
    assert [q for q in queues if "200kbit" in q and "1:10" in q]
    assert not [q for q in queues if "50kbit" in q]
    assert speed_rules("node-2", {("node-1", "dns"): 200}, AT)[1] == []


def test_every_party_has_an_address_of_its_own_in_the_network() -> None:
    nodes = [f"node-{n}" for n in range(1, 10)] + [f"witness-{n}" for n in range(1, 10)]
    at = addresses(nodes, ["vantage-2", "vantage-3"])
    assert len(set(at.values())) == len(at) == len(nodes) + 6
    assert all(address.startswith("10.77.0.") for address in at.values())
    assert str(NETWORK[1]) not in at.values()  # the bridge's, where whoever plays the story stands


def test_what_is_missing_for_a_network_is_named_with_its_package() -> None:
    found = {name: f"/usr/bin/{name}" for name in PROGRAMS}
    assert missing(uid=0, found=found) is None
    said = missing(uid=0, found={**found, "nft": None, "ip": None})
    assert said == "ip, nft not found; install them (Debian: apt-get install iproute2 nftables)"
    assert "user id 1000" in (missing(uid=1000, found=found) or "")


def test_no_network_is_made_outside_an_enclosure(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be made in the machine's own."""
    monkeypatch.delenv("QNWIS_LAB_ENCLOSED", raising=False)
    with pytest.raises(LabError, match="only inside an enclosure"):
        Network.build(AT)
