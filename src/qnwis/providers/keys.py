"""People's keys: Ed25519 pairs that sign one claim each. The private key never leaves its owner's file."""

from __future__ import annotations

import os
from base64 import b64decode, b64encode
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from qnwis.continuity.tokens import Claim, Token
from qnwis.durable import make_folder, write_new

PREFIX = "ed25519:"
KEY_VARIABLE = "QNWIS_KEY"
PERSON = "person: "
"""Begins the line of a key file, before the key, that names whose it is."""


class KeyFileError(Exception):
    """A key file cannot be used; the text names it and what to do."""


def new_key() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.generate()


def public_key_of(key: Ed25519PrivateKey) -> str:
    """The public half as people.yaml has it."""
    raw = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    return PREFIX + b64encode(raw).decode()


def sign_claim(claim: Claim, key: Ed25519PrivateKey) -> Token:
    return Token(claim=claim, signature=b64encode(key.sign(claim.message())).decode())


def verify(public_key: str, signature: bytes, message: bytes) -> bool:
    """Whether the signature is this key's for the message (a `tokens.Verify`)."""
    raw = b64decode(public_key.removeprefix(PREFIX))
    try:
        Ed25519PublicKey.from_public_bytes(raw).verify(signature, message)
    except InvalidSignature:
        return False
    return True


def default_key() -> Path:
    """`$QNWIS_KEY`, else a file in the person's own configuration folder."""
    named = os.environ.get(KEY_VARIABLE)
    base = os.environ.get("XDG_CONFIG_HOME")
    folder = Path(base) if base else Path.home() / ".config"
    return Path(named) if named else folder / "qnwis" / "key.pem"


def person_of(path: Path) -> str:
    """Whose key the file says it is; empty where it says nothing."""
    lines = path.read_text(errors="replace").splitlines()
    return next((line.removeprefix(PERSON) for line in lines if line.startswith(PERSON)), "")


def write_key(path: Path, key: Ed25519PrivateKey, *, person: str) -> None:
    """Write a private key that only its owner may read. Raises KeyFileError; never replaces one."""
    pem = f"{PERSON}{person}\n".encode()
    pem += key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    try:
        make_folder(path.parent, mode=0o700)
        write_new(path, pem)
    except FileExistsError:
        raise KeyFileError(f"{path}: exists; a key is never replaced. Give another --key") from None
    except OSError as error:
        raise KeyFileError(f"{path}: cannot be written ({error.strerror})") from error


def read_key(path: Path) -> Ed25519PrivateKey:
    """Raises KeyFileError; a key that others can read is refused, as ssh does."""
    try:
        mode, pem = path.stat().st_mode, path.read_bytes()
    except OSError as error:
        raise KeyFileError(
            f"{path}: cannot be read ({error.strerror}); make a key with `qnwis-continuity people key`"
        ) from error
    if mode & 0o077:
        raise KeyFileError(f"{path}: mode {mode & 0o777:04o}; others can read it. chmod 600 {path}")
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError) as error:
        raise KeyFileError(f"{path}: is not a PEM private key ({error})") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyFileError(f"{path}: is not an Ed25519 key")
    return key
