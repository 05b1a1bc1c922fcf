"""A network of the lab's own: each party in a network namespace, joined by a bridge, and cut as told.

Only inside an enclosure (`qnwis.lab.enclosure`): the namespaces' names, the bridge and the rules are made in
it and vanish with it. Whoever stands at the bridge itself is a party to no cut and reaches everybody.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from ipaddress import IPv4Network
from pathlib import Path
from typing import Self

from .enclosure import is_inside
from .errors import LabError
from .layout import Block
from .places import CLIENTS, CONTROL, DNS, POWER, Place

NETWORK = IPv4Network("10.77.0.0/24")
_NAMES = Path("/run/netns")
_BRIDGE = "lab"


class How(StrEnum):
    """What becomes of a packet on a link that is cut."""

    DROP = "drop"  # nothing is heard of it
    REFUSE = "refuse"  # its sender is told: connections are refused, open ones reset


Link = tuple[str, str]
"""From a party, to a party."""


def addresses(node_ids: Iterable[str], vantages: Iterable[str]) -> dict[str, str]:
    """Each party's own address. The first vantage stands at `control`, and the others by themselves."""
    block = Block(number=0, network=NETWORK)
    return {
        CONTROL: block.control,
        POWER: block.power_switch,
        DNS: block.nameserver,
        CLIENTS: str(NETWORK[60]),
        **{node_id: block.node(index) for index, node_id in enumerate(node_ids)},
        **{vantage: block.vantage(index) for index, vantage in enumerate(vantages)},
    }


def filter_rules(party: str, cuts: Mapping[Link, How], at: Mapping[str, str]) -> str:
    """The packet filter of a party: what of it hears no more, in nft's language.

    A reset or an ICMP message is let through where connections are refused: they are what the other side
    learns it by when both directions refuse.
    """
    rules = []
    for (sender, receiver), how in sorted(cuts.items()):
        if receiver != party:
            continue
        source = f"ip saddr {at[sender]}"
        if how is How.DROP:
            rules.append(f"{source} drop")
        else:
            rules += [
                f"{source} tcp flags & rst == 0 reject with tcp reset",
                f"{source} meta l4proto udp reject",
            ]
    body = "\n    ".join(["type filter hook input priority filter", *rules])
    return f"table ip cuts\nflush table ip cuts\ntable ip cuts {{\n  chain input {{\n    {body}\n  }}\n}}\n"


def speed_rules(party: str, slow: Mapping[Link, int], at: Mapping[str, str]) -> tuple[str, list[list[str]]]:
    """How a party's packets to some others are slowed: nft's rules that tell them apart by class, and the
    arguments of `tc` that make the classes. `slow` is in kbit/s."""
    mine = [(receiver, kbit) for (sender, receiver), kbit in sorted(slow.items()) if sender == party]
    marks = []
    queues = [["qdisc", "replace", "dev", "eth0", "root", "handle", "1:", "htb"]] if mine else []
    for number, (receiver, kbit_s) in enumerate(mine, start=16):
        which = f"1:{number:x}"
        rate = ["rate", f"{kbit_s}kbit", "burst", "8k"]
        marks.append(f"ip daddr {at[receiver]} meta priority set {which}")
        queues += [
            ["class", "replace", "dev", "eth0", "parent", "1:", "classid", which, "htb", *rate],
            # A queue as of a router: what does not fit into some 300 ms is dropped.
            ["qdisc", "replace", "dev", "eth0", "parent", which, "tbf", *rate, "latency", "300ms"],
        ]
    body = "\n    ".join(["type filter hook output priority filter", *marks])
    text = (
        f"table ip speed\nflush table ip speed\ntable ip speed {{\n  chain output {{\n    {body}\n  }}\n}}\n"
    )
    return text, queues


class Network:
    """The parties' namespaces, and which links between them are cut or slow."""

    def __init__(self, at: Mapping[str, str]) -> None:
        self.at = dict(at)
        self._cuts: dict[Link, How] = {}
        self._slow: dict[Link, int] = {}

    @classmethod
    def build(cls, at: Mapping[str, str]) -> Self:
        """Make a namespace for each party at its address. Raises LabError outside an enclosure."""
        if not is_inside():
            raise LabError("the lab's network is made only inside an enclosure (run_enclosed)")
        _NAMES.mkdir(exist_ok=True)
        _run(["mount", "-t", "tmpfs", "lab-names", str(_NAMES)])
        bridge = [
            "link set lo up",
            f"link add {_BRIDGE} type bridge",
            f"addr add {NETWORK[1]}/{NETWORK.prefixlen} dev {_BRIDGE}",
            f"link set {_BRIDGE} up",
        ]
        parties = [line for party, address in at.items() for line in _joining(party, address)]
        _run(["ip", "-batch", "-"], stdin="\n".join([*bridge, *parties]))
        for party in at:
            inside = [
                "link set lo up",
                f"addr add {at[party]}/{NETWORK.prefixlen} dev eth0",
                "link set eth0 up",
            ]
            _run(["ip", "-netns", party, "-batch", "-"], stdin="\n".join(inside))
        return cls(at)

    @contextmanager
    def ground(self, members: int) -> Iterator[Block]:
        """The block of a lab in this network (a `layout.Ground`)."""
        yield Block(
            number=0,
            network=NETWORK,
            temporal_host=self.at[CONTROL],
            temporal_listen="0.0.0.0",
            places={party: Place(enter=entering(party)) for party in self.at},
        )

    def cut(self, links: Iterable[Link], how: How = How.DROP) -> None:
        self._change_cuts({**self._cuts, **dict.fromkeys(links, how)})

    def heal(self, links: Iterable[Link]) -> None:
        """Links that are not cut stay as they are."""
        healed = set(links)
        self._change_cuts({link: how for link, how in self._cuts.items() if link not in healed})

    def slow(self, links: Iterable[Link], kbit_s: int) -> None:
        self._change_speeds({**self._slow, **dict.fromkeys(links, kbit_s)})

    def fast(self, links: Iterable[Link]) -> None:
        """Links that are not slow stay as they are."""
        freed = set(links)
        self._change_speeds({link: kbit_s for link, kbit_s in self._slow.items() if link not in freed})

    def heal_all(self) -> None:
        self._change_cuts({})
        self._change_speeds({})

    def _change_cuts(self, cuts: dict[Link, How]) -> None:
        for party in self._known({receiver for _, receiver in _differing(self._cuts, cuts)}):
            _run([*entering(party), "nft", "-f", "-"], stdin=filter_rules(party, cuts, self.at))
        self._cuts = cuts

    def _change_speeds(self, slow: dict[Link, int]) -> None:
        for party in self._known({sender for sender, _ in _differing(self._slow, slow)}):
            marks, queues = speed_rules(party, slow, self.at)
            _run([*entering(party), "nft", "-f", "-"], stdin=marks)
            if any(sender == party for sender, _ in self._slow):
                _run([*entering(party), "tc", "qdisc", "del", "dev", "eth0", "root"])
            for arguments in queues:
                _run([*entering(party), "tc", *arguments])
        self._slow = slow

    def _known(self, parties: set[str]) -> list[str]:
        unknown = parties - self.at.keys()
        if unknown:
            raise LabError(f"no party {sorted(unknown)}; expected one of {', '.join(self.at)}")
        return sorted(parties)


def entering(party: str) -> tuple[str, ...]:
    """What put before a command runs it in the party's namespace."""
    return ("nsenter", f"--net={_NAMES / party}", "--")


def _joining(party: str, address: str) -> list[str]:
    port = f"to-{address.rpartition('.')[2]}"
    return [
        f"netns add {party}",
        f"link add {port} type veth peer name eth0 netns {party}",
        f"link set {port} master {_BRIDGE} up",
    ]


def _differing(before: Mapping[Link, object], after: Mapping[Link, object]) -> set[Link]:
    return {link for link in before.keys() | after.keys() if before.get(link) != after.get(link)}


def _run(command: list[str], *, stdin: str = "") -> None:
    done = subprocess.run(command, input=stdin, capture_output=True, text=True)
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip()
        raise LabError(f"{' '.join(command)}: exit status {done.returncode}: {said}\n{stdin}")
