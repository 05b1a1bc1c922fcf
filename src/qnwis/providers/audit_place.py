"""Where this installation keeps its audit trail, and whether it is sealed: one answer for every process."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from functools import cache, partial
from pathlib import Path
from typing import cast
from urllib.parse import parse_qs, urlsplit

from qnwis.continuity.refusal import Refusal

from .audit_keys import SigningKey
from .audit_log import AuditLog
from .audit_sqlite import SqliteLog
from .audit_store import PERSONS, LoggedAuditStore
from .aws import ONCE, TRIES, aws_client
from .errors import Refused
from .key_store import key_store_of
from .persons import Persons
from .third_party import Kind, installed, known, third_party

PLACE_VARIABLE = "QNWIS_AUDIT_STORE"
"""`sqlite` (also where it is not set), `postgresql://…`, `s3://BUCKET/PREFIX?retain_days=2555`, or
`NAME:…` of a provider that another package brings."""
SQLITE = "audit.sqlite"
SIGNING_KEY = "audit-signing-key.pem"
RETAIN_DAYS = 2555


def is_elsewhere(environment: Mapping[str, str]) -> bool:
    """Whether the log is not in the state directory."""
    return environment.get(PLACE_VARIABLE, "").strip() not in ("", "sqlite")


def audit_store_of(
    state_dir: Path, environment: Mapping[str, str], *, asked_again: bool = False
) -> LoggedAuditStore:
    """Records are sealed where QNWIS_KEY_STORE names a key store. Raises KeyStoreError, and Refused for a
    place that is none.

    The signing key and the names of persons are in `state_dir`, wherever the log is. `asked_again`: by the
    caller, as activities are.
    """
    return LoggedAuditStore(
        log_of(state_dir, environment, asked_again=asked_again),
        SigningKey(state_dir / SIGNING_KEY),
        Persons(state_dir / PERSONS),
        keys=key_store_of(environment),
    )


def log_of(state_dir: Path, environment: Mapping[str, str], *, asked_again: bool = False) -> AuditLog:
    """Each module is loaded by who keeps the log there. Raises Refused."""
    place = environment.get(PLACE_VARIABLE, "").strip()
    kind = place.partition(":")[0]
    if not is_elsewhere(environment):
        return SqliteLog(state_dir / SQLITE)
    try:
        if kind in ("postgresql", "postgres"):
            from .audit_postgres import PostgresLog

            return PostgresLog(place)
        if kind == "s3":
            return _s3(place, tries=ONCE if asked_again else TRIES)
    except ValueError as error:
        raise _none(kind, str(error)) from None
    if kind in installed(Kind.AUDIT):
        return cast(AuditLog, third_party(Kind.AUDIT, kind, place.partition(":")[2]))
    raise _none(kind, f"expected sqlite, postgresql://…, s3://… or a provider's name: {known(Kind.AUDIT)}")


def _s3(place: str, *, tries: int) -> AuditLog:
    """Raises ValueError."""
    url = urlsplit(place)
    options = {
        name: values[-1] for name, values in parse_qs(url.query, strict_parsing=bool(url.query)).items()
    }
    days = options.pop("retain_days", str(RETAIN_DAYS))
    if not url.netloc or options or not days.isdigit() or not 1 <= int(days) <= 36500:
        raise ValueError("expected s3://BUCKET/PREFIX, and at most ?retain_days= with 1 to 36500")
    client = cache(partial(aws_client, "s3", extra="aws", tries=tries))
    client()  # says that it is not installed before the module that needs it is loaded
    from .audit_s3 import S3Log, S3Place

    prefix = url.path.strip("/")
    return S3Log(
        S3Place(url.netloc, f"{prefix}/" if prefix else "", timedelta(days=int(days))),
        client,
    )


def _none(kind: str, expected: str) -> Refused:
    return Refused(
        Refusal(
            rule="audit_place_unknown",
            message=f"{PLACE_VARIABLE} names no place for the audit trail: {expected}",
            values={"kind": kind},
            remedy=f"Correct {PLACE_VARIABLE}; without it the trail is {SQLITE} in the state directory.",
        )
    )
