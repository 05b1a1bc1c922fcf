"""Active/active: which share of the traffic each region takes, when one is lost and when it comes back.

Nothing is promoted: every region has its own primary already. Weights are whole percent of the traffic, and
always sum to 100. Capacity is the percent of all traffic that a region can take.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from pydantic import Field

from .model import Identifier, Model
from .refusal import Refusal

TOTAL = 100
RETURN_STEPS = (10, 50, 100)

Weights = Mapping[str, int]
"""By region, percent of the traffic."""


class Share(Model):
    """What one region takes, and what it can take."""

    region: Identifier
    weight: int = Field(ge=0, le=TOTAL)
    capacity: int = Field(ge=0)


def without(shares: Sequence[Share], lost: str) -> dict[str, int] | Refusal:
    """The weights once the lost region's has gone to the others, in proportion to theirs and never above the
    capacity of one. Refuses where all of them together have no room for it."""
    gone = next((share for share in shares if share.region == lost), None)
    if gone is None:
        return _unknown_region(shares, lost)
    others = [share for share in shares if share.region != lost]
    room = sum(max(0, share.capacity - share.weight) for share in others)
    if room < gone.weight:
        return Refusal(
            rule="not_enough_capacity",
            message=f"Without {lost}, its {gone.weight} percent of the traffic have to go to the others,"
            f" which have room for {room}: "
            + (", ".join(f"{s.region} takes {s.weight} of {s.capacity}" for s in others) or "there is none"),
            values={
                "lost": lost,
                "weight": gone.weight,
                "room": room,
                "others": {s.region: {"weight": s.weight, "capacity": s.capacity} for s in others},
            },
            remedy="Add capacity to another region and raise its `capacity`, or shed load first.",
        )
    return {**_given(others, gone.weight), lost: 0}


def return_steps(
    shares: Sequence[Share], region: str, percents: Iterable[int] = RETURN_STEPS
) -> tuple[dict[str, int], ...] | Refusal:
    """The weights of each step by which a region takes its own weight again.

    `shares` hold the weights at home, `percents` the part of the region's own weight that it has after each
    step; the last is 100. At each step the others keep the rest, as `without` would give it to them.
    """
    home = next((share for share in shares if share.region == region), None)
    if home is None:
        return _unknown_region(shares, region)
    others, steps = [share for share in shares if share.region != region], []
    for percent in percents:
        # Rounded up: the first step has to bring some traffic, or its check would check nothing.
        back = -(-home.weight * percent // 100)
        steps.append({**_given(others, home.weight - back), region: back})
    room = sum(max(0, share.capacity - share.weight) for share in others)
    most = max((home.weight - step[region] for step in steps), default=0)
    if most > room:
        return Refusal(
            rule="not_enough_capacity",
            message=f"The others have room for {room} percent besides their own; a step leaves them {most}",
            values={"room": room, "left": most, "percents": list(percents)},
            remedy="Begin with a larger step.",
        )
    return tuple(dict(step) for step in dict.fromkeys(tuple(sorted(step.items())) for step in steps))


def _given(shares: Sequence[Share], amount: int) -> dict[str, int]:
    """Their weights with so many percent more, one at a time to the region that has got least of it for its
    weight (the method of D'Hondt), as long as there is room."""
    more = {share.region: 0 for share in shares}
    for _ in range(amount):
        open_ = [s for s in shares if s.weight + more[s.region] < s.capacity]
        if not open_:
            break
        # Exact: cross-multiplied, weight / (given + 1) would round.
        best = open_[0]
        for share in open_[1:]:
            left = share.weight * (more[best.region] + 1)
            right = best.weight * (more[share.region] + 1)
            if (left, best.region) > (right, share.region):
                best = share
        more[best.region] += 1
    return {share.region: share.weight + more[share.region] for share in shares}


# --- Between two steps --------------------------------------------------------------------------------------


class StepCheck(Model):
    """What was read of the region that comes back. None where it is not known, which counts as no."""

    writable: bool | None = None
    """Its primary accepts writes."""
    unsent_bytes: int | None = None
    """Of its log, what the regions that follow it have not confirmed; the largest of them."""
    unreceived_bytes: int | None = None
    """Of the other regions' logs, what it has not confirmed; the largest of them."""
    differing_rows: int | None = None
    """Rows that were compared and are not the same here and there, after replication had caught up."""

    def told(self) -> str:
        """For people."""
        writes = _unknown_or(self.writable, "takes writes" if self.writable else "takes no writes")
        unsent = _unknown_or(self.unsent_bytes, f"{self.unsent_bytes} bytes")
        unreceived = _unknown_or(self.unreceived_bytes, f"{self.unreceived_bytes} bytes")
        differing = _unknown_or(self.differing_rows, f"{self.differing_rows}")
        log = f"not sent {unsent}, not received {unreceived}"
        return f"its primary {writes}; {log}; rows that differ: {differing}"


def step_refusal(region: str, found: StepCheck, *, max_lag_bytes: int) -> Refusal | None:
    """Why the region takes no more traffic yet, or None."""
    reasons: list[tuple[str, str]] = []
    if found.writable is not True:
        reasons.append(
            ("region_does_not_write", f"its primary {_unknown_or(found.writable, 'is not writable')}")
        )
    for name, lag in (("unsent_bytes", found.unsent_bytes), ("unreceived_bytes", found.unreceived_bytes)):
        if lag is None or lag > max_lag_bytes:
            told = _unknown_or(lag, f"is {lag}, allowed are {max_lag_bytes}")
            reasons.append(("region_lags", f"{name} {told}"))
    if found.differing_rows != 0:
        told = _unknown_or(found.differing_rows, f"is {found.differing_rows}")
        reasons.append(("regions_differ", f"differing_rows {told}"))
    if not reasons:
        return None
    return Refusal(
        rule=reasons[0][0],
        message=f"{region} takes no more traffic yet: " + "; ".join(told for _, told in reasons),
        values={**found.model_dump(mode="json"), "max_lag_bytes": max_lag_bytes},
        remedy="Wait until replication has caught up both ways, or find out what stops it; then go on.",
    )


def _unknown_or(value: object, told: str) -> str:
    return "is not known" if value is None else told


def _told(weights: Weights) -> str:
    return ", ".join(f"{region} {weight}" for region, weight in sorted(weights.items()))


def _unknown_region(shares: Sequence[Share], region: str) -> Refusal:
    known = [share.region for share in shares]
    return Refusal(
        rule="region_has_no_weight",
        message=f"{region} is none of the regions that take traffic: {', '.join(known)}",
        values={"region": region, "regions": list(known)},
        remedy="Name one of them.",
    )
