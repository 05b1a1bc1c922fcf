"""Keys in AWS KMS: they never leave it. KMS rotates them (`EnableKeyRotation`, every 90 days where it is told
so) and goes on decrypting what an old one encrypted."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache, partial
from typing import Any
from urllib.parse import parse_qs

from .aws import aws_client
from .errors import Refused
from .key_store import KEY_THREADS, LABEL_PURPOSE, WRAP_PURPOSE, KeyStoreError, LostKey, Wrapped

CONTEXT = {"purpose": WRAP_PURPOSE.decode().strip()}
LOST = frozenset(
    {
        "DisabledException",
        "IncorrectKeyException",
        "InvalidCiphertextException",
        "KMSInvalidStateException",
        "NotFoundException",
        "ValidationException",
    }
)


class KmsKeyStore:
    """`KEY?labels=HMAC_KEY`: an encryption key by id, ARN or alias, and a key of KMS for HMAC_SHA_256, from
    which the key for pseudonyms is made. Credentials and region come from where every AWS tool has them."""

    def __init__(self, where: str, client: Callable[[], Any] | None = None) -> None:
        self._key, _, query = where.partition("?")
        options = {name: values[-1] for name, values in parse_qs(query).items()}
        self._labels = options.pop("labels", None)
        if not self._key or options:
            raise KeyStoreError(f"kms:{where}: expected kms:KEY?labels=HMAC_KEY, ids, ARNs or aliases")
        self._client = client or cache(partial(aws_client, "kms", extra="aws"))

    async def wrap(self, key: bytes) -> Wrapped:
        def wrap() -> Wrapped:
            made = self._ask("encrypt", KeyId=self._key, Plaintext=key, EncryptionContext=CONTEXT)
            return Wrapped(str(made["KeyId"]), bytes(made["CiphertextBlob"]))

        return await KEY_THREADS.run(wrap)

    async def unwrap(self, wrapped: Wrapped) -> bytes:
        def unwrap() -> bytes:
            made = self._ask(
                "decrypt",
                lost=wrapped.key_id,
                KeyId=wrapped.key_id,
                CiphertextBlob=wrapped.blob,
                EncryptionContext=CONTEXT,
            )
            return bytes(made["Plaintext"])

        return await KEY_THREADS.run(unwrap)

    def label_key(self) -> bytes:
        if self._labels is None:
            raise KeyStoreError(
                f"kms:{self._key}: expected ?labels= with a key of KMS for HMAC_SHA_256, from which the key"
                " for pseudonyms is made"
            )
        made = self._ask(
            "generate_mac", KeyId=self._labels, Message=LABEL_PURPOSE, MacAlgorithm="HMAC_SHA_256"
        )
        return hashlib.sha256(made["Mac"]).digest()

    def _ask(self, what: str, *, lost: str | None = None, **asked: Any) -> Any:
        client = self._made_client()
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            return getattr(client, what)(**asked)
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "")
            if lost is not None and code in LOST:
                raise LostKey(
                    f"KMS answers {code}; key {lost} is not there, did not wrap this, or it was altered"
                ) from None
            raise KeyStoreError(f"KMS answers {code} to {what}") from None
        except BotoCoreError as error:
            raise KeyStoreError(f"KMS cannot be asked ({type(error).__name__})") from None

    def _made_client(self) -> Any:
        try:
            return self._client()
        except Refused as refused:
            raise KeyStoreError(str(refused.refusal)) from refused
        except Exception as error:  # botocore's of a region or a profile, and ValueError of an endpoint
            raise KeyStoreError(
                f"KMS cannot be asked ({type(error).__name__}); region, profile and endpoint are those that"
                " every AWS tool has"
            ) from None
