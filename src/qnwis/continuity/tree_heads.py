"""Signed tree heads: what the audit log's signer says the whole log was at a moment.

A head that lies elsewhere (at a witness) is what a log cannot take back: whoever cuts off, changes or
replaces records afterwards has another root at that size.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Callable, Iterable
from datetime import datetime
from enum import StrEnum

from pydantic import Field

from .merkle import Tree
from .model import Model, canonical_json

PURPOSE = b"qnwis audit tree head v1\n"
"""Begins what is signed, so that a signature given for something else can never pass for a head's."""


class TreeHead(Model):
    """The log's size and root at a moment."""

    size: int = Field(ge=0)
    """Number of records."""
    root: str = Field(pattern="^[0-9a-f]{64}$")
    """Of the Merkle tree over the canonical JSON of the records, in hexadecimal."""
    at: str = Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$")
    """When it was signed, UTC; kept as the text that was signed."""

    def message(self) -> bytes:
        """What is signed."""
        return PURPOSE + canonical_json(self).encode()


class SignedTreeHead(Model):
    head: TreeHead
    signature: str
    """Base64, Ed25519 by the audit log's key."""


class HeadFaultCode(StrEnum):
    BAD_SIGNATURE = "bad_head_signature"  # the head was not signed by this key
    TRUNCATED = "truncated_log"  # the head counts more records than there are
    REWRITTEN = "rewritten_log"  # the log had other records, or in another order, at that size
    UNREADABLE = "unreadable_head"  # what was kept is no head


class HeadFault(Model):
    """What a head that was kept elsewhere shows about the log."""

    size: int
    code: HeadFaultCode
    message: str


def sign_head(size: int, root: bytes, at: datetime, sign: Callable[[bytes], bytes]) -> SignedTreeHead:
    """`at` carries its zone, and is UTC."""
    head = TreeHead(size=size, root=root.hex(), at=f"{at:%Y-%m-%dT%H:%M:%S.%f}Z")
    return SignedTreeHead(head=head, signature=b64encode(sign(head.message())).decode())


def is_signed(signed: SignedTreeHead, check: Callable[[bytes, bytes], bool]) -> bool:
    """Whether the key's owner signed it. `check`: signature, message."""
    try:
        signature = b64decode(signed.signature, validate=True)
    except (Base64Error, ValueError):
        return False
    # Base64 has several spellings of some bytes; only the one that was written counts.
    return b64encode(signature).decode() == signed.signature and check(signature, signed.head.message())


def compare_with_witness(
    kept: Iterable[SignedTreeHead], tree: Tree, check: Callable[[bytes, bytes], bool]
) -> list[HeadFault]:
    """Every head kept elsewhere that speaks against the log; empty where the log still begins with each."""
    faults = []
    for signed in kept:
        head = signed.head
        if not is_signed(signed, check):
            code, message = HeadFaultCode.BAD_SIGNATURE, f"the head of {head.size} records is not this key's"
        elif head.size > tree.size:
            code = HeadFaultCode.TRUNCATED
            message = f"on {head.at} there were {head.size} records; now there are {tree.size}"
        elif (root := tree.root(head.size).hex()) != head.root:
            code = HeadFaultCode.REWRITTEN
            message = f"on {head.at} the root of the first {head.size} records was {head.root}; it is {root}"
        else:
            continue
        faults.append(HeadFault(size=head.size, code=code, message=message))
    return faults
