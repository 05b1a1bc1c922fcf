"""The guardian, as `workflows/guardian.py` has it: takes votes in, decides by the real rules, starts runs."""

from __future__ import annotations

from datetime import timedelta

from qnwis.continuity.evidence import ClusterEvidence, current_primary
from qnwis.continuity.guardian_rules import Hold, PastRun, Pause, Propose, Start, agreed_status, decide
from qnwis.continuity.heartbeat import NodeStatus
from qnwis.continuity.run import Detection, FailoverRequest, RunOutcome
from tests.chaos.facts import PlayedRun

from .agent import BEGIN, moment
from .kernel import Flow, Future
from .runbook import Place, Run, collect
from .temporal import WORKER, Activity, Temporal
from .vantage import Votes

RETRY_FIRST_S, RETRY_LONGEST_S = 2.0, 300.0
WATCHED_BEFORE_S = 2.0
"""So long before the story it began to watch: the lab's grace is just over."""


class Guardian:
    def __init__(self, place: Place, temporal: Temporal) -> None:
        self._place = place
        self._temporal = temporal
        self._votes: dict[str, Votes] = {}
        self._woken = Future()
        self._primary: str | None = None
        self._history: list[PastRun] = []
        self._pause: Pause | None = None
        self._watching_since = moment(-WATCHED_BEFORE_S)
        self._retry_at_s: float | None = None
        self._retry_after_s = RETRY_FIRST_S
        self._locked = False
        """A run holds the cluster's lock."""
        self._runs = 0
        self.ended: list[PlayedRun] = []
        self.held_by: list[str] = []

    # Being spoken to

    def take(self, vantage: str, votes: Votes) -> None:
        self._votes[vantage] = votes
        self._retry_at_s, self._retry_after_s = None, RETRY_FIRST_S
        self._woken.resolve()

    def pause(self, by: str, reason: str) -> None:
        self._pause = Pause(by=by, reason=reason, since=moment(self._place.now()))
        self._woken.resolve()

    def resume(self) -> None:
        self._pause = None
        self._woken.resolve()

    def execute(self, by: str, reason: str, *, even_if_healthy: bool) -> None:
        """A person's failover; the lock refuses a second run."""
        if not self._locked and self._temporal.server.runs:
            request = FailoverRequest(
                cluster_id=self._place.cluster.cluster_id,
                initiated_by=by,
                reason=reason,
                even_if_healthy=even_if_healthy,
            )
            self._begin(request).then(lambda ended: self._temporal.begin(self._heard_of(ended)))

    # Living

    def flow(self) -> Flow:
        yield from self._look_around()
        while True:
            yield from self._act()
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
        cluster, votes = self._place.cluster, self._votes
        said = {v: {n: w.detector.status for n, w in votes[v].items()} for v in votes}
        if self._primary is None:
            yield from self._look_around()
        decision = decide(
            policy=self._place.policy,
            primary_node_id=self._primary,
            statuses=agreed_status(said, len(cluster.vantages)),
            history=self._history,
            pause=self._pause,
            watching_since=self._watching_since,
            now=moment(self._place.now()),
        )
        match decision:
            case Start():
                yield from self._fail_over()
            case Propose():
                self._held("strategy_manual")
            case Hold(refusal=refusal, until=until):
                self._held(refusal.rule)
                self._retry_at_s = None if until is None else (until - BEGIN).total_seconds() + 0.001

    def _held(self, rule: str) -> None:
        if self.held_by[-1:] != [rule]:
            self.held_by.append(rule)

    def _fail_over(self) -> Flow:
        if self._locked:
            self._try_again_later()
            return
        ended: PlayedRun = yield self._begin(self._request())
        yield from self._look_around()
        self._remember(ended)
        if ended.outcome is not RunOutcome.COMPLETED:
            self._try_again_later()

    def _heard_of(self, ended: PlayedRun) -> Flow:
        """Of a run that it did not start."""
        self._remember(ended)
        yield from self._look_around()
        self._woken.resolve()

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
        votes = {v: nodes[self._primary] for v, nodes in self._votes.items() if self._primary in nodes}
        failed = {v: w for v, w in votes.items() if w.detector.status is NodeStatus.FAILED}
        misses = [w.first_miss_s for w in failed.values() if w.first_miss_s is not None]
        return FailoverRequest(
            cluster_id=self._place.cluster.cluster_id,
            initiated_by=f"guardian-{self._place.cluster.cluster_id}",
            reason=f"{self._primary} failed, seen from {', '.join(sorted(failed))}",
            automatic=True,
            detection=Detection(
                node_id=self._primary,
                vantages=tuple(sorted(failed)),
                misses=max(w.detector.consecutive_misses for w in failed.values()),
                first_miss_at=moment(min(misses)) if misses else None,
                detected_at=moment(self._place.now()),
            ),
        )

    def _try_again_later(self) -> None:
        self._retry_at_s = self._place.now() + self._retry_after_s
        self._retry_after_s = min(self._retry_after_s * 2, RETRY_LONGEST_S)

    def _remember(self, run: PlayedRun) -> None:
        ended = PastRun(run_id=run.run_id, outcome=run.outcome, ended_at=moment(self._place.now()))
        self._history = [r for r in self._history if r.ended_at >= ended.ended_at - timedelta(hours=1)]
        self._history.append(ended)
