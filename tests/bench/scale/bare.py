"""The same heartbeats by a bare asyncio loop: as little as asking by HTTP can cost in Python.

    python -m tests.bench.scale.bare --clusters 1000 --seconds 60
    python -m tests.bench.scale.bare --clusters 1000 --seconds 60 --through 127.0.0.1:9115

Each node has one connection, and is asked on the schedule of a vantage's watch: whether it lives at each
beat, whether it is ready at every second, whether all is well at every sixth. Nothing is made of the
answers.

`through` a blackbox exporter: the exporter asks the nodes, and this process only tells it when, on as many
connections as it needs, as Prometheus does. Prints what it came to as JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence

from activities.beats import DEEP, DEEP_EVERY, LIVE, READY, READY_EVERY
from qnwis.continuity.heartbeat import next_beat_s
from qnwis.continuity.model import Model

from .world import AGENT_PORT, HEARTBEAT, NODES, address, every_node

Place = tuple[str, int]
Done = Callable[[bool], None]
"""Hears whether the answer was good."""
MODULE = "health"
"""Of the exporter's configuration."""
AT_ONCE = 200
"""Connections that are made at the same time, and such as lead to one place. Whoever cannot be asked for want
of one is not asked, which counts as failed: more of them would only hold up an exporter that is behind."""


class Asked(Model):
    """What it came to."""

    seconds: float
    cpu_s: float
    """Of this process, once every node was connected."""
    answered: int
    failed: int


class Line(asyncio.Protocol):
    """A connection on which one question at a time is asked."""

    def __init__(self, good: bytes) -> None:
        self._good = good
        self._done: Done | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None
        self._answer = b""

    @property
    def open(self) -> bool:
        return self._transport is not None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def ask(self, request: bytes, done: Done) -> None:
        assert self._transport is not None, "only a line that is open is asked"
        self._done, self._answer = done, b""
        self._timer = asyncio.get_running_loop().call_later(HEARTBEAT.timeout_sec, self.end)
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._answer = data = self._answer + data
        head = data.find(b"\r\n\r\n")
        if head >= 0 and len(data) >= head + 4 + _length(data[:head]):
            self._ended(self._good in data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._ended(False)

    def end(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _ended(self, good: bool) -> None:
        done, self._done = self._done, None
        if done is not None and self._timer is not None:
            self._timer.cancel()
            done(good)


def _length(head: bytes) -> int:
    at = head.lower().find(b"content-length:")
    return int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0


class Lines:
    """Connections by where they lead; one that is idle is used again."""

    def __init__(self, good: bytes) -> None:
        self._good = good
        self._idle: dict[Place, list[Line]] = {}
        self._made: Counter[Place] = Counter()
        self._connecting: set[asyncio.Task[None]] = set()

    def stop(self) -> None:
        for task in self._connecting:
            task.cancel()

    async def connect(self, place: Place) -> Line:
        loop = asyncio.get_running_loop()
        _, line = await loop.create_connection(lambda: Line(self._good), *place)
        return line

    async def connect_all(self, places: Sequence[Place]) -> None:
        for at in range(0, len(places), AT_ONCE):
            some = places[at : at + AT_ONCE]
            for place, line in zip(some, await asyncio.gather(*map(self.connect, some)), strict=True):
                self._idle.setdefault(place, []).append(line)
                self._made[place] += 1

    def ask(self, place: Place, request: bytes, done: Done) -> None:
        idle = self._idle.setdefault(place, [])
        while idle:
            line = idle.pop()
            if line.open:
                self._ask(line, idle, request, done)
                return
            self._made[place] -= 1
        if self._made[place] >= AT_ONCE:
            done(False)
            return
        self._made[place] += 1
        task = asyncio.ensure_future(self._ask_anew(place, request, done))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    def _ask(self, line: Line, idle: list[Line], request: bytes, done: Done) -> None:
        def answered(good: bool) -> None:
            idle.append(line)
            done(good)

        line.ask(request, answered)

    async def _ask_anew(self, place: Place, request: bytes, done: Done) -> None:
        try:
            line = await self.connect(place)
        except OSError:
            self._made[place] -= 1
            done(False)
            return
        self._ask(line, self._idle[place], request, done)


class Node:
    """One node's beats."""

    def __init__(self, beats: Beats, number: int, index: int, started: float) -> None:
        self._beats = beats
        self._name = f"bare/{number}/{index}"
        self._started = started
        self._beat = 0
        self._place, self._requests = beats.requests(address(number, index))
        self._left: list[str] = []

    def schedule(self) -> None:
        due = self._started + next_beat_s(HEARTBEAT, self._name, self._beat)
        asyncio.get_running_loop().call_at(due, self._begin)

    def _begin(self) -> None:
        self._left = [LIVE]
        if self._beat % READY_EVERY == 0:
            self._left.append(READY)
        if self._beat % DEEP_EVERY == 0:
            self._left.append(DEEP)
        self._next()

    def _next(self) -> None:
        self._beats.lines.ask(self._place, self._requests[self._left.pop(0)], self._answered)

    def _answered(self, good: bool) -> None:
        self._beats.answered += good
        self._beats.failed += not good
        if good and self._left:
            self._next()
            return
        self._beat += 1
        self.schedule()


class Beats:
    """All of them, and what is counted."""

    def __init__(self, through: Place | None) -> None:
        self.answered = self.failed = 0
        self._through = through
        self.lines = Lines(b" 200 OK" if through is None else b"\nprobe_success 1\n")

    def requests(self, host: str) -> tuple[Place, dict[str, bytes]]:
        """Where the node is asked, and the request by health path."""
        if self._through is None:
            place, paths = (host, AGENT_PORT), {path: path for path in (LIVE, READY, DEEP)}
        else:
            place = self._through
            target = f"http://{host}:{AGENT_PORT}"
            paths = {path: f"/probe?module={MODULE}&target={target}{path}" for path in (LIVE, READY, DEEP)}
        return place, {
            path: f"GET {asked} HTTP/1.1\r\nHost: {place[0]}:{place[1]}\r\n\r\n".encode()
            for path, asked in paths.items()
        }

    async def run(self, clusters: int, seconds: float) -> Asked:
        if self._through is None:
            await self.lines.connect_all([(address(*node), AGENT_PORT) for node in every_node(clusters)])
        began, nodes = asyncio.get_running_loop().time(), clusters * NODES
        spread = HEARTBEAT.interval_sec / nodes  # as watches that did not begin at the same moment
        for place, (number, index) in enumerate(every_node(clusters)):
            Node(self, number, index, began + place * spread).schedule()
        cpu_s = time.process_time()
        await asyncio.sleep(seconds)
        self.lines.stop()
        return Asked(
            seconds=seconds,
            cpu_s=time.process_time() - cpu_s,
            answered=self.answered,
            failed=self.failed,
        )


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests.bench.scale.bare")
    parser.add_argument("--clusters", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--through", help="HOST:PORT of a blackbox exporter")
    options = parser.parse_args()
    through: Place | None = None
    if options.through is not None:
        host, _, port = options.through.rpartition(":")
        through = (host, int(port))
    asked = asyncio.run(Beats(through).run(options.clusters, options.seconds))
    print(asked.model_dump_json())


if __name__ == "__main__":
    main()
