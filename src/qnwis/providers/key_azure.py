"""Keys in Azure Key Vault: RSA keys that never leave it. Its rotation policy makes new versions, and old ones
go on unwrapping what names them."""

from __future__ import annotations

import hashlib
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from .key_http import KeyHttp, field_of
from .key_store import KEY_THREADS, LABEL_PURPOSE, KeyStoreError, LostKey, Wrapped

API = "api-version=7.4"
ALGORITHM = "RSA-OAEP-256"
RESOURCE = "https://vault.azure.net"
AUTHORITY = "https://login.microsoftonline.com"
MACHINE = "http://169.254.169.254"
"""Who a machine of Azure asks for its own identity."""
SPARE_S = 120.0
"""A token that ends sooner is asked for anew."""


class AzureKeyStore:
    """`https://VAULT.vault.azure.net/keys/NAME/VERSION`: the version signs what pseudonyms are made from, the
    newest one wraps. Who asks: AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET, else the machine's
    own identity."""

    def __init__(self, where: str, environment: Mapping[str, str], *, machine: str = MACHINE) -> None:
        url = urlsplit(where)
        parts = url.path.strip("/").split("/")
        if url.scheme not in ("https", "http") or not url.netloc or len(parts) != 3 or parts[0] != "keys":
            raise KeyStoreError(
                f"azure:{where}: expected azure:https://VAULT.vault.azure.net/keys/NAME/VERSION"
            )
        self._first = where.rstrip("/")
        self._key = self._first.rpartition("/")[0]
        self._environment = environment
        self._machine = machine
        self._http = KeyHttp(f"Key Vault {url.netloc}")
        self._token: tuple[str, float] = ("", 0.0)

    async def wrap(self, key: bytes) -> Wrapped:
        def wrap() -> Wrapped:
            told = self._ask(self._key, "wrapkey", {"alg": ALGORITHM, "value": _text(key)})
            return Wrapped(self._field(told, "kid"), _bytes(self._field(told, "value")))

        return await KEY_THREADS.run(wrap)

    async def unwrap(self, wrapped: Wrapped) -> bytes:
        def unwrap() -> bytes:
            if not wrapped.key_id.startswith(f"{self._key}/"):
                raise LostKey(
                    f"{self._http.named} has no key {wrapped.key_id}; name the key it was wrapped with"
                )
            asked = {"alg": ALGORITHM, "value": _text(wrapped.blob)}
            told = self._ask(wrapped.key_id, "unwrapkey", asked, lost=wrapped.key_id)
            return _bytes(self._field(told, "value"))

        return await KEY_THREADS.run(unwrap)

    def label_key(self) -> bytes:
        """From a signature that is the same each time (RSASSA-PKCS1-v1_5), by the version that was named."""
        asked = {"alg": "RS256", "value": _text(hashlib.sha256(LABEL_PURPOSE).digest())}
        made = _bytes(self._field(self._ask(self._first, "sign", asked), "value"))
        return hashlib.sha256(LABEL_PURPOSE + made).digest()

    def _field(self, told: Any, name: str) -> str:
        return field_of(told, self._http.named, name)

    def _ask(
        self, key: str, what: str, json: Mapping[str, Any], *, lost: str | None = None
    ) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {self._bearer()}"}
        return self._http.ask("POST", f"{key}/{what}?{API}", headers=headers, json=json, lost=lost)

    def _bearer(self) -> str:
        token, until = self._token
        if time.monotonic() < until:
            return token
        told = self._signed_in()
        token = field_of(told, "Azure", "access_token")
        try:
            left_s = float(told.get("expires_in", 0))
        except (TypeError, ValueError):
            left_s = 0.0
        self._token = token, time.monotonic() + left_s - SPARE_S
        return token

    def _signed_in(self) -> dict[str, Any]:
        known = self._environment
        secret = known.get("AZURE_CLIENT_SECRET")
        if secret is None:
            http = KeyHttp("the machine's identity service of Azure")
            url = f"{self._machine}/metadata/identity/oauth2/token?api-version=2018-02-01&resource={RESOURCE}"
            return http.ask("GET", url, headers={"Metadata": "true"})
        missing = [name for name in ("AZURE_TENANT_ID", "AZURE_CLIENT_ID") if not known.get(name)]
        if missing:
            raise KeyStoreError(f"{missing[0]} is not set, beside AZURE_CLIENT_SECRET")
        authority = known.get("AZURE_AUTHORITY_HOST", AUTHORITY).rstrip("/")
        form = {
            "grant_type": "client_credentials",
            "client_id": known["AZURE_CLIENT_ID"],
            "client_secret": secret,
            "scope": f"{RESOURCE}/.default",
        }
        url = f"{authority}/{known['AZURE_TENANT_ID']}/oauth2/v2.0/token"
        return KeyHttp("Azure's sign-in").ask("POST", url, form=form)


def _text(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def _bytes(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))
