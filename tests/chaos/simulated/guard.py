"""The guards beside a writable database: they end it when its lease is over, or when its agent is gone.

The real ones are two; here they share every fate, as the stories strike both.
"""

from __future__ import annotations

from .database import Database
from .kernel import Kernel, Process
from .machine import Clock

LATE_S = 0.004
"""It needs up to so long to be scheduled and to end every process."""


class Guard:
    def __init__(self, kernel: Kernel, node_id: str, clock: Clock, database: Database) -> None:
        self.process = Process(kernel, node_id)
        self._kernel = kernel
        self._clock = clock
        self._database = database
        self._until = 0.0

    def tell(self, until: float) -> None:
        """The lease lasts until then, by the node's clock. A guard that is gone is started again."""
        if self.process.alive:
            self.process.do(self._later, until)
            return
        self.process.start()
        self._until = until
        self._wait()

    def over(self) -> None:
        """The database is no longer a writable one."""
        self.process.kill()

    def agent_gone(self) -> None:
        self.process.do(self.end_all)

    def end_all(self) -> None:
        self._database.kill()
        self.process.kill()

    def _later(self, until: float) -> None:
        self._until = max(self._until, until)

    def _wait(self) -> None:
        late_s = self._kernel.rng.uniform(0, LATE_S)
        rest_s = self._clock.true_s(self._until) - self._kernel.now_s
        self.process.after(max(0.0, rest_s) + late_s, self._check)

    def _check(self) -> None:
        if self._clock.now() >= self._until:
            self.end_all()
        else:
            self._wait()
