"""Orders to nodes and what comes back: the words that runs, activities and agents share.

An order names its effect, its run and its epoch. Carrying one out twice changes nothing the second
time; an order of an older epoch is refused.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from .model import Model


class Order(Model):
    """What every order carries."""

    effect_id: str = Field(min_length=1)
    """Names this effect of this run; the receiver's journal knows it again."""
    run_id: str
    """Temporal run id of the runbook's run."""
    epoch: int = Field(ge=1)
    """Fencing token; a receiver refuses an order below the highest epoch it has obeyed."""


class PromoteOrder(Order):
    """Become the primary."""

    kind: Literal["promote"] = "promote"


class DemoteOrder(Order):
    """Stop being the primary: stop the database so that it comes back only as a standby."""

    kind: Literal["demote"] = "demote"


class FollowOrder(Order):
    """Replicate from `upstream` from now on; the data directory already fits its history."""

    kind: Literal["follow"] = "follow"
    upstream: str
    """node_id"""


class RejoinOrder(Order):
    """Come back as a standby of `upstream` after a failover: pg_rewind, then follow."""

    kind: Literal["rejoin"] = "rejoin"
    upstream: str
    """node_id"""


AnyOrder = Annotated[PromoteOrder | DemoteOrder | FollowOrder | RejoinOrder, Field(discriminator="kind")]


class Receipt(Model):
    """What the receiver did, written to its journal before it is answered."""

    effect_id: str
    changed: bool
    """False when the world already was as ordered (a repeated order included)."""
    epoch: int
    detail: str
    at: datetime


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
