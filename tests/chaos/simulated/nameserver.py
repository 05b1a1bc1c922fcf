"""The DNS server: one address record, changed by compare-and-swap."""

from __future__ import annotations

from enum import StrEnum

from .kernel import Kernel, Process

TTL_S = 1.0


class Swap(StrEnum):
    CHANGED = "changed"
    ALREADY = "already"
    ELSE = "the record is something else"
    REFUSED = "updates are refused"


class Nameserver:
    def __init__(self, kernel: Kernel, address: str) -> None:
        self.process = Process(kernel, "dns")
        self.process.start()
        self.address = address
        self.takes_updates = True
        self.changes: list[str] = []
        """The effect that made each change."""

    def swap(self, before: str, after: str, effect_id: str) -> Swap:
        if not self.takes_updates:
            return Swap.REFUSED
        if self.address == before != after:
            self.address = after
            self.changes.append(effect_id)
            return Swap.CHANGED
        return Swap.ALREADY if self.address == after else Swap.ELSE
