"""Rejoin: an old primary, or a standby with another history, comes back as a standby of the new primary.

A standby is started as one, which is all that most need. Else pg_rewind keeps what both histories share and
copies the rest. Where it cannot (the log it needs is gone, or an earlier rewind was interrupted), the node
takes a fresh copy, and the old data stay beside it.

What only this node has is exported before it is rewound (see `discarded`). Where that fails, nothing is
rewound: the node takes a fresh copy, and what it alone has is whole in the old data beside it.

pg_rewind lets a database that crashed recover by itself, which ends with a checkpoint in its log. A primary's
comes after the point where the histories part, and is rewound. A standby's would take the place of what the
upstream wrote there, on the same timeline: a standby that crashed is never left to that, nor is a copy that
was never started.

Only from just before pg_rewind, or before the old data make room for the copy, until the database is started
is the data directory not whole. A database that needs longer than this waits, to replay the log of a large
copy, comes up by itself: whether it streams is said by its state.
"""

from __future__ import annotations

import asyncio
import glob
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from qnwis.continuity.membership import Peer
from qnwis.continuity.orders import RejoinOrder
from qnwis.continuity.refusal import Refusal
from qnwis.durable import sync_directory
from qnwis.logs import log

from .database import Connection, DatabaseDownError, Facts
from .discarded import export_discarded, folder_of, read_manifest
from .effects import AlreadySo, Decision, Done, EffectError, Node
from .follow import replays, streams
from .journal import Mark
from .postgres import Postgres
from .programs import read_control, read_setting, run_program
from .watched import kill_processes_in

STREAMING_WITHIN_S = 60.0
COMES_BACK_WITHIN_S = 5.0
"""A standby that needs longer is looked at by pg_rewind, and started again if that finds nothing to do."""
CHECKPOINT_WITHIN_S = 120.0
POLL_S = 0.02
FRESH = ".fresh-"
"""After the name of the data directory: a copy that is not whole yet."""


async def rejoin(
    node: Node, order: RejoinOrder, upstream: Peer, *, interrupted: bool, mark: Callable[[Mark], None]
) -> Decision:
    """Come back as a standby of `upstream`.

    `interrupted`: an earlier rejoin of this node left its data half replaced. `mark` is called with
    `replacing` before this one begins to replace them, and with `replaced` once they are whole again.
    """
    mine = await node.facts()
    assert upstream.database is not None, "the caller has checked that the upstream holds data"
    source = Connection(upstream.database, node.postgres.database.superuser)
    try:
        theirs = await source.facts()
        history = await source.history(theirs.timeline)
    except DatabaseDownError as error:
        return _unreachable(node, upstream, error)
    finally:
        await source.close()
    if (refusal := refuse_upstream(node.node_id, upstream.node_id, mine, theirs)) is not None:
        return refusal
    # Looked at last: a promise may have cut it off while the upstream was asked.
    now = node.postgres.upstream
    same = now is not None and now.node_id == upstream.node_id
    if same and mine is not None and streams(mine, theirs):
        return AlreadySo(
            f"{node.node_id} streams from {upstream.node_id} already, on timeline {mine.timeline}"
        )

    async def effect() -> Done:
        await _remove_copies(node.postgres.data_dir)
        _stay_down(node.postgres)
        await node.postgres.stop()
        await node.give_up_for_good()
        standby = node.postgres.initialised and await _must_not_recover(node.postgres)
        if standby and not interrupted and await _comes_back(node, upstream, theirs):
            return Done(f"{node.node_id} was a standby and streams from {upstream.node_id}")
        exported = await _exported(node, order, theirs, history, interrupted=interrupted)
        how = "was rewound"
        if not exported.rewind or not await _rewind(node.postgres, upstream, standby=standby, mark=mark):
            kept = await _copy(node.postgres, upstream, order.effect_id, mark)
            how = "was copied anew" + (f" (old data: {kept})" if kept is not None else "")
        # Either way the upstream's files came along, settings included, and it is no standby.
        node.postgres.keep_standby()
        node.receiving.receive_from(upstream)
        mark(Mark.REPLACED)
        await node.postgres.start()
        came = await _until_streaming(node, upstream, theirs)
        return Done(f"{node.node_id} {how} and {came}{exported.said}")

    return effect


@dataclass(frozen=True)
class _Exported:
    """What came of the export."""

    rewind: bool
    """Whether nothing is lost where the data are rewound now."""
    said: str = ""


async def _exported(
    node: Node, order: RejoinOrder, theirs: Facts, history: str, *, interrupted: bool
) -> _Exported:
    folder = folder_of(node.postgres.config.state_dir, order.effect_id)
    if interrupted or not node.postgres.initialised:
        done = read_manifest(folder)
        return _Exported(rewind=False, said="" if done is None else f"; {done.in_words(str(folder))}")
    try:
        export = await export_discarded(node.postgres, order, theirs, history)
    except EffectError as error:
        log("discarded_not_exported", reason=str(error))
        said = f"; what only it had could not be exported ({error}), and is whole in the old data"
        return _Exported(rewind=False, said=said)
    return _Exported(rewind=True, said="" if export is None else f"; {export.in_words(str(folder))}")


def refuse_upstream(node_id: str, upstream: str, mine: Facts | None, theirs: Facts) -> Refusal | None:
    """Why `upstream` is not one to rejoin, or None. `mine` is None while the own database is down."""
    if theirs.in_recovery:
        return Refusal(
            rule="upstream_not_primary",
            message=f"{node_id} cannot rejoin {upstream}: it is in recovery, not a primary",
            values={"upstream": upstream},
            remedy="Order the rejoin to the primary",
        )
    if mine is not None and mine.system_identifier != theirs.system_identifier:
        return Refusal(
            rule="another_cluster",
            message=f"{node_id} cannot rejoin {upstream}: their databases are not copies of one another",
            values={"mine": mine.system_identifier, "theirs": theirs.system_identifier},
            remedy="Check the database addresses in the topology",
        )
    if mine is not None and mine.timeline > theirs.timeline:
        return Refusal(
            rule="upstream_older",
            message=f"{node_id} on timeline {mine.timeline} cannot rejoin {upstream} on {theirs.timeline}:"
            " a rejoin would drop what was written since the later promotion",
            values={"mine": mine.timeline, "theirs": theirs.timeline},
            remedy="Order the rejoin to the primary of the newest timeline",
        )
    return None


def _unreachable(node: Node, upstream: Peer, error: DatabaseDownError) -> Refusal:
    return Refusal(
        rule="upstream_unreachable",
        message=f"{node.node_id} cannot rejoin {upstream.node_id}: its database does not answer ({error})",
        values={"upstream": upstream.node_id},
        remedy=f"Start {upstream.node_id}, then order the rejoin again",
    )


def _stay_down(postgres: Postgres) -> None:
    """Should this not get as far as to replace the data: an old primary is started neither as a primary nor
    as a standby of whom it followed once."""
    if postgres.initialised and not postgres.standby:
        postgres.set_upstream(None)
        postgres.keep_standby()


async def _must_not_recover(postgres: Postgres) -> bool:
    """Whether it last ran as a standby, or is a copy that never ran, whose control file is the primary's."""
    copied = (postgres.data_dir / "backup_label").exists()
    return copied or (await read_control(postgres)).was_standby


async def _comes_back(node: Node, upstream: Peer, theirs: Facts) -> bool:
    """Start the standby as it is, and see whether it replays what the upstream has; else stop it again."""
    node.receiving.receive_from(upstream)
    await node.postgres.start()
    if await replays(node, theirs, COMES_BACK_WITHIN_S):
        return True
    if node.receiving.held_meanwhile:  # nothing is wrong with its data
        raise EffectError(f"{node.node_id} promised a run a later epoch, and receives nothing meanwhile")
    await node.postgres.stop()
    return False


async def _rewind(postgres: Postgres, upstream: Peer, *, standby: bool, mark: Callable[[Mark], None]) -> bool:
    """Bring the data directory to the upstream's history. False when pg_rewind could not."""
    assert upstream.database is not None
    source = Connection(upstream.database, postgres.database.superuser)
    try:
        # Until its first checkpoint a new primary's control file says the old timeline; pg_rewind reads that.
        await source.row("CHECKPOINT", timeout_s=CHECKPOINT_WITHIN_S)
    finally:
        await source.close()
    conninfo = postgres.conninfo_of(upstream, postgres.database.superuser.user, dbname="postgres")
    arguments = ["--target-pgdata", str(postgres.data_dir), "--source-server", conninfo]
    arguments += ["--no-ensure-shutdown"] if standby else []
    if postgres.database.config_file is not None:  # for its crash recovery
        arguments += ["--config-file", str(postgres.database.config_file)]
    if await read_setting(postgres, "restore_command"):  # log that is gone here may be in the archive
        arguments.append("--restore-target-wal")
    mark(Mark.REPLACING)
    if not standby:
        postgres.allow_recovery()
    status, output = await run_program(postgres, "pg_rewind", arguments, working_in=postgres.data_dir)
    log("pg_rewind", status=status, output=output[-2000:])
    return status == 0


async def _remove_copies(data_dir: Path) -> None:
    """Remove copies that were cut off, whichever order they were of: one is carried out at a time, so none is
    in use. A program that outlived its agent may still write one."""
    for fresh in _copies(data_dir):
        await kill_processes_in(fresh)
        await asyncio.to_thread(shutil.rmtree, fresh)
        log("copy_removed", folder=str(fresh))


def _copies(data_dir: Path) -> list[Path]:
    return list(data_dir.parent.glob(f"{glob.escape(data_dir.name)}{FRESH}*"))


async def _copy(
    postgres: Postgres, upstream: Peer, effect_id: str, mark: Callable[[Mark], None]
) -> Path | None:
    """Replace the data directory by a copy of the upstream's. Where the old one is now, if there was one."""
    name = re.sub(r"[^A-Za-z0-9._-]", "_", effect_id)
    fresh = postgres.data_dir.with_name(f"{postgres.data_dir.name}{FRESH}{name}")
    fresh.mkdir(mode=0o700)
    if postgres.owner is not None:
        os.chown(fresh, postgres.owner.uid, postgres.owner.gid)
    conninfo = postgres.conninfo_of(upstream, postgres.database.replication.user)
    arguments = ("--pgdata", str(fresh), "--dbname", conninfo, "--checkpoint", "fast", "--no-password")
    status, output = await run_program(postgres, "pg_basebackup", arguments, working_in=fresh)
    log("pg_basebackup", status=status, output=output[-2000:])
    if status != 0:
        raise EffectError(
            f"pg_basebackup from {upstream.node_id} ended with status {status}: {output[-500:]}"
        )
    mark(Mark.REPLACING)
    kept = _set_aside(postgres.data_dir, name)
    fresh.rename(postgres.data_dir)
    sync_directory(postgres.data_dir.parent)
    return kept


def _set_aside(data_dir: Path, name: str) -> Path | None:
    if not data_dir.exists():
        return None
    aside, attempt = data_dir.with_name(f"{data_dir.name}.before-rejoin-{name}"), 1
    while aside.exists():  # an attempt that was interrupted after this place
        attempt += 1
        aside = data_dir.with_name(f"{data_dir.name}.before-rejoin-{name}.{attempt}")
    data_dir.rename(aside)
    return aside


async def _until_streaming(node: Node, upstream: Peer, theirs: Facts) -> str:
    """What came of the start, in words: that it streams what the upstream writes now, or why not yet."""
    clock = asyncio.get_running_loop().time
    deadline = clock() + STREAMING_WITHIN_S
    while clock() < deadline:
        facts = await node.facts()
        if facts is not None and streams(facts, theirs):
            return f"streams from {upstream.node_id} on timeline {facts.timeline}"
        if not node.postgres.running:
            return "does not stream yet, its database ended while it started: see postgres.log"
        if node.receiving.held_meanwhile:
            return "does not stream yet, it promised a run a later epoch and receives nothing meanwhile"
        await asyncio.sleep(POLL_S)
    return (
        f"does not stream yet, {STREAMING_WITHIN_S:g} s after its start: it may have much log to replay;"
        " see its state and postgres.log"
    )
