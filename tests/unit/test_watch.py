"""One vantage's watch, over nodes that a test plays: what is a miss, what is none, and what fails at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from temporalio.testing import ActivityEnvironment

from activities.beats import DEEP, LIVE, READY, NodeVote
from activities.health import Health, WatchReport, WatchRequest
from qnwis.config.registry import Registry
from qnwis.continuity.evidence import NodeEvent, NodeState
from qnwis.continuity.heartbeat import NodeDetector
from qnwis.continuity.topology import Node, NodeStatus
from qnwis.providers.errors import Unreachable
from qnwis.providers.nodes import Probe
from tests.integration.continuity.world import three_nodes, write_registry
from tests.unit.continuity.scenes import FAILED, HEALTHY, UNKNOWN

HOUR = 3600.0
"""An interval in which no second beat comes: whatever happens, happens without one."""


class Played:
    """Healthy nodes; of node-1 the test says what its agent answers."""

    def __init__(self) -> None:
        self.silent = False
        self.not_ready = False
        self.words: list[dict[str, object] | None] = [{"database_up": True}]
        """What its agent says one after another, None for no answer; the last for ever."""
        self.asked: list[str] = []
        """What node-1 was asked."""
        self.stands_still_s = 0.0
        """How long the watcher's own loop does, with each question."""
        self.held_up = (0.0, 0)
        """The same in pieces: how long each is, and how many there are with each question."""
        self.told = asyncio.Event()
        """Its agent tells of a database gone."""
        self.in_hand = False

    async def probe(self, node: Node, path: str, *, timeout_s: float) -> Probe:
        if node.node_id != "node-1":
            return Probe(ok=True, latency_ms=1)
        self.asked.append(path)
        time.sleep(self.stands_still_s)  # noqa: ASYNC251 - this is the stall
        for _ in range(self.held_up[1]):
            time.sleep(self.held_up[0])  # noqa: ASYNC251 - and so is this
            await asyncio.sleep(0)
        if self.silent or (path != LIVE and self.not_ready):
            return Probe(ok=False, latency_ms=1, error="no answer")
        return Probe(ok=True, latency_ms=1)

    async def state(self, node: Node, *, timeout_s: float) -> NodeState:
        if node.node_id == "node-1":
            self.asked.append("state")
        word = self.words.pop(0) if len(self.words) > 1 else self.words[0]
        if word is None:
            raise Unreachable("no answer")
        return NodeState.model_validate({"node_id": node.node_id, "role": node.role, **word})

    async def events(self, node: Node) -> AsyncIterator[NodeEvent]:
        up = NodeEvent(node_id=node.node_id, database_up=True, writable=True, epoch=1)
        yield up
        if node.node_id == "node-1":
            await self.told.wait()
            gone = {"database_up": False, "in_hand": self.in_hand}
            yield up.model_copy(update=gone)
        await asyncio.Event().wait()


APART_S = 0.2
"""Between two questions where their number is counted: a report is written before the next one's answer."""

Watch = asyncio.Task[WatchReport]


class Vantage:
    def __init__(self, home: Path, nodes: Played, **heartbeat: float) -> None:
        beat = {"interval_sec": 0.02, "timeout_sec": 0.2, "failure_threshold": 3, **heartbeat}
        self.cluster = three_nodes("c", heartbeat=beat)
        self._health = Health(Registry(write_registry(home, self.cluster)), nodes)  # type: ignore[arg-type]

    async def watch(self, votes: dict[str, NodeVote] | None = None) -> WatchReport:
        request = WatchRequest(cluster_id="c", vantage="here", votes=votes)
        async with asyncio.timeout(20):
            report: WatchReport = await ActivityEnvironment().run(self._health.watch, request)
            return report

    async def healthy(self) -> dict[str, NodeVote]:
        """The first report, in which every node is healthy."""
        votes = (await self.watch()).votes
        assert {vote.detector.status for vote in votes.values()} == {HEALTHY}
        return votes


async def until(nodes: Played, questions: int) -> None:
    """Return when node-1 was asked that often from now on."""
    before = len(nodes.asked)
    async with asyncio.timeout(20):
        while len(nodes.asked) < before + questions:
            await asyncio.sleep(0.01)


async def seen_after(nodes: Played, watching: Watch, questions: int) -> None:
    """The watch has nothing to report although node-1 was asked that often."""
    await until(nodes, questions)
    assert not watching.done()
    watching.cancel()


async def test_the_first_report_comes_when_every_node_was_asked_once(tmp_path: Path) -> None:
    nodes = Played()
    nodes.silent = True
    votes = (await Vantage(tmp_path, nodes, interval_sec=HOUR, jitter_percent=0).watch()).votes
    seen = {node_id: (vote.detector.status, vote.detector.beats) for node_id, vote in votes.items()}
    assert seen == {"node-1": (UNKNOWN, 1), "node-2": (HEALTHY, 1), "node-3": (HEALTHY, 1)}


async def test_silence_is_reported_when_the_threshold_is_reached(tmp_path: Path) -> None:
    nodes = Played()
    vantage = Vantage(tmp_path, nodes, interval_sec=APART_S)
    before = await vantage.healthy()
    nodes.silent = True
    vote = (await vantage.watch(before)).votes["node-1"]
    assert (vote.detector.status, vote.detector.consecutive_misses) == (FAILED, 3)
    assert vote.detector.last_error == "no answer"
    assert vote.missing_for_s is not None and vote.missing_for_s > 0


async def test_a_database_that_hangs_under_a_living_agent_is_failed(tmp_path: Path) -> None:
    nodes = Played()
    vantage = Vantage(tmp_path, nodes, interval_sec=APART_S)
    before = await vantage.healthy()
    nodes.not_ready, nodes.words = True, [{"database_up": False, "why_down": "no answer within 1 s"}]
    vote = (await vantage.watch(before)).votes["node-1"]
    assert (vote.detector.status, vote.detector.consecutive_misses) == (FAILED, 3)
    assert "no answer within 1 s" in (vote.detector.last_error or "")


@pytest.mark.parametrize(
    "word",
    [{"database_up": True, "why_down": "too many clients already"}, None],
    ids=["connections_exhausted", "an_answer_that_is_slow"],
)
async def test_an_agent_that_is_only_not_ready_is_no_miss(
    tmp_path: Path, word: dict[str, object] | None
) -> None:
    nodes = Played()
    vantage = Vantage(tmp_path, nodes)
    before = await vantage.healthy()
    nodes.not_ready, nodes.words = True, [word]
    watching = asyncio.create_task(vantage.watch(before))
    await seen_after(nodes, watching, 40)


async def test_a_database_that_its_agent_restarts_is_no_miss(tmp_path: Path) -> None:
    nodes = Played()
    vantage = Vantage(tmp_path, nodes)
    before = await vantage.healthy()
    nodes.not_ready, nodes.words = True, [{"database_up": False, "restarting": True}]
    watching = asyncio.create_task(vantage.watch(before))
    await seen_after(nodes, watching, 40)


@pytest.mark.parametrize("said_before", [0, 4], ids=["at_once", "after_a_moment_of_ending_the_rest"])
async def test_the_agents_word_that_its_database_ended_needs_no_second_beat(
    tmp_path: Path, said_before: int
) -> None:
    nodes = Played()
    vantage = Vantage(tmp_path, nodes, interval_sec=HOUR, jitter_percent=0)
    before = await vantage.healthy()
    watching = asyncio.create_task(vantage.watch(before))
    nodes.not_ready = True
    down: dict[str, object] = {"database_up": False}
    nodes.words = [*[down] * said_before, {**down, "database_ended": True, "why_down": "killed"}]
    nodes.told.set()

    detector = (await watching).votes["node-1"].detector
    assert (detector.status, detector.consecutive_misses, detector.beats) == (FAILED, 1, 2)
    assert "its agent says that the database has ended (killed)" in (detector.last_error or "")


async def test_of_a_database_that_was_just_handed_over_nothing_more_is_asked_for_now(tmp_path: Path) -> None:
    """While no client can write, every question costs those time who promote another."""
    nodes = Played()
    vantage = Vantage(tmp_path, nodes, interval_sec=HOUR, jitter_percent=0)
    before = await vantage.healthy()
    watching = asyncio.create_task(vantage.watch(before))
    nodes.not_ready = True
    nodes.words = [
        {"database_up": False, "handed_over": True},
        {"database_up": False, "database_ended": True},
    ]
    nodes.told.set()
    await until(nodes, 3)
    done, _ = await asyncio.wait({watching}, timeout=APART_S)
    assert not done and nodes.asked.count("state") == 1
    watching.cancel()


async def test_an_agent_that_has_its_database_in_hand_is_asked_nothing_before_its_time(
    tmp_path: Path,
) -> None:
    nodes = Played()
    vantage = Vantage(tmp_path, nodes, interval_sec=HOUR, jitter_percent=0)
    before = await vantage.healthy()
    watching, asked = asyncio.create_task(vantage.watch(before)), len(nodes.asked)
    nodes.not_ready, nodes.words, nodes.in_hand = True, [{"database_up": False}], True
    nodes.told.set()
    done, _ = await asyncio.wait({watching}, timeout=APART_S)
    assert not done and len(nodes.asked) == asked
    watching.cancel()


async def test_a_database_that_was_handed_over_and_stays_down_is_failed(tmp_path: Path) -> None:
    nodes = Played()
    vantage = Vantage(tmp_path, nodes, interval_sec=APART_S)
    before = await vantage.healthy()
    nodes.not_ready, nodes.words = True, [{"database_up": False, "handed_over": True}]
    vote = (await vantage.watch(before)).votes["node-1"]
    assert (vote.detector.status, vote.detector.consecutive_misses) == (FAILED, 3)


async def test_a_watcher_that_stood_still_says_nothing_of_that_beat(tmp_path: Path) -> None:
    """Every question to node-1 comes back late and empty, because the watcher itself does."""
    nodes = Played()
    vantage = Vantage(tmp_path, nodes)
    before = await vantage.healthy()
    nodes.silent, nodes.stands_still_s = True, 0.15
    watching = asyncio.create_task(vantage.watch(before))
    await seen_after(nodes, watching, 6)


async def test_an_answer_that_came_counts_though_the_watcher_stood_still(tmp_path: Path) -> None:
    nodes = Played()
    nodes.stands_still_s = 0.15
    await Vantage(tmp_path, nodes).healthy()


async def test_a_watcher_that_is_held_up_by_pieces_says_nothing_of_that_beat(tmp_path: Path) -> None:
    """As when many runs start at once: no piece is long, and together they let no answer through."""
    nodes = Played()
    vantage = Vantage(tmp_path, nodes)
    before = await vantage.healthy()
    nodes.silent, nodes.held_up = True, (0.06, 4)
    watching = asyncio.create_task(vantage.watch(before))
    await seen_after(nodes, watching, 6)


async def test_a_watch_that_follows_upon_another_asks_no_sooner(tmp_path: Path) -> None:
    """Else each change of another node would be one more miss of this one."""
    missed = NodeDetector(status=HEALTHY, consecutive_misses=2, beats=2)
    votes = {
        "node-1": NodeVote(detector=missed, asked_ago_s=0.0, missing_for_s=1.0),
        "node-2": NodeVote(detector=NodeDetector()),
        "node-3": NodeVote(detector=NodeDetector(status=HEALTHY), asked_ago_s=0.0),
    }
    nodes = Played()
    report = await Vantage(tmp_path, nodes, interval_sec=HOUR, jitter_percent=0).watch(votes)
    assert report.votes["node-2"].detector.status is HEALTHY
    assert report.votes["node-1"].detector == missed and nodes.asked == []
    assert (report.votes["node-1"].missing_for_s or 0) >= 1.0


async def test_a_new_topology_ends_the_watch(tmp_path: Path) -> None:
    nodes = Played()
    vantage = Vantage(tmp_path, nodes)
    watching = asyncio.create_task(vantage.watch(await vantage.healthy()))
    await until(nodes, 1)
    write_registry(tmp_path, three_nodes("c", name="renamed"))
    assert (await watching).cluster_changed


async def test_a_new_policy_ends_the_watch_also_one_from_between_two_watches_and_each_once(
    tmp_path: Path,
) -> None:
    nodes = Played()
    vantage = Vantage(tmp_path, nodes)
    cluster = vantage.cluster
    votes = await vantage.healthy()
    watching = asyncio.create_task(vantage.watch(votes))
    await until(nodes, 1)
    write_registry(tmp_path, cluster, approvals=True)
    assert (await watching).cluster_changed
    write_registry(tmp_path, cluster, approvals=False)
    assert (await vantage.watch(votes)).cluster_changed
    await seen_after(nodes, asyncio.create_task(vantage.watch(votes)), 150)


class Streamed(Played):
    """Counts how often node-1 was asked for its events; while it is silent they break off."""

    opened = 0

    async def events(self, node: Node) -> AsyncIterator[NodeEvent]:
        if node.node_id == "node-1":
            self.opened += 1
            if self.silent:
                raise Unreachable("no answer")
        yield NodeEvent(node_id=node.node_id, database_up=True, writable=True, epoch=1)
        while node.node_id != "node-1" or not self.silent:
            await asyncio.sleep(0.01)


async def test_a_node_that_is_silent_is_asked_for_no_events_until_it_answers(tmp_path: Path) -> None:
    nodes = Streamed()
    vantage = Vantage(tmp_path, nodes, interval_sec=0.05)
    before = await vantage.healthy()
    watching = asyncio.create_task(vantage.watch(before))
    await until(nodes, 2)
    assert nodes.opened
    nodes.silent = True
    failed, opened = (await watching).votes, nodes.opened
    watching = asyncio.create_task(vantage.watch(failed))
    await until(nodes, 4)
    assert nodes.opened == opened
    nodes.silent = False
    assert (await watching).votes["node-1"].detector.status is HEALTHY
    assert nodes.opened == opened + 1


async def test_an_agent_that_lives_is_asked_for_its_events_though_its_database_is_down(
    tmp_path: Path,
) -> None:
    """It tells when what it starts ends again."""
    nodes = Streamed()
    vantage = Vantage(tmp_path, nodes, interval_sec=0.05)
    before = await vantage.healthy()
    nodes.not_ready, nodes.words = True, [{"database_up": False}]
    failed = (await vantage.watch(before)).votes
    opened, watching = nodes.opened, asyncio.create_task(vantage.watch(failed))
    await seen_after(nodes, watching, 4)
    assert nodes.opened == opened + 1


async def test_each_health_question_is_asked_and_answered_for_people(tmp_path: Path) -> None:
    votes = await Vantage(tmp_path, Played()).healthy()
    assert votes["node-1"].health.keys() <= {LIVE, READY, DEEP}
    assert all(answer.ok and answer.within_budget for answer in votes["node-1"].health.values())
    assert votes["node-1"].detector.status is NodeStatus.HEALTHY
