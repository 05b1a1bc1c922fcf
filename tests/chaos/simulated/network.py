"""Links between parties: delay, slowness, and cuts in each direction.

A message on a cut link vanishes, or is held and comes when the link heals: TCP sends again, and an order that
its sender has given up long ago may still arrive.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import GeneratorType
from typing import Any

from .kernel import Future, Kernel, Process

SHORTEST_S, SPREAD_S = 0.0003, 0.0017
STALL_S = (0.05, 0.5)
STALLED = 0.005
"""Share of the messages that take long."""
HELD = 0.5
"""Share of the messages on a cut link that come when it heals."""
SOCKETS = 1e-6


class Network:
    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._random = kernel.rng.random
        self._cuts: dict[tuple[str, str], str] = {}
        self._held: dict[tuple[str, str], list[Callable[[], None]]] = {}
        self._kbit_s: dict[tuple[str, str], float] = {}
        self._busy_until_s: dict[tuple[str, str], float] = {}
        self.on_cut: list[Callable[[], None]] = []

    def cut(self, pairs: tuple[tuple[str, str], ...], how: str) -> None:
        self._cuts |= dict.fromkeys(pairs, how)
        for do in self.on_cut:
            do()

    def heal(self, pairs: tuple[tuple[str, str], ...]) -> None:
        for pair in pairs:
            if self._cuts.pop(pair, None) is not None:
                for do in self._held.pop(pair, ()):
                    self._kernel.after(self._kernel.rng.uniform(0, 0.3), do)
        for do in self.on_cut:
            do()

    def slow(self, pairs: tuple[tuple[str, str], ...], kbit_s: float) -> None:
        self._kbit_s |= dict.fromkeys(pairs, kbit_s)

    def fast(self, pairs: tuple[tuple[str, str], ...]) -> None:
        for pair in pairs:
            self._kbit_s.pop(pair, None)

    def how_cut(self, sender: str, receiver: str) -> str | None:
        """`drop`, `refuse` or None."""
        return self._cuts.get((sender, receiver))

    def open(self, one: str, other: str) -> bool:
        """Whether both directions are."""
        return (one, other) not in self._cuts and (other, one) not in self._cuts

    def send(
        self, sender: str, receiver: str, do: Callable[..., None], *arguments: Any, size: int = 500
    ) -> None:
        """Let `do` happen at the receiver's machine, if the message gets there."""
        pair = (sender, receiver)
        if pair in self._cuts:
            if self._cuts[pair] == "drop" and self._random() < HELD:
                self._held.setdefault(pair, []).append(partial(do, *arguments))
            return
        delay_s = SOCKETS if sender == receiver else self._delay_s(pair, size)
        self._kernel.put(delay_s, do, arguments)

    def call(
        self,
        caller: str,
        process: Process,
        handle: Callable[[], Any],
        timeout_s: float,
    ) -> Future:
        """What `handle` returns in the process, or None when no answer comes.

        A future that it returns is waited for, a generator is run as a flow of the process.
        """
        answer = Future()
        if self._cuts.get((caller, process.party)) == "refuse":
            self._kernel.after(SOCKETS, answer.resolve)
            return answer
        self.send(caller, process.party, self._arrived, caller, process, handle, answer)
        self._kernel.after(timeout_s, answer.resolve)
        return answer

    def _arrived(self, caller: str, process: Process, handle: Callable[[], Any], answer: Future) -> None:
        if process.alive:
            process.do(self._handled, caller, process, handle, answer)
        else:  # the connection is refused
            self.send(process.party, caller, answer.resolve)

    def _handled(self, caller: str, process: Process, handle: Callable[[], Any], answer: Future) -> None:
        value = handle()
        if isinstance(value, GeneratorType):
            value = process.spawn(value)
        if isinstance(value, Future):
            value.then(partial(self.send, process.party, caller, answer.resolve))
        else:
            self.send(process.party, caller, answer.resolve, value)

    def _delay_s(self, pair: tuple[str, str], size: int) -> float:
        chance = self._random()
        stalls = chance < STALLED
        delay_s = self._kernel.rng.uniform(*STALL_S) if stalls else SHORTEST_S + chance * SPREAD_S
        if pair not in self._kbit_s:
            return delay_s
        begins_s = max(self._kernel.now_s, self._busy_until_s.get(pair, 0.0))
        self._busy_until_s[pair] = begins_s + size * 8 / 1000 / self._kbit_s[pair]
        return delay_s + self._busy_until_s[pair] - self._kernel.now_s
