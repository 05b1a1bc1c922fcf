"""The parts of a node that a fault can strike by themselves."""

from __future__ import annotations

from enum import StrEnum


class Part(StrEnum):
    DATABASE = "database"  # the postmaster and every other process of it
    POSTMASTER = "postmaster"
    RECEIVER = "receiver"  # of the write-ahead log, on a standby
    AGENT = "agent"
    GUARD = "guard"  # every guard of the database
    ALL = "all"  # the machine: the agent, its guards and the database
