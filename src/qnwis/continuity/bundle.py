"""The bundle of a run: its record, everything the record rests on, and the proofs, in one sealed file.

Each file in it is encrypted under a key that this bundle alone has; the signature covers the ciphertext, so
that checking it needs no key (`qnwis/bundle_check.py` reads what is made here).
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from .merkle import Tree, leaf_hash
from .model import canonical_json
from .tree_heads import SignedTreeHead

MAGIC = b"qnwis bundle v1\n"
PURPOSE = b"qnwis audit bundle v1\n"
LENGTH_BYTES, NONCE_BYTES = 4, 12
MANIFEST, RECORD, REPORT, HISTORY, ARTEFACTS = (
    "manifest.json", "record.json", "report.md", "history.json", "artefacts/"
)  # fmt: skip


@dataclass(frozen=True)
class Provable:
    """A record as it is written, and the log in which it stands."""

    record: str
    """Canonical JSON."""
    index: int
    """Of the record among the tree's leaves, from 0."""
    tree: Tree
    head: SignedTreeHead
    """Of the whole tree."""
    earlier: SignedTreeHead | None = None
    """A head that a witness may have kept: the bundle then shows that the log still begins with it."""


@dataclass(frozen=True)
class BundleKey:
    """A key that was made for one bundle. Used for another it would give both away."""

    key: bytes
    key_id: str
    """Of the key store's key that wrapped it."""
    wrapped: bytes


def seal(
    proved: Provable,
    files: Mapping[str, str],
    key: BundleKey,
    *,
    audit_id: str,
    sign: Callable[[bytes], bytes],
    public_key: bytes,
) -> bytes:
    """The bundle. `files`: every file but the manifest; `public_key` is raw, of who signs."""
    hashes = {name: sha256(text.encode()).hexdigest() for name, text in files.items()}
    plain = {MANIFEST: canonical_json({"audit_id": audit_id, "files": hashes}), **files}
    cipher = AESGCM(key.key)
    sealed = {
        name: cipher.encrypt(
            place.to_bytes(NONCE_BYTES, "big"),
            text.encode(),
            MAGIC + _bound_to(name, audit_id),
        )
        for place, (name, text) in enumerate(plain.items())
    }
    tree, head, earlier = proved.tree, proved.head, proved.earlier
    header = canonical_json(
        {
            "audit_id": audit_id,
            "signer": b64encode(public_key).decode(),
            "key": {"id": key.key_id, "wrapped": b64encode(key.wrapped).decode()},
            "files": [
                {"name": name, "size": len(text), "sha256": sha256(text).hexdigest()}
                for name, text in sealed.items()
            ],
            "leaf": leaf_hash(proved.record.encode()).hex(),
            "index": proved.index,
            "inclusion": [h.hex() for h in tree.inclusion(proved.index, head.head.size)],
            "head": head.model_dump(mode="json"),
            "earlier": None
            if earlier is None
            else {
                "head": earlier.model_dump(mode="json"),
                "proof": [h.hex() for h in tree.consistency(earlier.head.size, head.head.size)],
            },
        }
    ).encode()
    whole = MAGIC + len(header).to_bytes(LENGTH_BYTES, "big") + header + b"".join(sealed.values())
    return whole + sign(PURPOSE + sha256(whole).digest())


def _bound_to(name: str, audit_id: str) -> bytes:

    return json.dumps([name, audit_id]).encode()
