"""Temporal and its worker: workflows that outlive both, activities that are tried again.

A workflow is a generator that nothing destroys; it goes on only while server and worker can work together. It
yields an `Activity`, seconds, or a `Future`. A result that the worker could not report is lost with it, and
the activity runs again: its effect may then have happened already.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .kernel import Flow, Future, Kernel, Process
from .network import Network

TASK_S = (0.004, 0.03)
"""One workflow task: what a decision of a workflow takes."""
HEARTBEAT_TIMEOUT_S = 2.0
RETRY_FIRST_S, RETRY_LONGEST_S = 0.2, 2.0
REPORT_AGAIN_S = 0.2
SERVER, WORKER = "temporal", "worker"


@dataclass(frozen=True)
class Unreachable:
    """What an activity returns that does not know whether it had an effect; it is tried again."""

    why: str


@dataclass(frozen=True)
class Activity:
    attempt: Callable[[int], Flow]
    """Of a number, from 1; runs in the worker's process."""
    limit_s: float | None = None
    """After so long no more is tried, and the workflow gets the last Unreachable."""


@dataclass(eq=False)
class Trying:
    activity: Activity
    ended: Future
    began_s: float
    number: int = 0
    """Of the attempt whose result counts; 0 before the first."""
    waiting: bool = False


class Temporal:
    def __init__(self, kernel: Kernel, network: Network) -> None:
        self.server = Process(kernel, SERVER)
        self.worker = Process(kernel, WORKER)
        self._kernel = kernel
        self._network = network
        self._ready: list[Callable[[], None]] = []
        network.on_cut.append(self.resume)

    @property
    def able(self) -> bool:
        return self.server.runs and self.worker.runs and self._network.open(SERVER, WORKER)

    def reachable_from(self, party: str) -> bool:
        return self.server.runs and self._network.open(party, SERVER)

    def begin(self, workflow: Flow) -> Future:
        """Start a workflow; the future brings what it returns."""
        ended = Future()
        self._soon(lambda: self._task(workflow, None, ended))
        return ended

    def resume(self) -> None:
        """Called when a party came back or a link changed."""
        if self.able:
            ready, self._ready = self._ready, []
            for do in ready:
                do()

    # Workflows

    def _soon(self, task: Callable[[], None]) -> None:
        """A workflow task, as soon as server and worker can do one."""
        if self.able:
            self._kernel.after(self._kernel.rng.uniform(*TASK_S), self._now_or_later, task)
        else:
            self._ready.append(lambda: self._soon(task))

    def _now_or_later(self, task: Callable[[], None]) -> None:
        if self.able:
            task()
        else:
            self._ready.append(lambda: self._soon(task))

    def _task(self, workflow: Flow, value: Any, ended: Future) -> None:
        try:
            wanted = workflow.send(value)
        except StopIteration as stop:
            ended.resolve(stop.value)
            return

        def go_on(value: Any = None) -> None:
            self._soon(lambda: self._task(workflow, value, ended))

        match wanted:
            case Activity() as activity:
                trying = Trying(activity, Future(), self._kernel.now_s)
                trying.ended.then(go_on)
                self._try(trying)
            case Future() as future:
                future.then(go_on)
            case seconds:
                self._kernel.after(seconds, go_on)

    # Activities

    def _try(self, trying: Trying) -> None:
        if trying.ended.done or trying.waiting:
            return
        if not self.able:
            trying.waiting = True
            self._ready.append(lambda: self._try_again(trying))
            return
        trying.number += 1
        number = trying.number

        def ended(value: Any) -> None:
            self.worker.spawn(self._report(trying, number, value))

        self._watch(trying, number, self.worker.life)
        self.worker.spawn(trying.activity.attempt(number)).then(ended)

    def _try_again(self, trying: Trying) -> None:
        trying.waiting = False
        self._try(trying)

    def _report(self, trying: Trying, number: int, value: Any) -> Flow:
        while not self.reachable_from(WORKER):
            yield REPORT_AGAIN_S
        self._take(trying, number, value)

    def _take(self, trying: Trying, number: int, value: Any) -> None:
        if trying.number != number or trying.ended.done:
            return
        if not isinstance(value, Unreachable):
            trying.ended.resolve(value)
        elif not self._give_up(trying, value):
            pause_s = min(RETRY_FIRST_S * 1.5 ** min(number, 8), RETRY_LONGEST_S)
            self._kernel.after(pause_s, self._try, trying)

    def _give_up(self, trying: Trying, value: Unreachable) -> bool:
        limit_s = trying.activity.limit_s
        if limit_s is None or self._kernel.now_s - trying.began_s < limit_s:
            return False
        trying.ended.resolve(value)
        return True

    def _watch(self, trying: Trying, number: int, life: int) -> None:
        self._kernel.after(HEARTBEAT_TIMEOUT_S, self._beats, trying, number, life)

    def _beats(self, trying: Trying, number: int, life: int) -> None:
        """Whether the attempt still gives signs of life; the server's clock stands still with it."""
        if trying.ended.done or trying.number != number:
            return
        if not self.server.runs or (self.able and self.worker.life == life):
            if not (self.server.runs and self._give_up(trying, Unreachable("its time is over"))):
                self._watch(trying, number, life)
            return
        trying.number += 1  # what that attempt still reports does not count
        if not self._give_up(trying, Unreachable("the worker was lost")):
            self._try(trying)
