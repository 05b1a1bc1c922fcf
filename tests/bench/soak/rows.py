"""The clients' rows in a node's database, by the cycle in which they were written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, LiteralString

import psycopg

from qnwis.lab.acks import Row
from qnwis.lab.cluster import Lab
from qnwis.lab.errors import LabError
from qnwis.lab.postgres import APP, APP_DATABASE


async def since(lab: Lab, node_id: str, first: int) -> frozenset[Row]:
    """Whose number is at least this. Raises LabError."""
    found = await _ask(lab, node_id, "SELECT client, n FROM rows WHERE n >= %s", [first])
    return frozenset((str(client), int(n)) for client, n in found)


async def before(lab: Lab, node_id: str, first: int) -> int:
    """How many have a lower number. Raises LabError."""
    ((count,),) = await _ask(lab, node_id, "SELECT count(*) FROM rows WHERE n < %s", [first])
    return int(count)


async def table_kib(lab: Lab, node_id: str) -> float:
    """What they take, with their index; the same on every node. Raises LabError."""
    ((size,),) = await _ask(lab, node_id, "SELECT pg_total_relation_size('rows')", [])
    return float(size) / 1024


async def _ask(lab: Lab, node_id: str, query: LiteralString, values: Sequence[object]) -> list[Any]:
    listens = lab.cluster.node(node_id).database
    assert listens is not None
    try:
        async with await psycopg.AsyncConnection.connect(
            host=listens.host,
            port=listens.port,
            user=APP,
            password=lab.folder.password(APP).read_text().strip(),
            dbname=APP_DATABASE,
            connect_timeout=5,
        ) as connection:
            return await (await connection.execute(query, values)).fetchall()
    except psycopg.Error as error:
        raise LabError(f"{node_id} does not answer `{query}`: {str(error).strip()}") from error
