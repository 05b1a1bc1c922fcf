"""The steady state: whether the service is as it should be before, during and after a run.

Probes are the operator's own, so the run cannot know what one failed answer means. A breach therefore is
`failures` failed answers in a row of one probe: an accident of one request, and the short pause of writes
that a switchover makes by itself, stop nothing.

What a breach does depends on where the run stands. Before anything is changed the run is refused; from then
until the promotion it stops and what was begun is undone. From the promotion on a breach is noted and nothing
else: there is no way back, and the way forward is what ends it. After the verification, too, it is a warning
and no failed verification: the verifier has read that the cluster is whole, which no probe of an application
behind it can unsay, and a run reported incomplete would hold the next failover back by its cooldown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum

from .model import Identifier, Model
from .refusal import Refusal


class Moment(StrEnum):
    BEFORE = "before"  # nothing is changed yet
    DURING = "during"  # the plan is carried out
    AFTER = "after"  # verified


class DueProbe(Model):
    """A probe as a run knows it; how it asks stands in the worker's `hooks.yaml`."""

    name: Identifier
    timeout_s: float
    every_s: float
    failures: int
    """So many failed answers in a row are a breach."""


class Answer(Model):
    """What one asking of one probe gave."""

    probe: Identifier
    ok: bool
    detail: str


class SteadyReading(Model):
    """What is known of one probe at one moment of a run; kept in its record."""

    moment: Moment
    probe: Identifier
    ok: bool
    detail: str

    def __str__(self) -> str:
        return f"steady state {self.moment}: {self.probe}: {self.detail}"


class Streaks(Model):
    """For each probe that has answered: its last answer, and how often in a row it failed."""

    last: Mapping[str, Answer] = {}
    failed: Mapping[str, int] = {}

    def observe(self, answer: Answer) -> Streaks:
        failed = 0 if answer.ok else self.failed.get(answer.probe, 0) + 1
        return Streaks(last={**self.last, answer.probe: answer}, failed={**self.failed, answer.probe: failed})

    def breach(self, probes: Sequence[DueProbe]) -> Answer | None:
        """The last answer of the first probe that failed often enough."""
        return next(
            (self.last[probe.name] for probe in probes if self.failed.get(probe.name, 0) >= probe.failures),
            None,
        )

    def settled(self, probes: Sequence[DueProbe]) -> bool:
        """Whether there is nothing to wait for: a breach, or a good last answer of every probe."""
        every = all(probe.name in self.last and self.last[probe.name].ok for probe in probes)
        return every or self.breach(probes) is not None


class Verdict(StrEnum):
    REFUSE = "refuse"
    STOP = "stop"
    NOTE = "note"


def verdict(moment: Moment, *, past_return: bool) -> Verdict:
    """What a breach at this moment does."""
    if past_return or moment is Moment.AFTER:
        return Verdict.NOTE
    return Verdict.REFUSE if moment is Moment.BEFORE else Verdict.STOP


def steady_refusal(breach: SteadyReading) -> Refusal:
    return Refusal(
        rule="steady_state_breached",
        message=f"The service is not in its steady state: {breach.probe}: {breach.detail}",
        values={"probe": breach.probe, "detail": breach.detail},
        remedy="Wait until the probe succeeds, or correct it in hooks.yaml, and start the run again.",
    )
