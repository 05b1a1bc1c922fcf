"""An audit record at rest: encrypted under a key of its own, and signed over the ciphertext.

AES-256-GCM. A record's key is derived from a data key, which the key store wraps, and from a random salt that
this record alone has. What links the records to each other and to the signed tree heads stays readable and is
covered by the signature, so that a log is proved without a key, as a bundle is. The leaf in the Merkle tree
is that of the record itself: heads that a witness has stay true, and a log may begin in clear and go on
sealed.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from pydantic import Field, ValidationError

from .audit import AuditRecord, Check, Sha256, Sign, sha256_text
from .merkle import leaf_hash
from .model import Model, canonical_json

PREFIX = "sealed:v1:"
"""Begins the text of a sealed record; one in clear is JSON."""
PURPOSE = b"qnwis audit record sealed v1\n"
SALT_BYTES, NONCE_BYTES, KEY_BYTES = 32, 12, 32
RECORD = "record"


class SealedRecord(Model):
    """What is written of a record. All of it is readable but `content`, and all of it is signed."""

    sequence: int = Field(ge=1)
    audit_id: str
    run_id: str
    operation: str
    previous_hash: Sha256
    record_hash: Sha256
    leaf: str = Field(pattern="^[0-9a-f]{64}$")
    """Of the Merkle tree: the hash of the record in clear."""
    key_id: str
    """Of the key store's key that wrapped the data key."""
    wrapped: str
    """The data key, base64."""
    salt: str
    """Of this record's own key, base64."""
    content: str
    """The record's canonical JSON, encrypted; base64."""
    artefacts: Mapping[str, Sha256]
    """By name, of each artefact's ciphertext as it is written."""
    signature: str = ""
    """Base64, by the audit log's key."""

    def text(self) -> str:
        return PREFIX + canonical_json(self)

    def message(self) -> bytes:
        """What is signed."""
        return PURPOSE + canonical_json(self.model_copy(update={"signature": ""})).encode()

    def is_signed(self, check: Check) -> bool:
        try:
            signature = b64decode(self.signature, validate=True)
        except (Base64Error, ValueError):
            return False
        return b64encode(signature).decode() == self.signature and check(signature, self.message())


class NotOpened(Exception):
    """What is written does not open to what was sealed; the text says what, and holds nothing of it."""


@dataclass(frozen=True)
class SealingKey:
    """What a record is sealed with. The salt is made for this record alone."""

    data_key: bytes
    key_id: str
    wrapped: bytes
    salt: bytes


def is_sealed(text: object) -> bool:
    return isinstance(text, str) and text.startswith(PREFIX)


def read_sealed(text: str) -> SealedRecord:
    """Raises ValueError for what is none, or is written in another way than it was."""
    try:
        sealed = SealedRecord.model_validate_json(text.removeprefix(PREFIX))
    except ValidationError:
        raise ValueError("what is stored is not a sealed record") from None
    if sealed.text() != text:
        raise ValueError("the sealed record is not in canonical form")
    return sealed


def seal_record(
    record: AuditRecord, artefacts: Mapping[str, str], key: SealingKey, sign: Sign
) -> tuple[str, dict[str, str]]:
    """The text to write of the record, and of each artefact."""
    cipher, written = _cipher(key.data_key, key.salt), canonical_json(record)
    texts = {
        name: _text(cipher.encrypt(_nonce(place), text.encode(), _bound_to(record.audit_id, name)))
        for place, (name, text) in enumerate(sorted(artefacts.items()), start=1)
    }
    content = cipher.encrypt(_nonce(0), written.encode(), _bound_to(record.audit_id, None))
    sealed = SealedRecord(
        sequence=record.sequence,
        audit_id=record.audit_id,
        run_id=record.run_id,
        operation=record.operation,
        previous_hash=record.previous_hash,
        record_hash=record.record_hash,
        leaf=leaf_hash(written.encode()).hex(),
        key_id=key.key_id,
        wrapped=_text(key.wrapped),
        salt=_text(key.salt),
        content=_text(content),
        artefacts={name: sha256_text(text) for name, text in texts.items()},
    )
    signature = b64encode(sign(sealed.message())).decode()
    return sealed.model_copy(update={"signature": signature}).text(), texts


def open_record(sealed: SealedRecord, data_key: bytes) -> str:
    """The record's canonical JSON. Raises NotOpened."""
    text = _opened(sealed, data_key, sealed.content, place=0, name=None)
    if leaf_hash(text.encode()).hex() != sealed.leaf:
        raise NotOpened("the content is not that of its leaf")
    return text


def open_artefacts(sealed: SealedRecord, data_key: bytes, texts: Mapping[str, str]) -> dict[str, str]:
    """Each artefact in clear; `texts` are as they are written. Raises NotOpened."""
    places = {name: place for place, name in enumerate(sorted(sealed.artefacts), start=1)}
    if texts.keys() != places.keys():
        raise NotOpened(f"artefacts {sorted(texts.keys() ^ places.keys())} are missing, or were added")
    return {
        name: _opened(sealed, data_key, text, place=places[name], name=name) for name, text in texts.items()
    }


def _opened(sealed: SealedRecord, data_key: bytes, text: str, *, place: int, name: str | None) -> str:
    try:
        cipher = _cipher(data_key, b64decode(sealed.salt, validate=True))
        ciphertext = b64decode(text, validate=True)
        return cipher.decrypt(_nonce(place), ciphertext, _bound_to(sealed.audit_id, name)).decode()
    except (InvalidTag, ValueError):
        raise NotOpened(f"{name or 'the record'} was altered since it was sealed") from None


def _cipher(data_key: bytes, salt: bytes) -> AESGCM:
    return AESGCM(HKDF(SHA256(), KEY_BYTES, salt, PURPOSE).derive(data_key))


def _nonce(place: int) -> bytes:
    return place.to_bytes(NONCE_BYTES, "big")  # the key is this record's alone


def _bound_to(audit_id: str, artefact: str | None) -> bytes:
    named: list[Any] = [audit_id, RECORD if artefact is None else "artefact", artefact]
    return PURPOSE + json.dumps(named).encode()


def _text(raw: bytes) -> str:
    return b64encode(raw).decode()
