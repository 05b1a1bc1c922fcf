"""Readiness of what comes after a failover: the archive, the readers of logical slots, the backups."""

from __future__ import annotations

from pydantic import JsonValue

from .readiness_facts import Check, Facts, Grade
from .topology import Cluster
from .upkeep import Archiving, lost_slots

ARCHIVE_DUE_S = 600.0
"""A file of the log that waits longer for the archive is one that a recovery would miss."""

ARCHIVE, SLOTS, IDLE, BACKUP = "archive", "logical slots", "idle slots", "backup"


def log_is_archived(facts: Facts, primary: str | None) -> Check:
    """The primary's log reaches the archive. A failover works without; recovery from the archive does not."""
    if (nobody := _nobody_asked(facts.cluster)) is not None:
        return _nothing(ARCHIVE, nobody)
    said = None if primary is None else facts.upkeep.get(primary)
    if primary is None or said is None:
        return _unknown(ARCHIVE, primary)
    archiving, values = said.archiving, _values(said.archiving)
    if archiving.mode == "off":
        return _nothing(ARCHIVE, f"{primary} does not archive its log (archive_mode is off)")
    fault = _fault(archiving)
    age_s = None
    if archiving.last_archived_at is not None:
        age_s = max(0.0, (facts.now - archiving.last_archived_at).total_seconds())
    return Check(
        name=ARCHIVE,
        grade=Grade.READY if fault is None else Grade.WARNING,
        reason=f"{primary}: {fault or 'all that is full is archived'}",
        values=values,
        age_s=age_s,
    )


def logical_slots_survive(facts: Facts, primary: str | None, target: str | None) -> Check:
    """Whoever reads the primary's changes could go on at the target."""
    if (nobody := _nobody_asked(facts.cluster)) is not None:
        return _nothing(SLOTS, nobody)
    said = None if primary is None else facts.upkeep.get(primary)
    if primary is None or said is None:
        return _unknown(SLOTS, primary)
    if not said.logical_slots:
        return Check(name=SLOTS, grade=Grade.READY, reason=f"{primary} has none", age_s=0)
    if target is None:
        return Check(name=SLOTS, grade=Grade.NOT_EVALUATED, reason="there is no target")
    theirs = facts.upkeep.get(target)
    if theirs is None:
        return _unknown(SLOTS, target)
    lost = lost_slots(said, theirs)
    names = ", ".join(f"{slot.name} ({slot.database})" for slot in lost)
    return Check(
        name=SLOTS,
        grade=Grade.WARNING if lost else Grade.READY,
        reason=f"lost by a failover to {target}: {names}; what reads from them has to be set up anew, and"
        " misses what is written until then"
        if lost
        else f"{target} keeps all {len(said.logical_slots)} in step",
        values={"lost": [slot.name for slot in lost], "slots": [slot.name for slot in said.logical_slots]},
        age_s=0,
    )


def nobody_is_waited_for(facts: Facts) -> Check:
    """No node keeps log for a reader that is gone: in the end its disk is full, and its database down."""
    if (nobody := _nobody_asked(facts.cluster)) is not None:
        return _nothing(IDLE, nobody)
    if not facts.upkeep:
        return Check(name=IDLE, grade=Grade.NOT_EVALUATED, reason="no agent says it")
    idle = {
        node_id: {slot.name: slot.kept_bytes for slot in one.idle_slots}
        for node_id, one in sorted(facts.upkeep.items())
        if one.idle_slots
    }
    told = [
        f"{name} on {node_id} keeps {kept_bytes} bytes of log"
        for node_id, slots in idle.items()
        for name, kept_bytes in slots.items()
    ]
    return Check(
        name=IDLE,
        grade=Grade.WARNING if told else Grade.READY,
        reason=f"nobody reads them: {'; '.join(told)}" if told else "every slot has its reader",
        values={node_id: {**slots} for node_id, slots in idle.items()},
        age_s=0,
    )


def backup_is_fresh(facts: Facts) -> Check:
    """A good backup can be found and is as fresh as the policy demands. It is what is left after a failover
    went wrong, or after a mistake that was replicated everywhere."""
    limit_s = facts.policy.max_backup_age_s
    if limit_s is None:
        return _nothing(BACKUP, "the policy sets no max_backup_age_s")
    said = {node_id: one.backup for node_id, one in facts.upkeep.items() if one.backup is not None}
    if not said:
        reason = "no agent that answers is told whom to ask (backup in agent.yaml)"
        return Check(name=BACKUP, grade=Grade.NOT_EVALUATED, reason=reason)
    values: dict[str, JsonValue] = {node_id: one.model_dump(mode="json") for node_id, one in said.items()}
    found = {
        one.last_good_at: node_id for node_id, one in sorted(said.items()) if one.last_good_at is not None
    }
    if not found:
        told = "; ".join(f"{node_id}: {one.detail}" for node_id, one in sorted(said.items()))
        return Check(
            name=BACKUP, grade=Grade.NOT_READY, reason=f"no good backup is found: {told}", values=values
        )
    newest = max(found)
    age_s = max(0.0, (facts.now - newest).total_seconds())
    return Check(
        name=BACKUP,
        grade=Grade.READY if age_s <= limit_s else Grade.NOT_READY,
        reason=f"{said[found[newest]].detail}, by {found[newest]}, is {age_s / 3600:.1f} h old;"
        f" allowed are {limit_s / 3600:.1f} h",
        values=values,
        age_s=age_s,
    )


def _fault(archiving: Archiving) -> str | None:
    """What is wrong, for people."""
    if not archiving.by_something:
        return "archive_mode is on, and neither archive_command nor archive_library is set: its log piles up"
    oldest_s = archiving.oldest_waiting_s
    waits = "" if oldest_s is None else f"; {archiving.waiting} files wait, the first for {oldest_s:.0f} s"
    if archiving.fails:
        at = archiving.last_failed_at
        return f"{archiving.last_failed_file} could not be archived at {at:%Y-%m-%d %H:%M:%S} UTC{waits}"
    if oldest_s is not None and oldest_s > ARCHIVE_DUE_S:
        return f"{archiving.waiting} files wait for the archive, the first for {oldest_s:.0f} s"
    return None


def _values(archiving: Archiving) -> dict[str, JsonValue]:
    return archiving.model_dump(mode="json")


def _nobody_asked(cluster: Cluster) -> str | None:
    """Why there is no agent to say it."""
    if cluster.by_patroni:
        return "Patroni's members are not asked for it"
    return "an application keeps its data by its own means" if cluster.by_http else None


def _nothing(name: str, reason: str) -> Check:
    return Check(name=name, grade=Grade.NOT_EVALUATED, reason=reason, counts=False)


def _unknown(name: str, node_id: str | None) -> Check:
    why = "the primary is not known" if node_id is None else f"the agent of {node_id} does not say it"
    return Check(name=name, grade=Grade.NOT_EVALUATED, reason=why)
