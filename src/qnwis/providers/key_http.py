"""Asking a key store over HTTP: nothing of a key, and no token, gets into an error."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any

import httpx

from .key_store import KeyStoreError, LostKey

TIMEOUT_S = 5.0
TOLD_CHARS = 300
"""Of what a store says of its refusal."""


class KeyHttp:
    """One store. `ca_file`: whose certificates it trusts, in place of the usual ones."""

    def __init__(self, named: str, *, ca_file: str | None = None) -> None:
        """Raises KeyStoreError where the file cannot be used."""
        self.named = named
        try:
            self._verify: ssl.SSLContext | bool = (
                True if ca_file is None else ssl.create_default_context(cafile=ca_file)
            )
        except OSError as error:
            raise KeyStoreError(
                f"{named}: {ca_file} is no file with an authority's certificate ({error.strerror})"
            ) from error

    def ask(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        json: Mapping[str, Any] | None = None,
        form: Mapping[str, str] | None = None,
        lost: str | None = None,
    ) -> dict[str, Any]:
        """The answer's JSON. `lost`: the key that 400 and 404 say is not there, or does not fit.

        Raises LostKey for that one, else KeyStoreError.
        """
        try:
            with httpx.Client(timeout=TIMEOUT_S, trust_env=False, verify=self._verify) as client:
                answer = client.request(method, url, headers=headers, json=json, data=form)
        except httpx.HTTPError as error:
            raise KeyStoreError(f"{self.named} does not answer ({type(error).__name__})") from None
        except (httpx.InvalidURL, ValueError) as error:  # a port, or what no header may hold
            raise KeyStoreError(
                f"{self.named} cannot be asked ({type(error).__name__}); its address, or what is sent to sign"
                " in, is malformed"
            ) from None
        try:
            told = answer.json() if answer.content else {}
        except ValueError:
            raise KeyStoreError(f"{self.named} answers {answer.status_code} with no JSON") from None
        if answer.is_success and isinstance(told, dict):
            return told
        said = f"{self.named} answers {answer.status_code}: {_reason(told)}"
        if lost is not None and answer.status_code in (400, 404):
            raise LostKey(f"{said}; key {lost} is not there, did not wrap this, or it was altered")
        raise KeyStoreError(said)


def field_of(told: Any, named: str, *path: str) -> str:
    """The text at that place of an answer. Raises KeyStoreError."""
    for part in path:
        told = told.get(part) if isinstance(told, dict) else None
    if not isinstance(told, str):
        raise KeyStoreError(f"{named} answers without {'.'.join(path)}")
    return told


def _reason(told: Any) -> str:
    """Vault has `errors`, Azure `error.message`; anything else may hold what is nobody's business."""
    if isinstance(told, dict):
        errors, error = told.get("errors"), told.get("error")
        if isinstance(errors, list):
            return "; ".join(map(str, errors))[:TOLD_CHARS] or "nothing"
        if isinstance(error, dict):
            return str(error.get("message", "nothing"))[:TOLD_CHARS]
        if isinstance(error, str):
            return error[:TOLD_CHARS]
    return "nothing"
