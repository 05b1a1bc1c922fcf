"""The key that signs the audit trail: an Ed25519 pair on disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from qnwis.continuity.audit import Check, Sign
from qnwis.continuity.refusal import Refusal
from qnwis.durable import make_folder, write_once

from .errors import Refused


@dataclass(frozen=True)
class SigningKey:
    """An Ed25519 key pair on disk."""

    path: Path

    @property
    def public_path(self) -> Path:
        return self.path.with_name(self.path.name + ".pub")

    @property
    def exists(self) -> bool:
        return self.path.exists() or self.public_path.exists()

    def signer(self, *, may_create: bool) -> Sign:
        """Raises Refused where the private key is gone, or is not the one of the public key."""
        if not self.exists and may_create:
            self._create()
        try:
            key = load_pem_private_key(self.path.read_bytes(), password=None)
        except FileNotFoundError:
            raise _refused(
                "audit_key_missing", f"The signing key {self.path} is missing", self.path
            ) from None
        if not isinstance(key, Ed25519PrivateKey):
            raise _refused("audit_key_wrong", f"{self.path} is not an Ed25519 key", self.path)
        public = _public_pem(key.public_key())
        if not self.public_path.exists():
            write_once(self.public_path, public, mode=0o644)
        if self.public_path.read_bytes() != public:
            message = f"The signing key {self.path} does not belong to {self.public_path}"
            raise _refused("audit_key_wrong", message, self.path)
        return key.sign

    def checker(self) -> Check:
        """Needs the public key alone. Raises Refused where that is missing or none."""
        return check_with(self.public_key())

    def public_key(self) -> Ed25519PublicKey:
        """Raises Refused where it is missing or none."""
        try:
            key = load_pem_public_key(self.public_path.read_bytes())
        except FileNotFoundError:
            message = f"The public key {self.public_path} is missing"
            raise _refused("audit_key_missing", message, self.public_path) from None
        if not isinstance(key, Ed25519PublicKey):
            raise _refused("audit_key_wrong", f"{self.public_path} is not an Ed25519 key", self.public_path)
        return key

    def of_another_log(self, audit_id: str) -> Refused:
        """Of a record that this key did not sign, and after which one is to be signed."""
        return Refused(
            Refusal(
                rule="audit_key_wrong",
                message=f"The newest record {audit_id} is not signed by {self.path}",
                values={"file": str(self.path), "audit_id": audit_id},
                remedy="All that write one log sign with one key: bring the others' key, and its .pub, to"
                f" {self.path}. If they have this very one, the record was altered: `audit verify` shows it.",
            )
        )

    def _create(self) -> None:
        key = Ed25519PrivateKey.generate()
        make_folder(self.path.parent)
        write_once(
            self.path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), mode=0o600
        )


def check_with(key: Ed25519PublicKey) -> Check:
    def check(signature: bytes, message: bytes) -> bool:
        try:
            key.verify(signature, message)
        except InvalidSignature:
            return False
        return True

    return check


def _public_pem(key: Ed25519PublicKey) -> bytes:
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def _refused(rule: str, message: str, file: Path) -> Refused:
    return Refused(
        Refusal(
            rule=rule,
            message=message,
            values={"file": str(file)},
            remedy=f"Restore {file} from a copy: a new key could not continue this chain.",
        )
    )
