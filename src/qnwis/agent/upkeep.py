"""The database's archive, logical slots and backups, asked when somebody wants to know."""

from __future__ import annotations

import psycopg

from qnwis.continuity.refusal import Refusal
from qnwis.continuity.upkeep import Upkeep

from .backups import ask_for_backup
from .config import AgentConfig
from .database import DatabaseDownError
from .effects import Node

# Columns that came with later versions are read through JSON: an older server does not have them.
_UPKEEP = """
SELECT json_build_object(
         'mode', current_setting('archive_mode'),
         'by_something', current_setting('archive_command') NOT IN ('', '(disabled)')
                         OR coalesce(current_setting('archive_library', true), '') <> '',
         'waiting', (SELECT count(*) FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready'),
         'oldest_waiting_s', (SELECT extract(epoch FROM clock_timestamp() - min(modification))::float8
                                FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready'),
         'last_archived_at', last_archived_time,
         'last_failed_at', last_failed_time,
         'last_failed_file', last_failed_wal) AS archiving,
       (SELECT coalesce(json_agg(json_build_object(
                 'name', slot_name, 'database', database,
                 'synced', coalesce((to_jsonb(s) ->> 'synced')::bool, false)) ORDER BY slot_name), '[]')
          FROM pg_replication_slots AS s WHERE slot_type = 'logical' AND NOT temporary) AS logical_slots,
       (SELECT coalesce(json_agg(json_build_object(
                 'name', slot_name,
                 'kept_bytes', greatest(0, (now_at - restart_lsn)::bigint)) ORDER BY slot_name), '[]')
          FROM pg_replication_slots,
               (SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()
                            ELSE pg_current_wal_lsn() END AS now_at) AS w
         WHERE NOT active AND NOT temporary AND restart_lsn IS NOT NULL) AS idle_slots
  FROM pg_stat_archiver
"""


async def upkeep_of(config: AgentConfig, node: Node | None) -> Upkeep | Refusal:
    """What the database says now, and whoever backs it up; why the database does not."""
    if node is None:
        return _unsaid("this node holds no data")
    try:
        said = Upkeep.model_validate(await node.connection.row(_UPKEEP))
        backup = None if config.backup is None else await ask_for_backup(config.backup)
        return said.model_copy(update={"backup": backup})
    except (DatabaseDownError, psycopg.Error) as error:
        return _unsaid(" ".join(str(error).split()))


def _unsaid(why: str) -> Refusal:
    return Refusal(
        rule="upkeep_not_known",
        message=f"What the database does about its archive and its slots is not known: {why}",
        remedy="Ask a node whose database answers",
    )
