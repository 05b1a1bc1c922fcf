"""The guardian, as `workflows/guardian.py` has it: takes votes in, decides by the real rules, starts runs.

While a run of its own goes on it watches and judges as ever, and starts nothing.
"""

from __future__ import annotations

from qnwis.continuity.detection import Verdict, judge, needs_evidence
from qnwis.continuity.evidence import ClusterEvidence, current_primary
from qnwis.continuity.guardian_rules import (
    RETRY_FIRST,
    RETRY_LONGEST,
    Hold,
    PastRun,
    Pause,
    Propose,
    Start,
    decide,
    remembered,
)
from qnwis.continuity.heartbeat import NodeStatus
from qnwis.continuity.region_wait import (
    FailedSince,
    Heard,
    RegionWord,
    answering,
    failed_after,
    heard_after,
    region_hold,
)
from qnwis.continuity.run import Detection, FailoverRequest
from tests.chaos.facts import PlayedRun

from .kernel import Flow, Future
from .machine import BEGIN, moment
from .reach import Place, collect
from .runbook import Run
from .temporal import WORKER, Activity, Temporal
from .vantage import Votes

WATCHED_BEFORE_S = 2.0
"""So long before the story it began to watch: the lab's grace is just over."""


class Guardian:
    def __init__(self, place: Place, temporal: Temporal) -> None:
        self._place = place
        self._temporal = temporal
        self._votes: dict[str, Votes] = {}
        self._seen: dict[str, Votes] = {}
        self._woken = Future()
        self._primary: str | None = None
        self._history: tuple[PastRun, ...] = ()
        self._pause: Pause | None = None
        self._watching_since = moment(-WATCHED_BEFORE_S)
        self._retry_at_s: float | None = None
        self._retry_after = RETRY_FIRST
        self._changed_at = self._watching_since
        self._locked = False
        """A run holds the cluster's lock."""
        self._own = False
        """It is one of this guardian's."""
        self._failed: FailedSince | None = None
        self._heard: dict[str, Heard] = {}
        self.verdicts: dict[str, Verdict] = {}
        self._proposed = False
        """A plan waits for people."""
        self._runs = 0
        self._again = False
        self.ended: list[PlayedRun] = []
        self.held_by: list[str] = []

    # Being spoken to

    def take(self, vantage: str, votes: Votes) -> None:
        self._votes[vantage] = votes
        self._votes_changed()

    def lost(self, vantage: str) -> None:
        """It was not heard from for too long, and abstains."""
        self._votes.pop(vantage, None)
        self._votes_changed()

    def _votes_changed(self) -> None:
        self._changed_at, self._retry_after = moment(self._place.now()), RETRY_FIRST
        self._wake()

    def hear(self, word: RegionWord) -> None:
        """Of the region's guardian."""
        now = moment(self._place.now())
        self._heard[word.region] = heard_after(self._heard.get(word.region), word, now)
        self._wake()

    @property
    def primary(self) -> str | None:
        return self._primary

    def pause(self, by: str, reason: str) -> None:
        self._pause = Pause(by=by, reason=reason, since=moment(self._place.now()))
        self._wake()

    def resume(self) -> None:
        self._pause = None
        self._wake()

    def execute(self, by: str, reason: str, *, even_if_healthy: bool) -> None:
        """A person's failover; the lock refuses a second run."""
        if not self._locked and self._temporal.server.runs:
            request = FailoverRequest(
                cluster_id=self._place.cluster.cluster_id,
                initiated_by=by,
                reason=reason,
                even_if_healthy=even_if_healthy,
            )
            self._begin(request).then(self._tell)

    def approve(self) -> None:
        """What a person agrees to is the plan that waits; without one there is nothing to agree to."""
        if self._proposed and not self._locked and self._temporal.server.runs:
            self._begin(self._request()).then(self._tell)

    def _wake(self) -> None:
        self._again = True
        self._woken.resolve()

    # Living

    def flow(self) -> Flow:
        yield from self._look_around()
        while True:
            self._again = False
            yield from self._act()
            if self._again:
                continue
            self._woken = woken = Future()
            if self._retry_at_s is not None:
                rest_s = max(0.0, self._retry_at_s - self._place.now())
                self._place.kernel.after(rest_s, woken.resolve, True)
            if (yield woken):
                self._retry_at_s = None

    def _look_around(self) -> Flow:
        evidence: ClusterEvidence = yield Activity(lambda number: collect(self._place, WORKER))
        self._primary = current_primary(self._place.cluster, evidence)

    def _act(self) -> Flow:
        cluster = self._place.cluster
        self._seen = dict(self._votes)  # what comes meanwhile is taken in before the next decision
        votes = {v: {n: w.detector.status for n, w in nodes.items()} for v, nodes in self._seen.items()}
        if self._primary is None:
            yield from self._look_around()
        evidence: ClusterEvidence | None = None
        if needs_evidence(cluster, votes):
            evidence = yield Activity(lambda number: collect(self._place, WORKER))
            assert evidence is not None
            if any(node.state is not None and node.state.writable for node in evidence.nodes):
                self._primary = current_primary(cluster, evidence)
        self.verdicts = judge(cluster, votes, evidence)
        now = moment(self._place.now())
        self._failed = failed_after(self._failed, self.verdicts.get(self._primary or ""), now)
        if self._own:
            return
        decision = decide(
            policy=self._place.policy,
            primary=self.verdicts.get(self._primary or ""),
            history=self._history,
            pause=self._pause,
            watching_since=self._watching_since,
            changed_at=self._changed_at,
            now=now,
            region=self._left_to_the_region(),
        )
        self._retry_at_s, self._proposed = None, isinstance(decision, Propose)
        match decision:
            case Start():
                self._fail_over()
            case Propose():
                self._held("strategy_manual")
            case Hold(refusal=refusal, look_again=True):
                self._held(refusal.rule)
                self._try_again_later()
            case Hold(refusal=refusal, until=until):
                self._held(refusal.rule)
                self._retry_at_s = None if until is None else (until - BEGIN).total_seconds() + 0.001

    def _held(self, rule: str) -> None:
        if self.held_by[-1:] != [rule]:
            self.held_by.append(rule)

    def _left_to_the_region(self) -> Hold | None:
        cluster, failed = self._place.cluster, self._failed
        if failed is None:
            return None
        region = cluster.node(failed.node_id).region
        sights = {v: {n: w.detector for n, w in nodes.items()} for v, nodes in self._seen.items()}
        answers = answering(cluster, sights, failed.node_id)
        now = moment(self._place.now())
        return region_hold(self._place.policy, region, self._heard.get(region), failed.at, answers, now)

    def _fail_over(self) -> None:
        if self._locked:
            self._try_again_later()
            return
        self._own = True
        self._begin(self._request()).then(lambda ended: self._temporal.begin(self._take_in_the_end(ended)))

    def _take_in_the_end(self, ended: PlayedRun) -> Flow:
        """What its own run came to decides on the next attempt."""
        yield from self._look_around()
        self._remember(ended)
        self._own = False
        self._wake()

    def _tell(self, ended: PlayedRun) -> None:
        self._temporal.begin(self._heard_of(ended))

    def _heard_of(self, ended: PlayedRun) -> Flow:
        """Of a run that it did not start."""
        self._remember(ended)
        yield from self._look_around()
        self._wake()

    def _begin(self, request: FailoverRequest) -> Future:
        self._runs += 1
        self._locked = True
        run = Run(self._place, request, f"run-{self._runs}")
        ended = self._temporal.begin(run.flow())
        ended.then(self._ended)
        return ended

    def _ended(self, run: PlayedRun) -> None:
        self._locked = False
        self.ended.append(run)

    def _request(self) -> FailoverRequest:
        assert self._primary is not None
        votes = {v: nodes[self._primary] for v, nodes in self._seen.items() if self._primary in nodes}
        failed = {v: vote for v, vote in votes.items() if vote.detector.status is NodeStatus.FAILED}
        misses = [vote.missing_since_s for vote in failed.values() if vote.missing_since_s is not None]
        return FailoverRequest(
            cluster_id=self._place.cluster.cluster_id,
            initiated_by=f"guardian-{self._place.cluster.cluster_id}",
            reason=f"{self._primary} failed, seen from {', '.join(sorted(failed))}",
            automatic=True,
            detection=Detection(
                node_id=self._primary,
                vantages=tuple(sorted(failed)),
                misses=max(vote.detector.consecutive_misses for vote in failed.values()),
                first_miss_at=moment(min(misses)) if misses else None,
                detected_at=moment(self._place.now()),
            ),
        )

    def _try_again_later(self) -> None:
        self._retry_at_s = self._place.now() + self._retry_after.total_seconds()
        self._retry_after = min(self._retry_after * 2, RETRY_LONGEST)

    def _remember(self, run: PlayedRun) -> None:
        now = moment(self._place.now())
        ended = PastRun(run_id=run.run_id, outcome=run.outcome, ended_at=now)
        self._history = remembered(self._history, ended, self._place.policy, now)
