"""Simulated time, and processes that can be frozen and killed at any moment.

A flow that waits is a generator: it yields seconds to sleep, or a `Future` whose value it is sent.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import partial
from heapq import heappop, heappush
from random import Random
from typing import Any

Flow = Generator[Any, Any, Any]


class Kernel:
    """The queue of everything that is to happen."""

    def __init__(self, seed: int, begin_s: float) -> None:
        self.now_s = begin_s
        self.rng = Random(seed)
        self._queue: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._count = 0

    def after(self, delay_s: float, do: Callable[..., None], *arguments: Any) -> None:
        self.put(delay_s, do, arguments)

    def put(self, delay_s: float, do: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        """As `after`, with the arguments in one piece."""
        self._count = count = self._count + 1
        heappush(self._queue, (self.now_s + delay_s, count, do, arguments))

    def run(self, until_s: float) -> None:
        queue = self._queue
        while queue and queue[0][0] <= until_s:
            self.now_s, _, do, arguments = heappop(queue)
            do(*arguments)
        self.now_s = until_s


class Future:
    """A value that comes once; later ones are ignored, as late answers are."""

    __slots__ = ("_then", "done", "value")

    def __init__(self) -> None:
        self.done = False
        self.value: Any = None
        self._then: list[Callable[[Any], None]] = []

    def resolve(self, value: Any = None) -> None:
        if self.done:
            return
        self.done, self.value = True, value
        for then in self._then:
            then(value)

    def then(self, do: Callable[[Any], None]) -> None:
        if self.done:
            do(self.value)
        else:
            self._then.append(do)


class Process:
    """Of a machine. While it is frozen, what it would do waits; what a killed one would do never happens."""

    def __init__(self, kernel: Kernel, party: str) -> None:
        self.kernel = kernel
        self.party = party
        """Whose links its messages take."""
        self.alive = False
        self.frozen = False
        self.life = 0
        self._waiting: list[tuple[Callable[..., None], tuple[Any, ...]]] = []
        self.on_kill: list[Callable[[], None]] = []

    @property
    def runs(self) -> bool:
        return self.alive and not self.frozen

    def start(self) -> None:
        self.alive, self.frozen = True, False
        self.life += 1

    def kill(self) -> None:
        if not self.alive:
            return
        self.alive = self.frozen = False
        self.life += 1
        self._waiting.clear()
        for do in self.on_kill:
            do()

    def freeze(self) -> None:
        self.frozen = self.alive

    def thaw(self, lag_s: float = 0.0) -> None:
        """Go on, `lag_s` later than the others of its machine."""
        self.kernel.after(lag_s, self._go_on, self.life)

    def do(self, what: Callable[..., None], *arguments: Any) -> None:
        """Now, or when it is thawed; never if it is dead."""
        if self.frozen:
            self._waiting.append((what, arguments))
        elif self.alive:
            what(*arguments)

    def after(self, delay_s: float, what: Callable[..., None], *arguments: Any) -> None:
        self.kernel.put(delay_s, self._due, (self.life, what, arguments))

    def spawn(self, flow: Flow) -> Future:
        """Let a flow run in this process; the future brings what it returns."""
        ended = Future()
        self.do(self._step, flow, ended, None)
        return ended

    def _step(self, flow: Flow, ended: Future, value: Any) -> None:
        """Let the flow go on with this value, until it has to wait."""
        while True:
            try:
                wanted = flow.send(value)
            except StopIteration as stop:
                ended.resolve(stop.value)
                return
            if not isinstance(wanted, Future):
                self.after(wanted, self._step, flow, ended, None)
                return
            if not wanted.done:
                wanted.then(partial(self._go_on_with, self.life, flow, ended))
                return
            value = wanted.value

    def _go_on_with(self, life: int, flow: Flow, ended: Future, value: Any) -> None:
        self._due(life, self._step, (flow, ended, value))

    def _due(self, life: int, what: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        if life != self.life:
            return
        if self.frozen:
            self._waiting.append((what, arguments))
        elif self.alive:
            what(*arguments)

    def _go_on(self, life: int) -> None:
        if life != self.life or not self.frozen:
            return
        self.frozen = False
        waiting, self._waiting = self._waiting, []
        for what, arguments in waiting:
            self.do(what, *arguments)
