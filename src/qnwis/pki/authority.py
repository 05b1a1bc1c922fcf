"""The authority: one key that signs the certificates of an installation's agents and of who asks them.

Its private key signs and does nothing else: keep it away from nodes and workers. These get an identity: a
folder with identity.pem (its certificate and key) and the authority's own certificate, ca.pem.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from qnwis.durable import write_new
from qnwis.tls.files import AUTHORITY, OWN, TlsError
from qnwis.tls.names import distinguished_name

AUTHORITY_KEY = "ca-key.pem"
AUTHORITY_DAYS = 3650
DAYS = 365
CLOCK_SKEW = timedelta(minutes=5)
"""Certificates count from so long ago: a node's clock may be behind."""
LONGEST_NAME_BYTES = 64
"""Of a common name (RFC 5280, ub-common-name)."""


class PkiError(TlsError):
    """A certificate cannot be made or read; the text names the file and what to do."""


@dataclass(frozen=True)
class Issued:
    """A certificate, as the allowlist names it."""

    fingerprint: str
    certificate_dn: str
    not_after: datetime


@dataclass(frozen=True)
class Authority:
    """The authority in a folder."""

    folder: Path

    @classmethod
    def make(cls, folder: Path, *, organization: str, country: str | None) -> Authority:
        """Raises PkiError where there is one: certificates of another authority would count no more. And for
        names that a certificate cannot have. Where it cannot be written, nothing of it is left."""
        _check_whole(folder)
        for own in (folder / AUTHORITY_KEY, folder / AUTHORITY):
            if own.exists():
                raise PkiError(f"{own}: exists; an authority is never replaced by `init`")
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name(f"{organization} authority", organization, country)
        certificate = (
            _begun(name, name, key.public_key(), AUTHORITY_DAYS)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .sign(key, hashes.SHA256())
        )
        with writing(folder):
            folder.mkdir(mode=0o711, parents=True, exist_ok=True)
            write_new(folder / AUTHORITY_KEY, _pem(key))
            with _gone_on_failure(folder / AUTHORITY_KEY, folder / AUTHORITY):
                (folder / AUTHORITY).write_bytes(certificate.public_bytes(Encoding.PEM))
        return cls(folder)

    def issue(self, identity: Path, name: str, hosts: Sequence[str], *, days: int = DAYS) -> Issued:
        """Make an identity for `name`, which is reached at `hosts`. Raises PkiError where there is one, and
        for names that a certificate cannot have; then nothing is made."""
        own, key = self._certificate(), self._key()
        of_node = ec.generate_private_key(ec.SECP256R1())
        organization = own.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
        country = own.subject.get_attributes_for_oid(NameOID.COUNTRY_NAME)
        subject = _name(name, str(organization[0].value), str(country[0].value) if country else None)
        begun = _begun(subject, own.subject, of_node.public_key(), days)
        if hosts:
            names = x509.SubjectAlternativeName([_alternative(host) for host in hosts])
            begun = begun.add_extension(names, critical=False)
        both_ends = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
        certificate = (
            begun.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(both_ends), critical=False)
            .sign(key, hashes.SHA256())
        )
        if (identity / OWN).exists():
            raise PkiError(
                f"{identity / OWN}: exists; a key is never replaced. `pki rotate` replaces what the allowlist"
                " lists; what it does not list, remove, and make it anew"
            )
        with writing(identity):
            identity.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_new(identity / OWN, certificate.public_bytes(Encoding.PEM) + _pem(of_node))
            with undone_on_failure(identity):
                (identity / AUTHORITY).write_bytes((self.folder / AUTHORITY).read_bytes())
        return issued(identity)

    def _certificate(self) -> x509.Certificate:
        _check_whole(self.folder)
        return _read_certificate(self.folder / AUTHORITY)

    def _key(self) -> ec.EllipticCurvePrivateKey:
        path = self.folder / AUTHORITY_KEY
        try:
            key = load_pem_private_key(path.read_bytes(), password=None)
        except (OSError, ValueError, TypeError) as error:
            raise PkiError(f"{path}: no key of an authority ({error}); `pki init` makes one") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise PkiError(f"{path}: is not the key of an elliptic curve that `pki init` makes")
        return key


def issued(identity: Path) -> Issued:
    """What an identity shows. Raises PkiError."""
    certificate = _read_certificate(identity / OWN)
    return Issued(
        fingerprint=f"sha256:{sha256(certificate.public_bytes(Encoding.DER)).hexdigest()}",
        certificate_dn=distinguished_name(certificate),
        not_after=certificate.not_valid_after_utc,
    )


def hosts_of(identity: Path) -> tuple[str, ...]:
    """The hosts that an identity is for. Raises PkiError."""
    try:
        found = _read_certificate(identity / OWN).extensions.get_extension_for_class(
            x509.SubjectAlternativeName
        )
    except x509.ExtensionNotFound:
        return ()
    return tuple(str(name.value) for name in found.value)


def common_name(identity: Path) -> str:
    """Raises PkiError."""
    subject = _read_certificate(identity / OWN).subject
    return str(subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)


@contextmanager
def undone_on_failure(identity: Path) -> Iterator[None]:
    """An identity that was just made goes again where what follows fails: nobody lists it, and it would be in
    the way of the next try."""
    try:
        yield
    except BaseException:
        with suppress(OSError):
            for name in (OWN, AUTHORITY):
                (identity / name).unlink(missing_ok=True)
            identity.rmdir()
        raise


@contextmanager
def _gone_on_failure(*made: Path) -> Iterator[None]:
    """A key without its certificate would be in the way of the next try."""
    try:
        yield
    except BaseException:
        for path in made:
            with suppress(OSError):
                path.unlink(missing_ok=True)
        raise


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """What cannot be written there is a PkiError."""
    try:
        yield
    except OSError as error:
        raise PkiError(f"{error.filename or folder}: cannot be written ({error.strerror})") from error


def _check_whole(folder: Path) -> None:
    """Raises PkiError for a key without its certificate."""
    key, own = folder / AUTHORITY_KEY, folder / AUTHORITY
    if key.exists() and not own.exists():
        raise PkiError(
            f"{key}: exists, and {own} does not. Where identities were made with it, copy {AUTHORITY} from"
            f" one of them; where none was, remove {key}, and `pki init` makes an authority"
        )


def _begun(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    try:
        end = now + timedelta(days=days)
    except OverflowError:
        raise PkiError(f"{days} days from now there is no date; expected fewer") from None
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(end)
    )


def _name(common: str, organization: str, country: str | None) -> x509.Name:
    """In the order in which RFC 4514 begins with the common name. Raises PkiError for what no certificate
    holds."""
    length = len(common.encode())
    if not 1 <= length <= LONGEST_NAME_BYTES:
        raise PkiError(
            f"{common!r} has {length} bytes; expected 1 to {LONGEST_NAME_BYTES}, as a certificate takes them."
            " A node's is <node_id>.<cluster_id>, an authority's <organization> authority"
        )
    if country is not None and re.fullmatch("[A-Za-z]{2}", country) is None:
        raise PkiError(f"country is {country!r}; expected its code of two letters, for example DE")
    parts = [x509.NameAttribute(NameOID.COUNTRY_NAME, country)] if country is not None else []
    parts.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization))
    parts.append(x509.NameAttribute(NameOID.COMMON_NAME, common))
    return x509.Name(parts)


def _alternative(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        pass
    try:
        return x509.DNSName(host)
    except ValueError as error:
        raise PkiError(f"{host}: is no name of a host that a certificate holds ({error})") from error


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _read_certificate(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError) as error:
        raise PkiError(f"{path}: no certificate ({error})") from error
