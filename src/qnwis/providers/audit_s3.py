"""The audit log in S3 under object lock: one object for each record, which nobody can replace or delete.

A record is put only where no object is (`If-None-Match`), so of two writers the second begins anew. Of a key
the oldest version counts: a delete marker, or a version that somebody puts on top, hides nothing. Beside each
record lies an empty object whose name says which record it is; where a writer died before it was put, the
next writer puts it.
"""

from __future__ import annotations

import json
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from .audit_log import Conflict, HeadRow, Row

DIGITS = 12
RECORD = re.compile(rf"[0-9]{{{DIGITS}}}")
"""The name of a record's object."""
TAKEN = frozenset({"PreconditionFailed", "ConditionalRequestConflict"})


@dataclass(frozen=True)
class S3Place:
    bucket: str
    prefix: str = ""
    """Ends with `/`, or is empty."""
    retain: timedelta = timedelta(days=2555)
    """For how long nobody, not even the account's owner, can delete a record."""


@dataclass(frozen=True)
class Listed:
    """What a listing found. None of it changes any more, so the next one begins behind it: a log grows for
    years, and each record would list all that came before it."""

    records: Mapping[int, str] = field(default_factory=dict)
    """The version that counts, by sequence."""
    names: Mapping[int, Row] = field(default_factory=dict)
    """Which record it is, by sequence; without its text."""

    def last_named(self) -> Row | None:
        """The last record that has its name, as all before it have: others may get theirs yet."""
        named = takewhile(self.names.__contains__, sorted(self.records))
        last = max(named, default=None)
        return None if last is None else self.names[last]


class S3Log:
    failures: tuple[type[Exception], ...] = (ClientError, BotoCoreError)
    damages: tuple[type[Exception], ...] = ()

    def __init__(self, place: S3Place, client: Callable[[], Any]) -> None:
        self._place = place
        self._client = client
        self._listed = Listed()

    def __str__(self) -> str:
        return f"s3://{self._place.bucket}/{self._place.prefix}"

    def exists(self) -> bool:
        """Lists all of it anew: so begins whoever proves the log, and takes nothing for granted."""
        self._listed = Listed()
        with self.reading() as view:
            return view.newest() is not None

    @contextmanager
    def reading(self) -> Iterator[S3View]:
        yield self._view(self._client())

    @contextmanager
    def writing(self) -> Iterator[S3View]:
        s3 = self._client()
        s3.get_object_lock_configuration(
            Bucket=self._place.bucket
        )  # a bucket without it is no place for this
        view = self._view(s3)
        view.name_the_nameless()
        yield view

    def _view(self, s3: Any) -> S3View:
        view = S3View(s3, self._place, self._listed)
        self._listed = view.listed
        return view


@dataclass
class S3View:
    """What is there when it is made; records that come later are not seen."""

    s3: Any
    place: S3Place
    listed: Listed
    """What is known from before, and then all."""
    _read: dict[int, dict[str, Any] | None] = field(default_factory=dict)
    """Objects by sequence; None for what is not as it was put."""

    def __post_init__(self) -> None:
        known = self.listed
        last, named = max(known.records, default=None), known.last_named()
        found = self._oldest("records/", behind=None if last is None else self._key(last))
        self._records = {**known.records, **self._by_sequence(found)}
        """The version that counts, by sequence."""
        named_as = None if named is None else self._under(f"names/{_name(named)}")
        names = (key.removeprefix(self._under("names/")) for key in self._oldest("names/", behind=named_as))
        rows = (Row(*_named(name), text="") for name in names)
        by_sequence = {**known.names, **{row.sequence: row for row in rows}}
        self.listed = Listed(self._records, {**by_sequence})
        self._nameless = [sequence for sequence in self._records if sequence not in by_sequence]
        by_sequence |= {sequence: self._row(sequence) for sequence in self._nameless}
        self._names = [by_sequence[sequence] for sequence in sorted(self._records)]

    def newest(self) -> Row | None:
        last = max(self._records, default=None)
        return None if last is None else self._row(last)

    def own(self, run_id: str, operation: str) -> Row | None:
        return self._first(lambda row: (row.run_id, row.operation) == (run_id, operation))

    def by_id(self, audit_id: str) -> Row | None:
        return self._first(lambda row: row.audit_id == audit_id)

    def by_run(self, run_id: str) -> list[Row]:
        return [self._row(row.sequence) for row in self._names if row.run_id == run_id]

    def latest(self, limit: int) -> list[Row]:
        return [self._row(sequence) for sequence in sorted(self._records, reverse=True)[:limit]]

    def after(self, sequence: int, limit: int) -> list[Row]:
        following = sorted(place for place in self._records if place > sequence)[:limit]
        # Its place is where it lies, whatever it says: who reads on from there must come past it, and once.
        return [replace(self._row(place), sequence=place) for place in following]

    def rows(self) -> Iterator[Row]:
        return (self._row(sequence) for sequence in sorted(self._records))

    def artefacts(self, sequence: int) -> dict[str, str]:
        return dict((self._object(sequence) or {}).get("artefacts", {}))

    def all_artefacts(self) -> Iterator[tuple[int, object, object]]:
        for sequence in sorted(self._records):
            for name, content in self.artefacts(sequence).items():
                yield sequence, name, content

    def newest_head(self, *, below: int | None = None) -> HeadRow | None:
        sizes = [size for size in self._records if below is None or size < below]
        return next((head for size in sorted(sizes, reverse=True) if (head := self._head(size))), None)

    def heads(self) -> Iterator[HeadRow]:
        return (head for size in sorted(self._records) if (head := self._head(size)) is not None)

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

    def _oldest(self, under: str, *, behind: str | None = None) -> dict[str, str]:
        """The first version of each key, of those that come after one."""
        begins = {} if behind is None else {"KeyMarker": behind}
        pages = self.s3.get_paginator("list_object_versions").paginate(
            Bucket=self.place.bucket, Prefix=self._under(under), **begins
        )
        found: dict[str, str] = {}
        for page in pages:
            for version in page.get("Versions", ()):  # of one key the newest comes first
                found[version["Key"]] = version["VersionId"]
        return found

    def _by_sequence(self, found: Mapping[str, str]) -> dict[int, str]:
        """Of records; whatever else somebody has put there is none."""
        names = {key.removeprefix(self._under("records/")): version for key, version in found.items()}
        return {int(name): version for name, version in names.items() if RECORD.fullmatch(name)}

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
            version = self._records[sequence]
            got = self.s3.get_object(Bucket=self.place.bucket, Key=self._key(sequence), VersionId=version)
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
