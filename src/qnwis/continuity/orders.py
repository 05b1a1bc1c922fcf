"""Orders to nodes and what comes back: the words that runs, activities and agents share.

An order names its effect, its run and its epoch. Carrying one out twice changes nothing the second
time; an order of an older epoch is refused.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from .model import Model


class Order(Model):
    """What every order carries."""

    effect_id: str = Field(min_length=1)
    """Names this effect of this run; the receiver's journal knows it again."""
    run_id: str
    """Temporal run id of the runbook's run."""
    epoch: int = Field(ge=1)
    """Fencing token; a receiver refuses an order below the highest epoch it has obeyed."""


class DemotionToken(Model):
    """Where a primary that was shut down in a clean way ended: at this record nothing it wrote is missing."""

    timeline: int = Field(ge=1)
    lsn: int = Field(ge=0)
    """Where the record of its shutdown checkpoint begins, in bytes since the start of the log. A standby that
    has replayed the record stands after this."""


class PromoteOrder(Order):
    """Become the primary."""

    kind: Literal["promote"] = "promote"
    at: DemotionToken | None = None
    """Where the old primary ended; a standby that has not all of it refuses. None for a failover, where the
    run has compared the standbys."""


class CatchUpOrder(Order):
    """Take the log that a more advanced standby has, before a promotion; then receive nothing again."""

    kind: Literal["catch_up"] = "catch_up"
    upstream: str
    """node_id of the standby that has it"""
    to_lsn: int = Field(ge=0)
    """Bytes since the start of the log."""


class QuiesceOrder(Order):
    """Let no new writes in, see the open ones end, and wait until `standby` has replayed all of them.

    This order and the next three are of the epoch that the receiver has obeyed already, so none of them takes
    anybody's lease.
    """

    kind: Literal["quiesce"] = "quiesce"
    standby: str
    """node_id"""
    drain_s: float = Field(gt=0)
    """How long open writing transactions may take to end; the rest are ended."""
    for_s: float = Field(gt=0)
    """From the beginning on; then the primary lets writes in again by itself, unless it was handed over."""

    @model_validator(mode="after")
    def _drains_in_time(self) -> Self:
        if self.drain_s >= self.for_s:
            raise ValueError(f"expected drain_s ({self.drain_s}) below for_s ({self.for_s})")
        return self


class PrepareOrder(Order):
    """Write a checkpoint (a standby: a restart point), so that a stop soon after is a short one; a primary
    ends its log file besides, so that standbys that change over soon have little to be sent again."""

    kind: Literal["prepare"] = "prepare"


class HandOverOrder(Order):
    """Stop the database in a clean way and release the lease; the receipt has the demotion token. The data
    directory stays a primary's."""

    kind: Literal["hand_over"] = "hand_over"
    return_after_s: float = Field(gt=0)
    """After the release, how long whoever takes over has to be promised an epoch; then the node comes back as
    the primary by itself, under an epoch of its own, unless another was granted the lease since."""


class ResumeOrder(Order):
    """Undo a quiesce and a hand-over: accept writes again."""

    kind: Literal["resume"] = "resume"


class DemoteOrder(Order):
    """Stop being the primary: stop the database so that it comes back only as a standby."""

    kind: Literal["demote"] = "demote"


class FollowOrder(Order):
    """Replicate from `upstream` from now on; the data directory already fits its history."""

    kind: Literal["follow"] = "follow"
    upstream: str
    """node_id"""
    at: DemotionToken | None = None
    """Where the old primary was handed over, while `upstream` is promoted to continue it. Of that timeline
    nobody has more, so it is not asked for its history meanwhile."""


class RejoinOrder(Order):
    """Come back as a standby of `upstream` after a failover: pg_rewind, then follow."""

    kind: Literal["rejoin"] = "rejoin"
    upstream: str
    """node_id"""


AnyOrder = Annotated[
    PromoteOrder
    | CatchUpOrder
    | DemoteOrder
    | FollowOrder
    | RejoinOrder
    | QuiesceOrder
    | PrepareOrder
    | HandOverOrder
    | ResumeOrder,
    Field(discriminator="kind"),
]


class Receipt(Model):
    """What the receiver did, written to its journal before it is answered."""

    effect_id: str
    changed: bool
    """False when the world already was as ordered (a repeated order included)."""
    epoch: int
    detail: str
    at: datetime
    token: DemotionToken | None = None
    """Of `hand_over`."""


class FencingEvidenceType(StrEnum):
    RELEASED = "released"  # the holder stopped every process of its database and said so
    LEASE_EXPIRED = "lease_expired"  # a majority's grants have run out
    HOOK = "hook"  # a power switch or the like (STONITH) reported success
    ATTESTED = "attested"  # a person states that the node is off
    NONE = "none"  # nothing: needs the emergency override


class FencingEvidence(Model):
    """Why the old primary cannot acknowledge writes any more. A gate before promotion."""

    type: FencingEvidenceType
    holder: str
    """node_id it speaks of"""
    epoch: int
    """Epoch of the run that fenced."""
    source: str
    """Who says so, for example the hook's URL."""
    detail: str
    at: datetime
    changed: bool = True
    """False when the holder was already fenced."""
