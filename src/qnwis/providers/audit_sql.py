"""The audit log in SQL, of any DB-API connection: what SQLite and PostgreSQL have in common."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from .audit_log import HeadRow, Row

COLUMNS = "sequence, audit_id, run_id, operation, record"


class Connection(Protocol):
    def execute(self, query: Any, parameters: Any = ..., /) -> Any: ...


class SqlLog:
    """`mark` is how the driver writes a parameter."""

    def __init__(self, db: Connection, *, mark: str) -> None:
        self._db = db
        self._mark = mark

    def newest(self) -> Row | None:
        return self._one("ORDER BY sequence DESC LIMIT 1")

    def own(self, run_id: str, operation: str) -> Row | None:
        return self._one("WHERE run_id = ? AND operation = ?", run_id, operation)

    def by_id(self, audit_id: str) -> Row | None:
        return self._one("WHERE audit_id = ?", audit_id)

    def by_run(self, run_id: str) -> list[Row]:
        return list(self._rows("WHERE run_id = ? ORDER BY sequence", run_id))

    def latest(self, limit: int) -> list[Row]:
        return list(self._rows("ORDER BY sequence DESC LIMIT ?", limit))

    def after(self, sequence: int, limit: int) -> list[Row]:
        return list(self._rows("WHERE sequence > ? ORDER BY sequence LIMIT ?", sequence, limit))

    def rows(self) -> Iterator[Row]:
        return self._rows("ORDER BY sequence")

    def artefacts(self, sequence: int) -> dict[str, str]:
        found = self._run("SELECT name, content FROM artefacts WHERE sequence = ?", sequence)
        return dict(found)

    def all_artefacts(self) -> Iterator[tuple[int, object, object]]:
        yield from self._run("SELECT sequence, name, content FROM artefacts")

    def newest_head(self, *, below: int | None = None) -> HeadRow | None:
        found = self._run(
            "SELECT size, peaks, head FROM heads WHERE size < ? ORDER BY size DESC LIMIT 1",
            1 << 62 if below is None else below,
        )
        row = next(iter(found), None)
        return None if row is None else HeadRow(*row)

    def heads(self) -> Iterator[HeadRow]:
        for row in self._run("SELECT size, peaks, head FROM heads ORDER BY size"):
            yield HeadRow(*row)

    def add(self, row: Row, artefacts: Mapping[str, str], head: HeadRow) -> None:
        told = (row.sequence, row.audit_id, row.run_id, row.operation, row.text)
        self._run(f"INSERT INTO records ({COLUMNS}) VALUES (?, ?, ?, ?, ?)", *told)
        for name, content in artefacts.items():
            self._run("INSERT INTO artefacts VALUES (?, ?, ?)", row.sequence, name, content)
        self._run("INSERT INTO heads VALUES (?, ?, ?)", head.size, head.peaks, head.text)

    def _one(self, clause: str, *values: object) -> Row | None:
        return next(self._rows(clause, *values), None)

    def _rows(self, clause: str, *values: object) -> Iterator[Row]:
        for row in self._run(f"SELECT {COLUMNS} FROM records {clause}", *values):
            yield Row(*row)

    def _run(self, query: str, *values: object) -> Any:
        parameters: Sequence[object] = values
        return self._db.execute(query.replace("?", self._mark), parameters)
