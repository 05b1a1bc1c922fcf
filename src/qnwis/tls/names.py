"""How the owner of a certificate is written: in the allowlist, and of whoever shows it."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography import x509


def distinguished_name(certificate: x509.Certificate) -> str:
    """As RFC 4514 writes it: the most specific part first, and a comma within a value behind a backslash."""
    return certificate.subject.rfc4514_string()


@lru_cache(maxsize=256)
def name_in(raw: bytes) -> str:
    """The same of a certificate as it goes over the wire (DER). Kept: it is asked for with each request."""
    from cryptography import x509  # an agent without certificates does without its 8 MB

    return distinguished_name(x509.load_der_x509_certificate(raw))
