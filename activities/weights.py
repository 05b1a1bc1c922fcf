"""Shifting the weights of an active/active cluster, and checking a region that comes back."""

from __future__ import annotations

from collections.abc import Mapping

from temporalio import activity
from temporalio.exceptions import ApplicationError

from qnwis.config.problem import ConfigError
from qnwis.config.registry import Registered, Registry
from qnwis.continuity.model import Identifier, Model
from qnwis.continuity.refusal import Refusal
from qnwis.continuity.shifting import shift_refusal
from qnwis.continuity.weights import step_refusal
from qnwis.providers.dns import TELLS_NOTHING
from qnwis.providers.errors import Refused
from qnwis.providers.region_checks import RegionChecks
from qnwis.providers.region_weights import RegionWeights

from .effect import heartbeating, in_case_it_was_done


class ShiftRequest(Model):
    cluster_id: Identifier
    before: Mapping[str, int]
    after: Mapping[str, int]


class Shifted(Model):
    """Refused: nothing was changed."""

    refusal: Refusal | None = None
    detail: str = ""


class ReturnCheck(Model):
    cluster_id: Identifier
    region: str
    others: tuple[str, ...]
    """Regions that take traffic besides it."""


class ReturnFound(Model):
    refusal: Refusal | None
    """Why the region may not take more traffic yet."""
    told: str = ""
    """For people, what was found."""


class WeightShifts:
    def __init__(self, registry: Registry, weights: RegionWeights, checks: RegionChecks) -> None:
        self._registry = registry
        self._weights = weights
        self._checks = checks

    @activity.defn
    async def shift_weights(self, asked: ShiftRequest) -> Shifted:
        """Compare-and-swap the weights. Raises Unreachable for Temporal to ask again."""
        async with heartbeating():
            cluster = self._load(asked.cluster_id).cluster
            refusal = shift_refusal(cluster, asked.after)
            if refusal is not None:
                return Shifted(refusal=refusal)
            try:
                with in_case_it_was_done(TELLS_NOTHING):
                    change = await self._weights.shift(cluster, before=asked.before, after=asked.after)
            except Refused as refused:
                return Shifted(refusal=refused.refusal)
        return Shifted(detail=change.detail)

    @activity.defn
    async def check_return(self, asked: ReturnCheck) -> ReturnFound:
        """Whether the region may take its next step. What cannot be read counts as no."""
        async with heartbeating():
            registered = self._load(asked.cluster_id)
            found = await self._checks.check(registered.cluster, asked.region, asked.others)
        return ReturnFound(
            refusal=step_refusal(asked.region, found, max_lag_bytes=registered.policy.max_lag_bytes),
            told=found.told(),
        )

    def _load(self, cluster_id: str) -> Registered:
        try:
            return self._registry.load(cluster_id)
        except ConfigError as error:
            raise ApplicationError(str(error), type="cluster_not_loaded") from error
