"""Encryption of everything that Temporal keeps: arguments, results, memos, summaries, details and failures.

Each payload is encrypted with AES-256-GCM under a data key of this process, which travels with it, wrapped by
the key store; so the server, its database and who reads its histories see ciphertext. A payload that was not
encrypted is passed on as it is: histories from before stay readable, and what a person types into the UI
without a codec server is a claim like any other, which the run's own rules judge.
"""

from __future__ import annotations

import dataclasses
import secrets
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from temporalio.api.common.v1 import Payload
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.converter import (
    DataConverter,
    DefaultFailureConverterWithEncodedAttributes,
    PayloadCodec,
)

from qnwis.providers.key_store import KEY_BYTES, NONCE_BYTES, KeyStore, KeyStoreError, Wrapped, key_store_of

ENCODING = b"binary/encrypted"
CIPHER, KEY_ID, WRAPPED = "encryption-cipher", "encryption-key-id", "encryption-wrapped-key"
AES_256_GCM = b"AES-256-GCM"
PURPOSE = b"qnwis payload v1\n"
KEY_SERVES_S = 3600.0
KEY_SERVES = 1 << 20
"""Payloads under one data key: far below what random nonces of 96 bits allow."""
REMEMBERED = 4096
"""Unwrapped keys that are kept in memory."""


class PayloadError(Exception):
    """A payload cannot be decrypted; the text says why, and holds nothing of it."""


@dataclass
class _DataKey:
    cipher: AESGCM
    wrapped: Wrapped
    made_at: float
    """By the monotonic clock, seconds."""
    served: int = 0


class EncryptingCodec(PayloadCodec):
    """AES-256-GCM for each payload; its metadata has the id of the store's key and the wrapped data key."""

    def __init__(self, keys: KeyStore) -> None:
        self._keys = keys
        self._own: _DataKey | None = None
        self._known: OrderedDict[tuple[str, bytes], AESGCM] = OrderedDict()

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """Raises KeyStoreError; nothing is ever sent as it is instead."""
        return [await self._encrypted(payload) for payload in payloads]

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """Raises KeyStoreError where the key is missing, PayloadError where the payload was altered."""
        return [
            await self._decrypted(payload) if payload.metadata.get("encoding") == ENCODING else payload
            for payload in payloads
        ]

    async def _encrypted(self, payload: Payload) -> Payload:
        key = await self._current()
        key.served += 1
        nonce = secrets.token_bytes(NONCE_BYTES)
        sealed = key.cipher.encrypt(nonce, payload.SerializeToString(), _bound_to(key.wrapped))
        return Payload(
            metadata={
                "encoding": ENCODING,
                CIPHER: AES_256_GCM,
                KEY_ID: key.wrapped.key_id.encode(),
                WRAPPED: key.wrapped.blob,
            },
            data=nonce + sealed,
        )

    async def _decrypted(self, payload: Payload) -> Payload:
        if payload.metadata.get(CIPHER) != AES_256_GCM:
            raise PayloadError("a payload is encrypted by something else than this codec")
        key_id = payload.metadata.get(KEY_ID, b"").decode(errors="replace")
        wrapped = Wrapped(key_id, payload.metadata.get(WRAPPED, b""))
        cipher = await self._unwrapped(wrapped)
        nonce, sealed = payload.data[:NONCE_BYTES], payload.data[NONCE_BYTES:]
        try:
            return Payload.FromString(cipher.decrypt(nonce, sealed, _bound_to(wrapped)))
        except (InvalidTag, ValueError):
            raise PayloadError("a payload was altered since it was encrypted") from None

    async def _current(self) -> _DataKey:
        own, now = self._own, time.monotonic()
        if own is None or own.served >= KEY_SERVES or now - own.made_at >= KEY_SERVES_S:
            key = secrets.token_bytes(KEY_BYTES)
            own = self._own = _DataKey(AESGCM(key), await self._keys.wrap(key), now)
        return own

    async def _unwrapped(self, wrapped: Wrapped) -> AESGCM:
        name = (wrapped.key_id, wrapped.blob)
        if (known := self._known.get(name)) is not None:
            self._known.move_to_end(name)
            return known
        key = await self._keys.unwrap(wrapped)
        if len(key) != KEY_BYTES:
            raise KeyStoreError(f"key {wrapped.key_id} unwraps to something that is no key")
        self._known[name] = cipher = AESGCM(key)
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        return cipher


def data_converter(environment: Mapping[str, str]) -> DataConverter:
    """The one data converter of every client and worker: encrypting where QNWIS_KEY_STORE names a key store.

    Raises KeyStoreError for a setting that names none.
    """
    keys = key_store_of(environment)
    if keys is None:
        return pydantic_data_converter
    return dataclasses.replace(
        pydantic_data_converter,
        payload_codec=EncryptingCodec(keys),
        failure_converter_class=DefaultFailureConverterWithEncodedAttributes,
    )


def _bound_to(wrapped: Wrapped) -> bytes:
    return PURPOSE + wrapped.key_id.encode() + b"\n" + wrapped.blob
