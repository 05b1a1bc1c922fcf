"""What a database says of what a failover does not need at once, and people need all the same: that its log
is archived, that there is a backup, and who reads its changes through logical slots."""

from __future__ import annotations

from pydantic import AwareDatetime

from .backups import Backup
from .model import Model


class Archiving(Model):
    """How the archiving of the log goes, by pg_stat_archiver and the files that wait."""

    mode: str
    """archive_mode: off, on, or always (standbys too)."""
    by_something: bool
    """A command or a library is set."""
    waiting: int
    """Files that are full and not archived yet."""
    oldest_waiting_s: float | None
    """For how long the first of them has waited; None where none does."""
    last_archived_at: AwareDatetime | None
    last_failed_at: AwareDatetime | None
    last_failed_file: str | None

    @property
    def fails(self) -> bool:
        """The last attempt that ended did not archive."""
        failed, archived = self.last_failed_at, self.last_archived_at
        return failed is not None and (archived is None or failed > archived)


class LogicalSlot(Model):
    """A logical replication slot of a database."""

    name: str
    database: str
    synced: bool = False
    """A standby keeps it in step with its primary's (PostgreSQL 17)."""


class IdleSlot(Model):
    """A replication slot that nobody reads, and that keeps log for whoever may."""

    name: str
    kept_bytes: int
    """Of the log, from where its reader was last."""


class Upkeep(Model):
    """Of one node."""

    archiving: Archiving
    backup: Backup | None = None
    """None where its agent is not told whom to ask."""
    logical_slots: tuple[LogicalSlot, ...] = ()
    idle_slots: tuple[IdleSlot, ...] = ()


def lost_slots(primary: Upkeep, target: Upkeep) -> tuple[LogicalSlot, ...]:
    """The primary's logical slots that are not there any more once the target is the primary."""
    kept = {(slot.name, slot.database) for slot in target.logical_slots if slot.synced}
    return tuple(slot for slot in primary.logical_slots if (slot.name, slot.database) not in kept)
