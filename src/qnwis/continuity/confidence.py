"""Confidence: how sure the run is of its result, 0 to 100, from one table.

| input             | full marks                     | less                       | none               |
|-------------------|--------------------------------|----------------------------|--------------------|
| verification (40) | every check passed             | the share that passed      | no check           |
| fencing (25)      | released, lease_expired        | hook 23, attested 10       | none, not known    |
| replication (15)  | lag up to `max_lag_bytes` / 10 | 8 up to `max_lag_bytes`    | more, not known    |
| quorum (10)       | a vote or more to spare        | 7 at exactly the quorum    | no quorum          |
| evidence (10)     | read within 5 s                | 5 within 30 s              | longer, not known  |

Lag is the worst replay lag of the standbys that follow. Whatever the sum, a failed check keeps it at `low`
(at most 49), and a failed consistency check, such as a second writable node, at `very_low` (at most 24):
no number of good signs outweighs those.

| band      | from |
|-----------|------|
| very_high | 90   |
| high      | 75   |
| medium    | 50   |
| low       | 25   |
| very_low  | 0    |
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from .model import Model
from .orders import FencingEvidenceType


class Band(StrEnum):
    VERY_HIGH = "very_high"
    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"
    VERY_LOW = "very_low"


BANDS = ((90, Band.VERY_HIGH), (75, Band.HIGH), (50, Band.MEDIUM), (25, Band.LOW), (0, Band.VERY_LOW))

VERIFICATION = 40
FENCING = {
    FencingEvidenceType.RELEASED: 25,
    FencingEvidenceType.LEASE_EXPIRED: 25,
    FencingEvidenceType.HOOK: 23,
    FencingEvidenceType.ATTESTED: 10,
    FencingEvidenceType.NONE: 0,
}
REPLICATION = ((0.1, 15), (1.0, 8))
"""Worst replay lag as a share of `max_lag_bytes`, up to: points."""
QUORUM = ((1, 10), (0, 7))
"""Votes beyond the quorum, from: points."""
EVIDENCE = ((5.0, 10), (30.0, 5))
"""Age of the oldest reading, seconds, up to: points."""

CEILING_FAILED_CHECK = 49
CEILING_INCONSISTENT = 24


@dataclass(frozen=True)
class Signs:
    """What confidence is taken from. None: not known."""

    checks_passed: int
    checks_total: int
    consistent: bool
    fencing: FencingEvidenceType | None
    lag_share: float | None
    """Worst replay lag of the standbys that follow, divided by `max_lag_bytes`."""
    quorum_margin: int
    """Votes beyond the quorum; negative when they are missing."""
    evidence_age_s: float | None


class Mark(Model):
    """The points of one input, so that a score explains itself."""

    name: str
    points: int
    of: int


class Confidence(Model):
    score: int
    """0 to 100; the sum of `marks`, or the ceiling that a failed check puts on it."""
    band: Band
    marks: tuple[Mark, ...] = ()


def rate(signs: Signs) -> Confidence:
    """Score and band by the table above."""
    marks = (
        Mark(name="verification", points=_verification(signs), of=VERIFICATION),
        Mark(
            name="fencing",
            points=0 if signs.fencing is None else FENCING[signs.fencing],
            of=max(FENCING.values()),
        ),
        Mark(name="replication", points=_up_to(signs.lag_share, REPLICATION), of=REPLICATION[0][1]),
        Mark(name="quorum", points=_from(signs.quorum_margin, QUORUM), of=QUORUM[0][1]),
        Mark(name="evidence", points=_up_to(signs.evidence_age_s, EVIDENCE), of=EVIDENCE[0][1]),
    )
    score = min(sum(mark.points for mark in marks), _ceiling(signs))
    return Confidence(score=score, band=band_of(score), marks=marks)


def band_of(score: int) -> Band:
    """The band of a score of 0 to 100."""
    return next(band for least, band in BANDS if score >= least)


def _verification(signs: Signs) -> int:
    if signs.checks_total == 0:
        return 0
    return VERIFICATION * signs.checks_passed // signs.checks_total


def _ceiling(signs: Signs) -> int:
    if not signs.consistent:
        return CEILING_INCONSISTENT
    return 100 if signs.checks_passed == signs.checks_total else CEILING_FAILED_CHECK


def _up_to(value: float | None, steps: tuple[tuple[float, int], ...]) -> int:
    return 0 if value is None else next((points for most, points in steps if value <= most), 0)


def _from(value: int, steps: tuple[tuple[int, int], ...]) -> int:
    return next((points for least, points in steps if value >= least), 0)
