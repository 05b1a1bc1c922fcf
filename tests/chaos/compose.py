"""Random stories: one to three faults at any moment, some of them taken back, the same for the same seed.

Left out is only what no promise covers: an agent and its guards that are frozen or gone at the same time
while their database runs.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from random import Random
from typing import Any

from .parties import data_nodes, witnesses
from .story import Story

Fields = dict[str, Any]
FIRST_S, LAST_S = 0.3, 6.0
SHORTEST_S, LONGEST_S = 0.05, 6.0
"""How long a fault lasts that is taken back; with the shortest, between two steps of whatever goes on."""
REST_S = (2.5, 6.0)
"""After the last operation."""
TAKEN_BACK = 0.7
SOMEBODY_ACTS = 0.25
"""Share of the stories in which a person orders a failover after all that."""
REJOINS = 0.6


def compose(seed: int, index: int) -> Story:
    """The story of that index among those of the seed."""
    return _Composer(Random(f"{seed}/{index}"), f"Composed, SEED={seed} index {index}").story()


def slug_of(seed: int, index: int) -> str:
    """By this name the story is played again."""
    return f"composed-{seed}-{index}"


def seed_and_index(slug: str) -> tuple[int, int] | None:
    """What `slug_of` made the name from; None for another name."""
    found = re.fullmatch(r"composed-(\d+)-(\d+)", slug)
    return None if found is None else (int(found[1]), int(found[2]))


class _Composer:
    def __init__(self, rng: Random, name: str) -> None:
        self.rng = rng
        self._name = name
        self._operations: list[Fields] = []
        self._struck: set[str] = set()
        """Nodes of which a part that keeps another in check, or is kept, was struck apart from the rest."""

    def story(self) -> Story:
        rng = self.rng
        self._cluster = cluster = self._make_cluster()
        self._data = data_nodes(cluster["data_nodes"])
        self._nodes = (*self._data, *witnesses(cluster["witnesses"]))
        for _ in range(rng.choice((1, 2, 2, 3))):
            rng.choices(_FAULTS, _WEIGHTS)[0](self, rng.uniform(FIRST_S, LAST_S))
        if rng.random() < SOMEBODY_ACTS:
            self.add(max(o["at_s"] for o in self._operations) + rng.uniform(0, 4), "execute", {"by": "anna"})
        operations = sorted(self._operations, key=lambda operation: operation["at_s"])
        return Story.model_validate(
            {
                "name": self._name,
                "cluster": cluster,
                "operations": operations,
                "ends_at_s": round(operations[-1]["at_s"] + rng.uniform(*REST_S), 2),
            }
        )

    def _make_cluster(self) -> Fields:
        rng = self.rng
        size, helpers = rng.choice(((3, 0), (3, 0), (3, 0), (3, 0), (3, 1), (2, 1), (5, 0), (4, 1)))
        return {
            "replication": rng.choice(("synchronous", "synchronous", "asynchronous")),
            "required_acks": rng.choice((1, 2)) if size == 5 else 1,
            "data_nodes": size,
            "witnesses": helpers,
            "policy": {"cooldown_s": rng.choice((1, 2, 30)), "startup_grace_s": 2},
        }

    def add(self, at_s: float, verb: str, what: Any) -> None:
        self._operations.append({"at_s": round(at_s, 3), verb: what})

    def again(self, at_s: float) -> float | None:
        """When a fault that begins then is taken back; None: never."""
        if self.rng.random() > TAKEN_BACK:
            return None
        return at_s + self.rng.choice((self.rng.uniform(SHORTEST_S, 1), self.rng.uniform(1, LONGEST_S)))

    def a_node(self) -> str:
        """The first primary more often than the others."""
        return "node-1" if self.rng.random() < 0.6 else self.rng.choice(self._nodes)

    # Faults

    def kill_machine(self, at_s: float) -> None:
        node = self.a_node()
        self.add(at_s, "kill", node)
        if (back_s := self.again(at_s)) is not None:
            self.add(back_s, "start", node)
            if node in self._data and self.rng.random() < REJOINS:
                self.add(back_s + self.rng.uniform(0.5, 4), "rejoin", node)

    def kill_part(self, at_s: float) -> None:
        node, part = self.a_node(), self.rng.choice(("database", "database", "agent", "guard", "receiver"))
        if part in ("agent", "guard") and not self._may_strike(node):
            self.kill_machine(at_s)
            return
        self.add(at_s, "kill", {"party": node, "part": part})
        if part == "agent" and (back_s := self.again(at_s)) is not None:
            self.add(back_s, "start", node)

    def freeze(self, at_s: float) -> None:
        node = self.a_node()
        part = self.rng.choice(
            ("all", "all", "agent", "agent", "guard", "database", "postmaster", "receiver")
        )
        if not self._may_strike(node):
            self.kill_machine(at_s)
            return
        self.add(at_s, "freeze", {"party": node, "part": part})
        if (back_s := self.again(at_s)) is not None:
            self.add(back_s, "thaw", {"party": node, "part": part})

    def _may_strike(self, node: str) -> bool:
        """Once for each node: of a machine that is frozen whole, no part may go on without its guards."""
        if node in self._struck:
            return False
        self._struck.add(node)
        return True

    def cut(self, at_s: float) -> None:
        node = self.a_node()
        others = [other for other in self._nodes if other != node]
        far = self.rng.choice(
            ("all", "control", others, others, [self.rng.choice(others)], ["clients"], ["dns"],
             [*others, "control", "vantage-2", "vantage-3"])
        )  # fmt: skip
        if self.rng.random() < 0.2:
            node, far = "region-1", ["region-2", "region-3", "control", "vantage-2", "vantage-3"]
        link: Fields = self.rng.choice(
            ({"between": [node, far]}, {"between": [node, far]}, {"from": node, "to": far},
             {"from": far, "to": node})
        )  # fmt: skip
        self.add(at_s, "cut", {**link, "how": self.rng.choice(("drop", "drop", "refuse"))})
        if (back_s := self.again(at_s)) is not None:
            self.add(back_s, "heal", self.rng.choice((link, link, "all")))

    def slow(self, at_s: float) -> None:
        link = {"between": [self.a_node(), "all"]}
        self.add(at_s, "slow", {**link, "kbit_s": self.rng.choice((20, 50, 200))})
        if (back_s := self.again(at_s)) is not None:
            self.add(back_s, "fast", link)

    def fill_disk(self, at_s: float) -> None:
        party, disk_of = self.a_node(), self.rng.choice(("agent", "wal"))
        # A witness has no database that would write a log.
        disk = {"party": party, "disk": "agent" if party.startswith("witness") else disk_of}
        self.add(at_s, "fill_disk", disk)
        if (back_s := self.again(at_s)) is not None:
            self.add(back_s, "free_disk", disk)

    def strike_control(self, at_s: float) -> None:
        party = self.rng.choice(("temporal", "worker", "worker", "control", "vantage-2"))
        down, up = self.rng.choice((("kill", "start"), ("kill", "start"), ("freeze", "thaw")))
        self.add(at_s, down, party)
        if (back_s := self.again(at_s)) is not None:
            self.add(back_s, up, party)

    def strike_dns(self, at_s: float) -> None:
        back_s = self.again(at_s)
        if self.rng.random() < 0.5:
            self.add(at_s, "refuse_updates", "dns")
            if back_s is not None:
                self.add(back_s, "take_updates", "dns")
        else:
            self.add(at_s, "kill", "dns")
            if back_s is not None:
                self.add(back_s, "start", "dns")

    def jump_clock(self, at_s: float) -> None:
        self.add(at_s, "jump_clock", {"party": "vantage-2", "by_s": self.rng.choice((-90, 3600))})

    def people(self, at_s: float) -> None:
        if self.rng.random() < 0.7:
            self.add(at_s, "execute", {"even_if_healthy": self.rng.random() < 0.8})
        else:
            self.add(at_s, "pause", {"by": "anna", "reason": "maintenance"})
            if (back_s := self.again(at_s)) is not None:
                self.add(back_s, "resume", {"by": "anna", "reason": "done"})


_WEIGHED: tuple[tuple[Callable[[_Composer, float], None], int], ...] = (
    (_Composer.kill_machine, 5),
    (_Composer.kill_part, 4),
    (_Composer.freeze, 5),
    (_Composer.cut, 7),
    (_Composer.slow, 1),
    (_Composer.fill_disk, 2),
    (_Composer.strike_control, 3),
    (_Composer.strike_dns, 1),
    (_Composer.jump_clock, 1),
    (_Composer.people, 3),
)
_FAULTS = [fault for fault, _ in _WEIGHED]
_WEIGHTS = [weight for _, weight in _WEIGHED]
