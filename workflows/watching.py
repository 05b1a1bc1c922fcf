"""The vantages' watches of one cluster: who has a say, what it is, and who abstains and why."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime, timedelta

from temporalio import workflow
from temporalio.exceptions import ActivityError, TimeoutError, is_cancelled_exception

from . import options
from .names import vantage_queue

with workflow.unsafe.imports_passed_through():
    from activities.beats import NodeVote
    from activities.health import Health, WatchReport, WatchRequest
    from qnwis.continuity.detection import Votes
    from qnwis.continuity.heartbeat import HeartbeatConfig
    from qnwis.continuity.model import Model
    from qnwis.continuity.region_wait import Sights
    from qnwis.continuity.run import Detection
    from qnwis.continuity.topology import Cluster, NodeStatus

NOT_YET = "not heard from yet"


class Statement(Model):
    """What one vantage said last, and when that was taken in."""

    votes: Mapping[str, NodeVote]
    """By node."""
    at: datetime


class Watches:
    """One watch going per vantage. A vantage whose watch broke off abstains until it reports again."""

    def __init__(self, cluster_id: str, statements: Mapping[str, Statement], abstaining: Mapping[str, str]):
        self._cluster_id = cluster_id
        self.statements = dict(statements)
        """By vantage; one that abstains has none."""
        self.abstaining = dict(abstaining)
        """Why, by vantage."""
        self.spoke_anew = False
        """Of the reports taken in last, one came from a vantage that had no say before."""
        self._running: dict[str, asyncio.Task[WatchReport]] = {}
        self._silent_s = HeartbeatConfig().watch_timeout_sec

    def keep_going(self, cluster: Cluster) -> None:
        """A watch for each vantage of the topology, and for none that has left it."""
        self._silent_s = cluster.heartbeat.watch_timeout_sec
        for gone in {*self._running, *self.statements, *self.abstaining} - {*cluster.vantages}:
            self.statements.pop(gone, None)
            self.abstaining.pop(gone, None)
            if gone in self._running:
                self._running.pop(gone).cancel()
        for vantage in cluster.vantages:
            if vantage not in self._running:
                self._running[vantage] = asyncio.create_task(self._watch(vantage))

    async def _watch(self, vantage: str) -> WatchReport:
        said = self.statements.get(vantage)
        if said is None:
            self.abstaining.setdefault(vantage, NOT_YET)
        return await workflow.execute_activity_method(
            Health.watch,
            WatchRequest(
                cluster_id=self._cluster_id, vantage=vantage, votes=None if said is None else said.votes
            ),
            **options.watch(
                f"watch from {vantage}",
                vantage_queue(vantage),
                silent_s=self._silent_s,
                spoken=said is not None,
            ),
        )

    @property
    def something_happened(self) -> bool:
        return any(watch.done() for watch in self._running.values())

    def take_in(self) -> list[WatchReport]:
        """The reports that came; a watch that broke off takes its vantage's say away."""
        reports = []
        self.spoke_anew = False
        for vantage in [vantage for vantage, watch in self._running.items() if watch.done()]:
            try:
                report = self._running.pop(vantage).result()
            except ActivityError as error:
                self.statements.pop(vantage, None)
                self.abstaining[vantage] = _why(error, self._silent_s)
                continue
            self.spoke_anew = self.spoke_anew or vantage not in self.statements
            self.statements[vantage] = Statement(votes=report.votes, at=workflow.now())
            self.abstaining.pop(vantage, None)
            reports.append(report)
        return reports

    def votes(self) -> Votes:
        return {
            vantage: {node_id: vote.detector.status for node_id, vote in said.votes.items()}
            for vantage, said in self.statements.items()
        }

    def sights(self) -> Sights:
        """What each vantage that speaks has counted of each node, as of its last report."""
        return {
            vantage: {node_id: vote.detector for node_id, vote in said.votes.items()}
            for vantage, said in self.statements.items()
        }

    def called_failed(self, node_id: str) -> tuple[Detection, str]:
        """How a node that is called failed now was found to be so, and the same for people to read."""
        failed = {
            vantage: said.votes[node_id].detector
            for vantage, said in self.statements.items()
            if node_id in said.votes and said.votes[node_id].detector.status is NodeStatus.FAILED
        }
        worst = max(failed.values(), key=lambda detector: detector.consecutive_misses)
        misses = worst.consecutive_misses
        times = "1 miss" if misses == 1 else f"{misses} misses in a row"
        detection = Detection(
            node_id=node_id,
            vantages=tuple(sorted(failed)),
            misses=misses,
            first_miss_at=self.missing_since(node_id),
            detected_at=workflow.now(),
        )
        why = f"{times} from {', '.join(sorted(failed))} ({worst.last_error or 'it answers again'})"
        return detection, why

    def missing_since(self, node_id: str) -> datetime | None:
        """When the first of the misses in a row was, by this server's clock and the watchers' own spans."""
        return min(
            (
                said.at - timedelta(seconds=vote.missing_for_s)
                for said in self.statements.values()
                if (vote := said.votes.get(node_id)) is not None and vote.missing_for_s is not None
            ),
            default=None,
        )

    async def stop(self) -> None:
        for watch in self._running.values():
            watch.cancel()
        await asyncio.gather(*self._running.values(), return_exceptions=True)


def _why(error: ActivityError, silent_s: float) -> str:
    cause = error.cause
    if isinstance(cause, TimeoutError):
        return f"not heard from for {silent_s:g} s"
    if is_cancelled_exception(error):
        return "its watch was cancelled"
    return f"its watch ended: {cause or error}"
