"""Encryption of everything that Temporal keeps: arguments, results, memos, summaries, details and failures.

Each payload is encrypted with AES-256-GCM under a data key of this process, which travels with it, wrapped by
the key store; so the server, its database and who reads its histories see ciphertext. A payload that was not
encrypted is passed on as it is: histories from before stay readable, and what a person types into the UI
without a codec server is a claim like any other, which the run's own rules judge.
"""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from temporalio.api.common.v1 import Payload
from temporalio.contrib.pydantic import PydanticPayloadConverter, pydantic_data_converter
from temporalio.converter import (
    DataConverter,
    DefaultFailureConverterWithEncodedAttributes,
    EncodingPayloadConverter,
    PayloadCodec,
)

from qnwis.providers.data_keys import DataKeys
from qnwis.providers.key_store import (
    NONCE_BYTES,
    STORE_VARIABLE,
    KeyStore,
    KeyStoreError,
    Wrapped,
    key_store_of,
)

ENCODING = b"binary/encrypted"
CIPHER, KEY_ID, WRAPPED = "encryption-cipher", "encryption-key-id", "encryption-wrapped-key"
AES_256_GCM = b"AES-256-GCM"
PURPOSE = b"qnwis payload v1\n"


class PayloadError(Exception):
    """A payload cannot be decrypted; the text says why, and holds nothing of it."""


class EncryptingCodec(PayloadCodec):
    """AES-256-GCM for each payload; its metadata has the id of the store's key and the wrapped data key."""

    def __init__(self, keys: KeyStore) -> None:
        self._keys = DataKeys(keys)

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
        key = await self._keys.current()
        nonce = secrets.token_bytes(NONCE_BYTES)
        sealed = AESGCM(key.key).encrypt(nonce, payload.SerializeToString(), _bound_to(key.wrapped))
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
        cipher = AESGCM(await self._keys.unwrapped(wrapped))
        nonce, sealed = payload.data[:NONCE_BYTES], payload.data[NONCE_BYTES:]
        try:
            return Payload.FromString(cipher.decrypt(nonce, sealed, _bound_to(wrapped)))
        except (InvalidTag, ValueError):
            raise PayloadError("a payload was altered since it was encrypted") from None


class WithoutKeys(EncodingPayloadConverter):
    """Says what is missing where a payload is encrypted and this process has no key store."""

    @property
    def encoding(self) -> str:
        return ENCODING.decode()

    def to_payload(self, value: Any) -> None:
        """None: it makes no payload of anything."""

    def from_payload(self, payload: Payload, type_hint: type | None = None) -> NoReturn:
        """Raises KeyStoreError."""
        raise KeyStoreError(
            f"what Temporal keeps is encrypted, and {STORE_VARIABLE} is not set: set it as workers have it"
        )


class ClearPayloads(PydanticPayloadConverter):
    """Pydantic's, which without it would know nothing of what is encrypted but that it does not know it."""

    def __init__(self) -> None:
        super().__init__()
        self._set_converters(*self.converters.values(), WithoutKeys())


def data_converter(environment: Mapping[str, str]) -> DataConverter:
    """The one data converter of every client and worker: encrypting where QNWIS_KEY_STORE names a key store.
    Without one, it raises KeyStoreError for a payload that is encrypted.

    Raises KeyStoreError for a setting that names none.
    """
    keys = key_store_of(environment)
    if keys is None:
        return dataclasses.replace(pydantic_data_converter, payload_converter_class=ClearPayloads)
    return dataclasses.replace(
        pydantic_data_converter,
        payload_codec=EncryptingCodec(keys),
        failure_converter_class=DefaultFailureConverterWithEncodedAttributes,
    )


def _bound_to(wrapped: Wrapped) -> bytes:
    return PURPOSE + wrapped.key_id.encode() + b"\n" + wrapped.blob
