"""What a cluster's readiness is evaluated from, and what an evaluation answers."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from pydantic import AwareDatetime, Field, JsonValue

from .allowlist import RefusedCallers
from .evidence import ClusterEvidence
from .model import Model
from .policy import Policy
from .topology import Cluster
from .upkeep import Upkeep
from .weights import StepCheck


class Grade(StrEnum):
    """From best to worst."""

    READY = "ready"
    WARNING = "warning"  # a failover would work, but somebody should look
    NOT_EVALUATED = "not_evaluated"  # the check could not run
    NOT_READY = "not_ready"  # a failover would not work, or not after the loss named


class UpdateAnswer(Model):
    """Whether a DNS server takes this installation's updates."""

    server: str
    accepted: bool
    reason: str = ""


class DnsTrial(Model):
    """What the server that takes updates answered to a signed one that changes nothing; of regions with a
    record each, for each record."""

    answers: tuple[UpdateAnswer, ...]
    tried_at: AwareDatetime


class RecordAnswer(Model):
    """What an authoritative DNS server answers for the service's name."""

    server: str
    addresses: tuple[str, ...] | None
    """Sorted; none where the name has no address, None where the server did not answer."""
    ttl_s: int | None = None
    """Of the record; None without one."""
    reason: str = ""
    """Why it did not answer."""


class DnsRecord(Model):
    """What each authoritative server answers to clients."""

    answers: tuple[RecordAnswer, ...]
    asked_at: AwareDatetime


class CertificateSeen(Model):
    """The certificate that a node's agent shows, or this installation's own."""

    owner: str
    not_after: AwareDatetime | None
    """None where it was not seen."""
    reason: str = ""
    """Why it was not."""


class Verified(Model):
    """The configuration under which a run or a drill was verified last."""

    run_id: str
    at: AwareDatetime
    topology_digest: str
    policy_digest: str


class Past(Model):
    """What the audit trail knows of a cluster."""

    last_drill_at: AwareDatetime | None = None
    verified: Verified | None = None


class Guarded(Model):
    """Whether anybody watches the cluster, as its guardian has it."""

    missing: str | None = None
    """Why there is no guardian."""
    heard: tuple[str, ...] = ()
    """Vantages that have a say."""
    abstaining: Mapping[str, str] = {}
    """By vantage of which nothing is heard, why."""
    paused: str | None = None
    """By whom, and why."""


class Facts(Model):
    """All that is known at an evaluation; None for what could not be learnt."""

    cluster: Cluster
    policy: Policy
    evidence: ClusterEvidence | None
    dns: DnsTrial | None
    record: DnsRecord | None
    past: Past | None
    weights: Mapping[str, int] | None = None
    """Active/active: the percent of the traffic that each region takes by DNS."""
    regions: Mapping[str, StepCheck] = {}
    """Active/active: what was found of each region's replication with the others."""
    certificates: tuple[CertificateSeen, ...] | None = None
    """None where agents speak without."""
    refused: Mapping[str, RefusedCallers] | None = None
    """By node_id: whom its agent refused. None where agents answer whoever asks."""
    upkeep: Mapping[str, Upkeep] = {}
    """By node_id: what its agent says of the archive and the logical slots; without those that do not say."""
    guarded: Guarded | None = None
    unusable: tuple[str, ...] = ()
    """The files beside the topology and the policy that a run could not use, a sentence each."""
    now: AwareDatetime


CALLERS = "callers"
"""The check of whom agents refused."""


class Check(Model):
    name: str
    grade: Grade
    reason: str
    values: dict[str, JsonValue] = Field(default_factory=dict)
    age_s: float | None = None
    """How old what it stands on is, seconds."""
    counts: bool = True
    """False where there is nothing to check yet; the overall is then that of the others."""


class Readiness(Model):
    """One evaluation of one cluster."""

    cluster_id: str
    grade: Grade
    """The worst of the checks that count."""
    checks: tuple[Check, ...]
    evaluated_at: AwareDatetime
    topology_digest: str
    policy_digest: str
    unverified_since_edit: tuple[str, ...] = ()
    """The digests, by name, that differ from those of the last verified run or drill."""

    @property
    def headline(self) -> str:
        grade = self.grade.value.replace("_", " ")
        if not self.unverified_since_edit:
            return grade
        return f"{grade}, unverified since edit ({', '.join(self.unverified_since_edit)})"
