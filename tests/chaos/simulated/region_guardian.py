"""The guardian of a region, as `workflows/region_guardian.py` has it: it judges by what the cluster's
guardian holds, and tells it what is held of the region when that is something else than before."""

from __future__ import annotations

from activities.regions import LOOK_EVERY_S
from qnwis.continuity.region_sight import ClusterInRegion
from qnwis.continuity.region_wait import RegionFinding, RegionWord
from qnwis.continuity.regions import RegionRules, RegionVerdict, judge_region
from tests.chaos.story import WATCHED_REGION

from .guardian import Guardian
from .kernel import Flow
from .machine import moment
from .reach import Place
from .temporal import Activity


class RegionGuardian:
    def __init__(self, place: Place, rules: RegionRules, guardian: Guardian) -> None:
        self._place = place
        self._rules = rules
        self._guardian = guardian
        self._verdict: RegionVerdict | None = None
        self._told: RegionFinding | None = None

    def flow(self) -> Flow:
        while True:
            seen: ClusterInRegion = yield Activity(lambda number: self._look())
            self._verdict = verdict = judge_region(
                WATCHED_REGION, (seen,), self._rules, self._verdict, moment(self._place.now())
            )
            if verdict.finding is not self._told:
                self._told = verdict.finding
                self._guardian.hear(
                    RegionWord(region=WATCHED_REGION, finding=verdict.finding, why=verdict.why)
                )
            yield LOOK_EVERY_S

    def _look(self) -> Flow:
        yield 0.0
        inside = {node.node_id for node in self._place.cluster.nodes if node.region == WATCHED_REGION}
        return ClusterInRegion(
            cluster_id=self._place.cluster.cluster_id,
            primary_inside=self._guardian.primary in inside,
            findings={n: v.finding for n, v in self._guardian.verdicts.items() if n in inside},
        )
