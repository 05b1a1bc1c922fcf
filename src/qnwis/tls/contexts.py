"""SSL contexts whose connections are checked before the first byte of a request goes either way."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from hashlib import sha256

from qnwis.continuity.allowlist import SUITES, Allowlist, Presented
from qnwis.continuity.refusal import Refusal

from .files import TlsError, TlsFiles
from .names import name_in

Check = Callable[[Presented], Refusal | None]
Report = Callable[[Refusal], None]

_NOT_YET = (ssl.SSLWantReadError, ssl.SSLWantWriteError, ssl.SSLSyscallError, ssl.SSLEOFError)
"""The handshake goes on, or the other end hung up in it, as one does that waited too long."""


def client_context(files: TlsFiles, check: Check, report: Report) -> ssl.SSLContext:
    """For connections to one agent. `check` judges what it shows, `report` hears why not. Raises TlsError."""
    context = _context(ssl.PROTOCOL_TLS_CLIENT, files, check, report)
    context.check_hostname = True
    return context


def server_context(files: TlsFiles, check: Check, report: Report) -> ssl.SSLContext:
    """For an agent. Whoever shows no certificate of the authority does not get through. Raises TlsError."""
    of = {files.identity_stamp(): _context(ssl.PROTOCOL_TLS_SERVER, files, check, report)}

    def with_the_present_files(connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        try:
            stamp = files.identity_stamp()
            if stamp not in of:
                fresh = _context(ssl.PROTOCOL_TLS_SERVER, files, check, report)
                of.clear()
                of[stamp] = fresh
        except TlsError:
            pass  # what is there now cannot be used: as before
        connection.context = next(iter(of.values()))

    listening = _context(ssl.PROTOCOL_TLS_SERVER, files, check, report)
    # Called once a handshake, whether or not a name was asked for.
    listening.sni_callback = with_the_present_files
    return listening


def shown_by(connection: ssl.SSLObject) -> Presented | None:
    """What the other end showed; None where it showed no certificate that the authority signed."""
    raw = connection.getpeercert(binary_form=True)
    if not connection.getpeercert() or raw is None:
        return None
    cipher = connection.cipher()
    return Presented(
        fingerprint=f"sha256:{sha256(raw).hexdigest()}",
        certificate_dn=name_in(raw),
        version=connection.version() or "",
        cipher_suite=cipher[0] if cipher is not None else "",
    )


def _context(protocol: int, files: TlsFiles, check: Check, report: Report) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    try:
        context.load_verify_locations(files.authority)
        context.load_cert_chain(files.own)
    except (OSError, ssl.SSLError) as error:
        raise TlsError(f"{files.identity}: identity.pem and ca.pem cannot be used ({error})") from error
    _choose_suites(context, files.allowlist)
    context.sslobject_class = _checked(check, report)
    return context


def _choose_suites(context: ssl.SSLContext, allowlist: Allowlist) -> None:
    """Python before 3.15 cannot choose the suites of TLS 1.3. There OpenSSL's own order decides, in which the
    first of `SUITES` is the first, and the check of each connection refuses what is not listed."""
    wanted = allowlist.security_settings.cipher_suites
    if hasattr(context, "set_ciphersuites"):
        context.set_ciphersuites(":".join(wanted))
    elif SUITES[0] not in wanted:
        raise TlsError(
            f"security_settings.cipher_suites: {', '.join(wanted)}; this Python cannot choose suites of"
            f" TLS 1.3, so {SUITES[0]}, which is agreed on first, must be among them"
        )


def _checked(check: Check, report: Report) -> type[ssl.SSLObject]:
    """Connections that end with their handshake unless `check` has nothing against them."""

    class Checked(ssl.SSLObject):
        def do_handshake(self) -> None:
            try:
                super().do_handshake()
            except _NOT_YET:
                raise
            except ssl.SSLError as error:
                report(_not_made(error))
                raise
            shown = shown_by(self)
            refusal = _nothing_shown() if shown is None else check(shown)
            if refusal is not None:
                report(refusal)
                raise ssl.SSLCertVerificationError(str(refusal))

    return Checked


def _not_made(error: ssl.SSLError) -> Refusal:
    return Refusal(
        rule="handshake_failed",
        message=f"No secured connection came about: {error}",
        values={"reason": error.reason or ""},
        remedy="Both ends need a certificate of the same authority, for the name that is asked for, and"
        " TLS 1.3.",
    )


def _nothing_shown() -> Refusal:
    return Refusal(
        rule="no_certificate",
        message="The other end showed no certificate",
        remedy="Set QNWIS_IDENTITY_DIR to a folder that `qnwis-continuity pki` made.",
    )
