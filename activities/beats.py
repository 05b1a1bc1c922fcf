"""The beats of one watch: each node asked at its time, and what is seen counted by its detector."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable, Mapping
from enum import Enum
from time import monotonic
from typing import NamedTuple

from qnwis.continuity.detection import Word, own_word
from qnwis.continuity.heartbeat import NodeDetector, next_beat_s, observe, observe_end
from qnwis.continuity.model import Model
from qnwis.continuity.topology import Cluster, Node, NodeStatus
from qnwis.providers.errors import Unreachable
from qnwis.providers.nodes import Nodes, Probe

from .stalls import Stalls

LIVE, READY, DEEP = "/health/live", "/health/ready", "/health/deep"
BUDGET_MS = {LIVE: 100.0, READY: 200.0, DEEP: 500.0}
"""In what time each health question is expected to be answered. Late is reported, and never a miss."""
READY_EVERY = 2
"""Beats between two readiness checks of a node of which no beat was missed."""
DEEP_EVERY = 6
"""Beats between two deep checks."""
SETTLED_WITHIN_S = 0.5
"""How long an agent that tells of a database gone may take to say what it makes of that."""
SETTLE_EVERY_S = 0.02


class Answer(Model):
    """The last answer to one health question."""

    ok: bool
    latency_ms: float
    within_budget: bool
    error: str | None = None


class NodeVote(Model):
    """What one vantage says of one node."""

    detector: NodeDetector
    asked_ago_s: float | None = None
    """Since its last finished beat began, by the watcher's monotonic clock; None when there was none."""
    missing_for_s: float | None = None
    """Since the first of the misses in a row, by the same clock; None after an answer."""
    health: Mapping[str, Answer] = {}
    """By health path. For people: the detector alone decides."""


class Sight(Enum):
    ANSWER = "answer"
    MISS = "miss"
    END = "end"  # the agent's word that its database has ended
    NOTHING = "nothing"  # neither: the agent starts its database, or has just handed it over


class Seen(NamedTuple):
    """What one beat came to."""

    sight: Sight
    why: str | None = None


Told = Callable[[Node, str, Probe], None]
"""Hears of every health question that was asked: of which node, by which path, and how it ended."""


class Beats:
    """One watch: a task per node, a detector per node, one event that ends it."""

    def __init__(
        self,
        vantage: str,
        known: Mapping[str, NodeVote] | None,
        cluster: Cluster,
        nodes: Nodes,
        stalls: Stalls,
        told: Told | None = None,
    ) -> None:
        self._vantage = vantage
        self._known = None if known is None else {n: vote.detector.status for n, vote in known.items()}
        self._cluster = cluster
        self._config = cluster.heartbeat
        self._nodes = nodes
        self._stalls = stalls
        self._told = told
        self.reported = asyncio.Event()
        """There is something to report."""
        unseen, now = NodeVote(detector=NodeDetector()), monotonic()
        before = {n.node_id: (known or {}).get(n.node_id, unseen) for n in cluster.nodes}
        self._detectors = {node_id: vote.detector for node_id, vote in before.items()}
        self._health = {node_id: dict(vote.health) for node_id, vote in before.items()}
        self._asked_at = {n: now - v.asked_ago_s for n, v in before.items() if v.asked_ago_s is not None}
        self._missing_since = {
            n: now - v.missing_for_s for n, v in before.items() if v.missing_for_s is not None
        }

    def detectors(self) -> dict[str, NodeDetector]:
        """As they are now, by node."""
        return dict(self._detectors)

    def votes(self) -> dict[str, NodeVote]:
        return {
            node_id: NodeVote(
                detector=detector,
                asked_ago_s=_ago_s(self._asked_at.get(node_id)),
                missing_for_s=_ago_s(self._missing_since.get(node_id)),
                health=self._health[node_id],
            )
            for node_id, detector in self._detectors.items()
        }

    async def run(self) -> None:
        """Beat every node. Runs until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for node in self._cluster.nodes:
                tasks.create_task(self._beat_on(node))

    async def _beat_on(self, node: Node) -> None:
        """Beat one node. When its event stream breaks, or tells of a database gone, the next beat is now."""
        poked, heard = asyncio.Event(), asyncio.Event()
        self._tell_if_it_lives(node, heard)
        tripwire = asyncio.create_task(self._tripwire(node, poked, heard))
        # A watch that follows upon another keeps its rhythm: misses must not come faster for it.
        started = self._asked_at.get(node.node_id, monotonic())
        beat = 1 if node.node_id in self._asked_at else 0
        try:
            while True:
                due = started + next_beat_s(self._config, f"{self._vantage}/{node.node_id}", beat)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(max(0.0, due - monotonic())):
                        await poked.wait()
                hurried = poked.is_set()
                if hurried:
                    poked.clear()
                    started, beat = monotonic(), 0
                await self._beat(node, beat, hurried=hurried)
                self._tell_if_it_lives(node, heard)
                # Of the beats that came due during one that took long, only the last is made up for.
                beat = max(beat + 1, math.floor((monotonic() - started) / self._config.interval_sec))
        finally:
            tripwire.cancel()

    def _tell_if_it_lives(self, node: Node, heard: asyncio.Event) -> None:
        live = self._health[node.node_id].get(LIVE)
        if live is None or live.ok:
            heard.set()
        else:
            heard.clear()

    async def _beat(self, node: Node, beat: int, *, hurried: bool) -> None:
        mark = self._stalls.mark()
        began = monotonic()
        seen = await self._look(node, beat, hurried=hurried)
        self._asked_at[node.node_id] = began
        # What was heard was heard; only of a silence it is not known whose it was.
        if seen.sight is not Sight.MISS or not self._stalls.since(mark):
            self._observe(node.node_id, seen)
        self._report_if_due(node.node_id)
        if seen.sight is Sight.ANSWER and beat % DEEP_EVERY == 0:
            await self._ask(node, DEEP)

    async def _look(self, node: Node, beat: int, *, hurried: bool) -> Seen:
        live = await self._ask(node, LIVE)
        if not live.ok:
            return Seen(Sight.MISS, live.error)
        detector = self._detectors[node.node_id]
        # An agent may answer for a database that hangs: in doubt, its answer alone is never enough.
        in_doubt = detector.consecutive_misses > 0 or detector.status is not NodeStatus.HEALTHY
        if not in_doubt and beat % READY_EVERY != 0:
            return Seen(Sight.ANSWER)
        if (await self._ask(node, READY)).ok:
            return Seen(Sight.ANSWER)
        return await self._word(node, hurried=hurried)

    async def _word(self, node: Node, *, hurried: bool) -> Seen:
        """Not ready is not down (connections may be exhausted); only the agent's own word for it is."""
        patient_until = monotonic() + (SETTLED_WITHIN_S if hurried else 0.0)
        while True:
            try:
                state = await self._nodes.state(node, timeout_s=self._config.timeout_sec)
            except Unreachable:
                return Seen(Sight.ANSWER)  # it answered that it lives; slow is not down
            match own_word(node, state):
                case Word.UP:
                    return Seen(Sight.ANSWER)
                case Word.ENDED:
                    return Seen(Sight.END, f"its agent says that the database has ended ({state.why_down})")
                case Word.RESTARTING:
                    return Seen(Sight.NOTHING)
                case Word.DOWN if hurried and state.handed_over:
                    # That is what it makes of it: to be asked again and again would hold up whoever takes
                    # over. The beats that follow count.
                    return Seen(Sight.NOTHING)
                case Word.DOWN if monotonic() >= patient_until:
                    return Seen(Sight.MISS, f"its agent says that the database is down ({state.why_down})")
                case _:
                    await asyncio.sleep(SETTLE_EVERY_S)

    async def _ask(self, node: Node, path: str) -> Answer:
        probe = await self._nodes.probe(node, path, timeout_s=self._config.timeout_sec)
        if self._told is not None:
            self._told(node, path, probe)
        answer = Answer(
            ok=probe.ok,
            latency_ms=round(probe.latency_ms, 1),
            within_budget=probe.latency_ms <= BUDGET_MS[path],
            error=probe.error,
        )
        self._health[node.node_id] = {**self._health[node.node_id], path: answer}
        return answer

    def _observe(self, node_id: str, seen: Seen) -> None:
        was = self._detectors[node_id]
        match seen.sight:
            case Sight.ANSWER:
                self._detectors[node_id] = observe(was, True, self._config)
                self._missing_since.pop(node_id, None)
            case Sight.MISS:
                self._detectors[node_id] = observe(was, False, self._config, seen.why)
                self._missing_since.setdefault(node_id, monotonic())
            case Sight.END:
                self._detectors[node_id] = observe_end(was, self._config, seen.why or "")
                self._missing_since.setdefault(node_id, monotonic())
            case Sight.NOTHING:
                pass

    def _report_if_due(self, node_id: str) -> None:
        if self._known is None:
            due = self._asked_at.keys() == self._detectors.keys()
        else:
            due = self._detectors[node_id].status is not self._known.get(node_id, NodeStatus.UNKNOWN)
        if due:
            self.reported.set()

    async def _tripwire(self, node: Node, poked: asyncio.Event, heard: asyncio.Event) -> None:
        """Hold the agent's event stream open; when it breaks, or tells of a database gone, poke the beat.

        A stream that cannot be opened pokes nothing: each poke is one more beat, and a node's misses must
        not come faster than its detector's interval. `heard`: it answered when it was asked last; whoever
        does not has no stream either, and where a region is lost the tries would add up.
        """
        while True:
            await heard.wait()
            opened = False
            with contextlib.suppress(Unreachable):
                async for event in self._nodes.events(node):
                    # To be asked at once, by every vantage, would hold up whoever takes over from one that
                    # was handed over, and the start of one that is started again.
                    if opened and not event.database_up and not event.in_hand and node.holds_data:
                        poked.set()
                    opened = True
            if opened:
                poked.set()
            await asyncio.sleep(self._config.interval_sec)


def _ago_s(at: float | None) -> float | None:
    return None if at is None else monotonic() - at
