"""The audit log in S3 under object lock: one object for each record, which nobody can replace or delete.

A record is put only where no object is (`If-None-Match`), so of two writers the second begins anew. Of a key
the oldest version counts: a delete marker, or a version that somebody puts on top, hides nothing. Beside each
record lies an empty object whose name says which record it is; where a writer died before it was put, the
next writer puts it.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from .audit_log import Conflict, HeadRow, Row

DIGITS = 12
TAKEN = frozenset({"PreconditionFailed", "ConditionalRequestConflict"})


@dataclass(frozen=True)
class S3Place:
    bucket: str
    prefix: str = ""
    """Ends with `/`, or is empty."""
    retain: timedelta = timedelta(days=2555)
    """For how long nobody, not even the account's owner, can delete a record."""


class S3Log:
    failures: tuple[type[Exception], ...] = (ClientError, BotoCoreError)
    damages: tuple[type[Exception], ...] = ()

    def __init__(self, place: S3Place, client: Callable[[], Any]) -> None:
        self._place = place
        self._client = client

    def __str__(self) -> str:
        return f"s3://{self._place.bucket}/{self._place.prefix}"

    def exists(self) -> bool:
        with self.reading() as view:
            return view.newest() is not None

    @contextmanager
    def reading(self) -> Iterator[S3View]:
        yield S3View(self._client(), self._place)

    @contextmanager
    def writing(self) -> Iterator[S3View]:
        s3 = self._client()
        s3.get_object_lock_configuration(
            Bucket=self._place.bucket
        )  # a bucket without it is no place for this
        view = S3View(s3, self._place)
        view.name_the_nameless()
        yield view


@dataclass
class S3View:
    """What is there when it is made; records that come later are not seen."""

    s3: Any
    place: S3Place
    _read: dict[int, dict[str, Any] | None] = field(default_factory=dict)
    """Objects by sequence; None for what is not as it was put."""

    def __post_init__(self) -> None:
        self._records = dict(self._oldest("records/"))
        """The version that counts, by key."""
        names = (key.removeprefix(self._under("names/")) for key in self._oldest("names/"))
        by_sequence = {row.sequence: row for row in (Row(*_named(name), text="") for name in names)}
        self._nameless = [sequence for sequence in self._sequences() if sequence not in by_sequence]
        by_sequence |= {sequence: self._row(sequence) for sequence in self._nameless}
        self._names = [by_sequence[sequence] for sequence in sorted(self._sequences())]

    def newest(self) -> Row | None:
        last = max(self._sequences(), default=None)
        return None if last is None else self._row(last)

    def own(self, run_id: str, operation: str) -> Row | None:
        return self._first(lambda row: (row.run_id, row.operation) == (run_id, operation))

    def by_id(self, audit_id: str) -> Row | None:
        return self._first(lambda row: row.audit_id == audit_id)

    def by_run(self, run_id: str) -> list[Row]:
        return [self._row(row.sequence) for row in self._names if row.run_id == run_id]

    def latest(self, limit: int) -> list[Row]:
        return [self._row(sequence) for sequence in sorted(self._sequences(), reverse=True)[:limit]]

    def rows(self) -> Iterator[Row]:
        return (self._row(sequence) for sequence in sorted(self._sequences()))

    def artefacts(self, sequence: int) -> dict[str, str]:
        return dict((self._object(sequence) or {}).get("artefacts", {}))

    def all_artefacts(self) -> Iterator[tuple[int, object, object]]:
        for sequence in sorted(self._sequences()):
            for name, content in self.artefacts(sequence).items():
                yield sequence, name, content

    def newest_head(self, *, below: int | None = None) -> HeadRow | None:
        sizes = [size for size in self._sequences() if below is None or size < below]
        return next((head for size in sorted(sizes, reverse=True) if (head := self._head(size))), None)

    def heads(self) -> Iterator[HeadRow]:
        return (head for size in sorted(self._sequences()) if (head := self._head(size)) is not None)

    def add(self, row: Row, artefacts: Mapping[str, str], head: HeadRow) -> None:
        told = {
            "row": asdict(row),
            "artefacts": dict(artefacts),
            "head": {"size": head.size, "peaks": head.peaks.hex(), "text": head.text},
        }
        key = self._key(row.sequence)
        try:
            put = self._put(key, json.dumps(told, sort_keys=True).encode(), IfNoneMatch="*")
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") in TAKEN:
                raise Conflict from error
            raise
        if self._oldest(f"records/{row.sequence:0{DIGITS}d}")[key] != put["VersionId"]:
            raise Conflict  # a store that takes no condition, or a delete marker that made room
        self._put(self._under(f"names/{_name(row)}"), b"")

    def name_the_nameless(self) -> None:
        """Put the name of a record whose writer did not come to it."""
        for sequence in self._nameless:
            self._put(self._under(f"names/{_name(self._row(sequence))}"), b"")

    def _put(self, key: str, body: bytes, **condition: str) -> Any:
        return self.s3.put_object(
            Bucket=self.place.bucket,
            Key=key,
            Body=body,
            ObjectLockMode="COMPLIANCE",
            ObjectLockRetainUntilDate=datetime.now(UTC) + self.place.retain,
            **condition,
        )

    def _oldest(self, under: str) -> dict[str, str]:
        """The first version of each key."""
        pages = self.s3.get_paginator("list_object_versions").paginate(
            Bucket=self.place.bucket, Prefix=self._under(under)
        )
        found: dict[str, str] = {}
        for page in pages:
            for version in page.get("Versions", ()):  # of one key the newest comes first
                found[version["Key"]] = version["VersionId"]
        return found

    def _sequences(self) -> list[int]:
        names = (key.rpartition("/")[2] for key in self._records)
        return [int(name) for name in names if name.isdigit()]

    def _first(self, wanted: Callable[[Row], bool]) -> Row | None:
        return next((self._row(row.sequence) for row in self._names if wanted(row)), None)

    def _row(self, sequence: int) -> Row:
        try:
            return Row(**(self._object(sequence) or {})["row"])
        except (KeyError, TypeError):
            return Row(sequence, "", "", "", text="")  # found by `verify` to be no record

    def _head(self, size: int) -> HeadRow | None:
        try:
            told = (self._object(size) or {})["head"]
            return HeadRow(told["size"], bytes.fromhex(told["peaks"]), told["text"])
        except (KeyError, TypeError, ValueError):
            return None

    def _object(self, sequence: int) -> dict[str, Any] | None:
        if sequence not in self._read:
            key = self._key(sequence)
            got = self.s3.get_object(Bucket=self.place.bucket, Key=key, VersionId=self._records[key])
            try:
                told = json.loads(got["Body"].read())
            except ValueError:
                told = None
            self._read[sequence] = told if isinstance(told, dict) else None
        return self._read[sequence]

    def _key(self, sequence: int) -> str:
        return self._under(f"records/{sequence:0{DIGITS}d}")

    def _under(self, name: str) -> str:
        return self.place.prefix + name


def _name(row: Row) -> str:
    told = json.dumps([row.audit_id, row.run_id, row.operation]).encode()
    return f"{row.sequence:0{DIGITS}d}-{urlsafe_b64encode(told).decode()}"


def _named(name: str) -> tuple[int, str, str, str]:
    """What `_name` was made of; of anything else, what matches nothing."""
    sequence, _, told = name.partition("-")
    try:
        audit_id, run_id, operation = json.loads(urlsafe_b64decode(told))
        return int(sequence), str(audit_id), str(run_id), str(operation)
    except (ValueError, TypeError):
        return 0, "", "", ""
