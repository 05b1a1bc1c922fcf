"""Where this installation keeps its audit trail, and whether it is sealed: one answer for every process."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from .audit_keys import SigningKey
from .audit_sqlite import SqliteLog
from .audit_store import PERSONS, LoggedAuditStore
from .key_store import key_store_of
from .persons import Persons

SQLITE = "audit.sqlite"
SIGNING_KEY = "audit-signing-key.pem"


def audit_store_of(state_dir: Path, environment: Mapping[str, str]) -> LoggedAuditStore:
    """Records are sealed where QNWIS_KEY_STORE names a key store. Raises KeyStoreError.

    The signing key and the names of persons are in `state_dir`, wherever the log is.
    """
    return LoggedAuditStore(
        SqliteLog(state_dir / SQLITE),
        SigningKey(state_dir / SIGNING_KEY),
        Persons(state_dir / PERSONS),
        keys=key_store_of(environment),
    )
