"""The rows of an export, read from the old database by the blocks and transactions that its log names."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Self

import psycopg
from psycopg import sql
from psycopg.rows import TupleRow

from qnwis.continuity.discarded import Changes, ExportedTable, Relation, Transaction

from .old_history import OldHistory

BLOCKS_AT_ONCE = 100
"""Of one question: some ten thousand places of rows."""
ROWS_AT_ONCE = 500

_TABLE = """
SELECT c.oid::text, n.nspname, c.relname, c.relkind,
       n.nspname IN ('pg_catalog', 'information_schema') AS of_the_system,
       coalesce((SELECT array_agg(a.attname::text ORDER BY k.place)
          FROM (SELECT i.indkey FROM pg_index i
                 WHERE i.indrelid = c.oid AND (i.indisprimary OR i.indisreplident)
                 ORDER BY i.indisprimary DESC LIMIT 1) i
          CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS k(attnum, place)
          JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.attnum), '{}') AS key
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE pg_relation_filenode(c.oid) = %s
   AND coalesce(nullif(c.reltablespace, 0),
                (SELECT dattablespace FROM pg_database WHERE datname = current_database())) = %s
"""

# The places in the blocks are made beforehand, so that no other block is read. A place without a row is none.
_ROWS = """
SELECT {alias}.xmin::text, {key}, row_to_json({alias}.*)::text
  FROM ONLY {table} {alias}
 WHERE {alias}.ctid = ANY(ARRAY(
          SELECT ('(' || block || ',' || place || ')')::tid FROM unnest({blocks}::bigint[]) block,
                 generate_series(1, (current_setting('block_size')::int - 24) / 28) place))
   AND {alias}.xmin::text = ANY({xids}::text[])
"""


class RowFile:
    """`rows.jsonl`, written row by row."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[str]
        self.count = 0

    def __enter__(self) -> Self:
        self._file = os.fdopen(os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w")
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, head: dict[str, Any], key: str | None, row: str) -> None:
        """`key` and `row` are JSON as PostgreSQL wrote it: no number loses a digit on the way."""
        text = json.dumps(head, ensure_ascii=False)
        self._file.write(f'{text[:-1]}, "key": {key or "null"}, "row": {row}}}\n')
        self.count += 1


async def read_rows(
    old: OldHistory,
    transactions: Sequence[Transaction],
    changes: dict[Relation, Changes],
    rows: RowFile,
) -> tuple[tuple[ExportedTable, ...], tuple[str, ...]]:
    """Write the rows of these transactions; which tables, and what is not there as rows, in words."""
    by_database: dict[int, dict[Relation, Changes]] = defaultdict(dict)
    for relation, change in changes.items():
        by_database[relation.database][relation] = change
    tables: list[ExportedTable] = []
    elsewhere: list[str] = []
    if by_database.pop(0, None):
        elsewhere.append("changes to what all databases share (roles, databases)")
    names = await _database_names(old) if by_database else {}
    for number, relations in sorted(by_database.items()):
        if (name := names.get(number)) is None:
            elsewhere.append(f"database {number}, which is dropped by then or takes no connection")
            continue
        async with await old.connect(name) as connection:
            reader = _Reader(connection, name, transactions, rows)
            for relation, change in sorted(relations.items(), key=lambda item: item[0].file):
                told = await reader.read(relation, change)
                if isinstance(told, ExportedTable):
                    tables.append(told)
                elif told is not None:
                    elsewhere.append(told)
    return tuple(tables), tuple(sorted(set(elsewhere)))


async def _database_names(old: OldHistory) -> dict[int, str]:
    async with await old.connect("postgres") as connection:
        cursor = await connection.execute(
            "SELECT oid::bigint, datname::text FROM pg_database WHERE datallowconn"
        )
        return {int(oid): str(name) for oid, name in await cursor.fetchall()}


class _Reader:
    """Reads one database."""

    def __init__(
        self,
        connection: psycopg.AsyncConnection[TupleRow],
        database: str,
        transactions: Sequence[Transaction],
        rows: RowFile,
    ) -> None:
        self._connection = connection
        self._database = database
        self._by_xid = {str(xid): one for one in transactions for xid in (one.xid, *one.subxids)}
        self._rows = rows

    async def read(self, relation: Relation, change: Changes) -> ExportedTable | str | None:
        """What came of one relation; None where it is a part of another one's rows."""
        cursor = await self._connection.execute(_TABLE, (relation.file, relation.tablespace))
        found = await cursor.fetchone()
        if found is None:
            return f"{self._database}: file {relation.file}, which no table has by then (dropped, rewritten)"
        _, schema, table, kind, of_the_system, key = found
        if of_the_system:
            return f"{self._database}: changes to the catalogue (tables, columns, functions, large objects)"
        if kind == "t":  # long values of a table's rows
            return None
        if kind != "r":
            return f"{self._database}: {schema}.{table}, which is no table"
        before = self._rows.count
        name = sql.Identifier(schema, table)
        for blocks in _portions(sorted(change.blocks)):
            await self._read_blocks(name, key, blocks)
        return ExportedTable(
            database=self._database,
            table=name.as_string(self._connection),
            rows=self._rows.count - before,
            deleted=change.deleted,
        )

    async def _read_blocks(self, table: sql.Identifier, key: list[str], blocks: Sequence[int]) -> None:
        alias = sql.Identifier("the row of qnwis")
        columns = [sql.SQL("{}, {}.{}").format(sql.Literal(c), alias, sql.Identifier(c)) for c in key]
        keyed = sql.SQL("json_build_object({})::text").format(sql.SQL(", ").join(columns))
        # Everything stands in the text: a name may hold a percent sign.
        question = sql.SQL(_ROWS).format(
            alias=alias,
            table=table,
            key=keyed if key else sql.SQL("NULL::text"),
            blocks=sql.Literal(list(blocks)),
            xids=sql.Literal(list(self._by_xid)),
        )
        name = table.as_string(self._connection)
        async with self._connection.cursor("rows") as cursor:
            await cursor.execute(question)
            while found := await cursor.fetchmany(ROWS_AT_ONCE):
                for xid, keyed_row, row in found:
                    one = self._by_xid[xid]
                    at = None if one.committed_at is None else one.committed_at.isoformat()
                    head = {"database": self._database, "table": name, "xid": one.xid, "committed_at": at}
                    self._rows.write(head, keyed_row, row)


def _portions(blocks: Sequence[int]) -> Iterator[Sequence[int]]:
    for start in range(0, len(blocks), BLOCKS_AT_ONCE):
        yield blocks[start : start + BLOCKS_AT_ONCE]
