"""Keys that encrypt: of the Temporal payload codec and of the audit bundles.

Envelope encryption: what is encrypted has a key of its own, which travels with it, wrapped by a key of the
store. The store's keys never leave it; each has an id, and an old one goes on unwrapping for as long as it is
kept.
"""

from __future__ import annotations

import fcntl
import hmac
import json
import os
import secrets
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol, cast

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pydantic import AwareDatetime, Field, TypeAdapter, ValidationError

from qnwis.continuity.model import Model
from qnwis.durable import make_folder, write_private

from .errors import Refused
from .third_party import Kind, installed, known, third_party
from .threads import Threads

STORE_VARIABLE = "QNWIS_KEY_STORE"
"""`file:<path>`, `env:<variable>`, `vault:<mount>/<key>`, `kms:<key>?labels=<hmac key>`,
`azure:https://<vault>/keys/<name>/<version>`, or `NAME:…` of a provider that another package brings."""
EXPECTED = (
    "expected file:<path>, env:<variable>, vault:<mount>/<key>, kms:<key>?labels=<key> or azure:<key's URL>"
)
ROTATE_AFTER = timedelta(days=90)
KEY_BYTES, NONCE_BYTES = 32, 12
WRAP_PURPOSE = b"qnwis wrapped key v1\n"
LABEL_PURPOSE = b"qnwis labels v1"
KEY_THREADS = Threads("keys")
"""For those that are asked over a network."""


class KeyStoreError(Exception):
    """The key store, or a key in it, cannot be used; the text says which, why, and what would change it. It
    never holds a part of a key."""


class LostKey(KeyStoreError):
    """The store answers, and has not the key of that id, or that key did not wrap this."""


@dataclass(frozen=True)
class Wrapped:
    """A key that only the store can read."""

    key_id: str
    """Of the store's key that wrapped it."""
    blob: bytes


class KeyStore(Protocol):
    """Each method raises KeyStoreError."""

    async def wrap(self, key: bytes) -> Wrapped:
        """Under the store's newest key."""
        ...

    async def unwrap(self, wrapped: Wrapped) -> bytes:
        """Under the key of that id, however old, as long as the store has it."""
        ...

    def label_key(self) -> bytes:
        """A key for pseudonyms that do not change while the store's oldest key is kept."""
        ...


class StoredKey(Model):
    id: str = Field(pattern="^[A-Za-z0-9._-]{1,64}$")
    secret: str
    """32 bytes in base64."""
    created_at: AwareDatetime | None = None
    """None where only its operator knows."""

    def bytes(self) -> bytes:
        """Raises KeyStoreError."""
        try:
            secret = b64decode(self.secret, validate=True)
        except Base64Error:
            secret = b""
        if len(secret) != KEY_BYTES:
            raise KeyStoreError(f"key {self.id}: expected {KEY_BYTES} bytes in base64")
        return secret


class FileKeyStore:
    """Keys in a JSON file that only its owner can read; made by the first use.

    The newest key wraps; where it is older than `rotate_after`, a new one is made first. Processes that share
    the file share its keys.
    """

    def __init__(self, path: Path, *, rotate_after: timedelta = ROTATE_AFTER) -> None:
        self._path = path
        self._rotate_after = rotate_after

    async def wrap(self, key: bytes) -> Wrapped:
        return _wrap(self.current(datetime.now(UTC)), key)

    async def unwrap(self, wrapped: Wrapped) -> bytes:
        return _unwrap({key.id: key for key in self.keys()}, wrapped, f"{self._path}")

    def current(self, now: datetime) -> StoredKey:
        """The key that wraps at this time; a new one where there is none that is young enough."""
        keys = self.keys()
        if not keys or self._due(keys[-1], now):
            with self._lock():
                keys = self.keys()  # another process may have made one meanwhile
                if not keys or self._due(keys[-1], now):
                    keys = self._write((*keys, _new_key(now)))
        return keys[-1]

    def label_key(self) -> bytes:
        """For keyed pseudonyms: from the oldest key, so that rotation changes none."""
        self.current(datetime.now(UTC))
        return _label_key(self.keys()[0])

    def rotate(self, now: datetime) -> StoredKey:
        """Make a new key now, whatever the age of the present one."""
        with self._lock():
            return self._write((*self.keys(), _new_key(now)))[-1]

    def keys(self) -> tuple[StoredKey, ...]:
        """Oldest first; empty where there is no file yet. Refused where others than its owner can read it."""
        try:
            mode = self._path.stat().st_mode
            text = self._path.read_text()
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise KeyStoreError(f"{self._path}: cannot be read ({error.strerror})") from error
        if mode & 0o077:
            raise KeyStoreError(
                f"{self._path}: mode {mode & 0o777:04o}; others can read or change it. chmod 600 {self._path}"
            )
        try:
            return _KEYS.validate_json(text)
        except ValidationError:
            raise KeyStoreError(f"{self._path}: is no list of keys; restore it from a copy") from None

    def _due(self, key: StoredKey, now: datetime) -> bool:
        return key.created_at is not None and now - key.created_at >= self._rotate_after

    def _write(self, keys: tuple[StoredKey, ...]) -> tuple[StoredKey, ...]:
        try:
            write_private(self._path, json.dumps([key.model_dump(mode="json") for key in keys], indent=2))
        except OSError as error:
            raise KeyStoreError(f"{self._path}: cannot be written ({error.strerror})") from error
        return keys

    @contextmanager
    def _lock(self) -> Iterator[None]:
        beside = self._path.with_name(f".{self._path.name}.lock")
        try:
            make_folder(self._path.parent, mode=0o700)
            descriptor = os.open(beside, os.O_CREAT | os.O_RDWR, 0o600)
        except OSError as error:
            raise KeyStoreError(f"{beside}: cannot be written ({error.strerror})") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


class EnvironmentKeyStore:
    """Keys in an environment variable: `id:base64` separated by commas, the newest first. Its operator makes
    and rotates them."""

    def __init__(self, variable: str, environment: Mapping[str, str]) -> None:
        self._variable = variable
        self._environment = environment

    async def wrap(self, key: bytes) -> Wrapped:
        return _wrap(self.keys()[0], key)

    async def unwrap(self, wrapped: Wrapped) -> bytes:
        return _unwrap({key.id: key for key in self.keys()}, wrapped, f"${self._variable}")

    def label_key(self) -> bytes:
        """For keyed pseudonyms: from the oldest key, so that rotation changes none."""
        return _label_key(self.keys()[-1])

    def keys(self) -> tuple[StoredKey, ...]:
        """Newest first."""
        text = self._environment.get(self._variable, "")
        parts = [part.strip().partition(":") for part in text.split(",") if part.strip()]
        try:
            keys = tuple(StoredKey(id=key_id, secret=secret) for key_id, _, secret in parts)
        except ValidationError:
            keys = ()
        if not keys:
            raise KeyStoreError(f"${self._variable}: expected id:base64 of {KEY_BYTES} bytes, or several")
        return keys


_KEYS = TypeAdapter(tuple[StoredKey, ...])


def key_store_of(environment: Mapping[str, str]) -> KeyStore | None:
    """What QNWIS_KEY_STORE names; None where it is not set. Raises KeyStoreError for anything else."""
    named = environment.get(STORE_VARIABLE, "")
    kind, _, where = named.partition(":")
    if not named:
        return None
    if kind == "file" and where:
        return FileKeyStore(Path(where))
    if kind == "env" and where:
        return EnvironmentKeyStore(where, environment)
    # Each is loaded by who keeps keys there.
    if kind == "vault" and where:
        from .key_vault import VaultKeyStore

        return VaultKeyStore(where, environment)
    if kind == "kms" and where:
        from .key_kms import KmsKeyStore

        return KmsKeyStore(where)
    if kind == "azure" and where:
        from .key_azure import AzureKeyStore

        return AzureKeyStore(where, environment)
    if kind in installed(Kind.KEYS):
        try:
            return cast(KeyStore, third_party(Kind.KEYS, kind, where))
        except Refused as refused:
            raise KeyStoreError(f"{STORE_VARIABLE}: {refused.refusal.message}") from refused
    raise KeyStoreError(f"{STORE_VARIABLE}: {EXPECTED}, or a provider's name: {known(Kind.KEYS)}")


def _label_key(oldest: StoredKey) -> bytes:
    return hmac.digest(oldest.bytes(), LABEL_PURPOSE, "sha256")


def _new_key(now: datetime) -> StoredKey:
    key_id = f"k{now:%Y%m%d}-{secrets.token_hex(4)}"
    return StoredKey(id=key_id, secret=b64encode(secrets.token_bytes(KEY_BYTES)).decode(), created_at=now)


def _wrap(with_key: StoredKey, key: bytes) -> Wrapped:
    nonce = secrets.token_bytes(NONCE_BYTES)
    sealed = AESGCM(with_key.bytes()).encrypt(nonce, key, WRAP_PURPOSE + with_key.id.encode())
    return Wrapped(with_key.id, nonce + sealed)


def _unwrap(keys: Mapping[str, StoredKey], wrapped: Wrapped, where: str) -> bytes:
    key = keys.get(wrapped.key_id)
    if key is None:
        raise LostKey(f"{where} has no key {wrapped.key_id}; restore the key it was wrapped with")
    nonce, sealed = wrapped.blob[:NONCE_BYTES], wrapped.blob[NONCE_BYTES:]
    try:
        return AESGCM(key.bytes()).decrypt(nonce, sealed, WRAP_PURPOSE + wrapped.key_id.encode())
    except (InvalidTag, ValueError):
        raise LostKey(f"{where}: key {wrapped.key_id} did not wrap this, or it was altered") from None
