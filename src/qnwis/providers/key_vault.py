"""Keys in HashiCorp Vault's transit engine: they never leave it. Vault rotates them (`auto_rotate_period`)
and goes on decrypting what an old version encrypted."""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from .key_http import KeyHttp, field_of
from .key_store import KEY_THREADS, LABEL_PURPOSE, WRAP_PURPOSE, KeyStoreError, LostKey, Wrapped

VERSION = re.compile(r"vault:v(\d+):")


class VaultKeyStore:
    """`mount/key` of a transit engine. Where Vault is and who asks, say VAULT_ADDR, VAULT_NAMESPACE,
    VAULT_CACERT and VAULT_TOKEN (else `~/.vault-token`, as Vault's own agent and command line keep it)."""

    def __init__(self, where: str, environment: Mapping[str, str]) -> None:
        self._mount, _, self._key = where.rpartition("/")
        if not self._mount or not self._key:
            raise KeyStoreError(f"vault:{where}: expected vault:MOUNT/KEY, for example vault:transit/qnwis")
        self._environment = environment

    async def wrap(self, key: bytes) -> Wrapped:
        return await KEY_THREADS.run(partial(self._wrap, key))

    async def unwrap(self, wrapped: Wrapped) -> bytes:
        return await KEY_THREADS.run(partial(self._unwrap, wrapped))

    def label_key(self) -> bytes:
        """By the key's first version, so that rotation changes none."""
        asked = {"input": _text(LABEL_PURPOSE), "key_version": 1}
        made = field_of(self._ask("hmac", asked), self._named, "data", "hmac")
        return b64decode(made.rpartition(":")[2])

    def _wrap(self, key: bytes) -> Wrapped:
        asked = {"plaintext": _text(key), "associated_data": _text(WRAP_PURPOSE)}
        made = field_of(self._ask("encrypt", asked), self._named, "data", "ciphertext")
        version = VERSION.match(made)
        if version is None:
            raise KeyStoreError(f"{self._named} answers with what is no ciphertext of its own")
        return Wrapped(f"{self._key}:v{version[1]}", made.encode())

    def _unwrap(self, wrapped: Wrapped) -> bytes:
        blob = wrapped.blob.decode(errors="replace")
        version = VERSION.match(blob)
        if version is None or wrapped.key_id != f"{self._key}:v{version[1]}":
            raise LostKey(
                f"{self._named} has no key {wrapped.key_id} for this; name the key it was wrapped with, or"
                " the wrapping was altered"
            )
        asked = {"ciphertext": blob, "associated_data": _text(WRAP_PURPOSE)}
        told = self._ask("decrypt", asked, lost=wrapped.key_id)
        return b64decode(field_of(told, self._named, "data", "plaintext"))

    @property
    def _named(self) -> str:
        return f"Vault at {self._environment.get('VAULT_ADDR', 'nowhere')}"

    def _ask(self, what: str, json: Mapping[str, Any], *, lost: str | None = None) -> dict[str, Any]:
        address = self._environment.get("VAULT_ADDR", "").rstrip("/")
        if not address.startswith(("https://", "http://")):
            raise KeyStoreError("VAULT_ADDR: expected the address of Vault, https://…")
        headers = {"X-Vault-Token": self._token()}
        if namespace := self._environment.get("VAULT_NAMESPACE"):
            headers["X-Vault-Namespace"] = namespace
        url = f"{address}/v1/{quote(self._mount)}/{what}/{quote(self._key)}"
        http = KeyHttp(self._named, ca_file=self._environment.get("VAULT_CACERT"))
        return http.ask("POST", url, headers=headers, json=json, lost=lost)

    def _token(self) -> str:
        if token := self._environment.get("VAULT_TOKEN", "").strip():
            return token
        file = Path(self._environment.get("HOME", "/")) / ".vault-token"
        try:
            return file.read_text(errors="replace").strip()
        except OSError as error:
            raise KeyStoreError(
                f"VAULT_TOKEN is not set and {file} cannot be read ({error.strerror}); sign in to Vault"
            ) from error


def _text(raw: bytes) -> str:
    return b64encode(raw).decode()
