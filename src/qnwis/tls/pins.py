"""What each agent is pinned to: a TLS context of its own, by what the allowlist says of it now."""

from __future__ import annotations

import logging

from qnwis.continuity.allowlist import AllowedNode, Allowlist, Presented, entry_refusal
from qnwis.continuity.refusal import Refusal

from .contexts import client_context
from .files import Stamp, TlsError, TlsFiles

log = logging.getLogger(__name__)


class NotListed(Exception):
    """The allowlist names nobody for the address."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(str(refusal))
        self.refusal = refusal


class Pin:
    """How one agent is connected to, and what that was made of."""

    def __init__(self, files: TlsFiles, allowlist: Allowlist, entry: AllowedNode, identity: Stamp) -> None:
        """Raises TlsError."""
        self._allowlist = allowlist
        self._entry = entry
        self.identity = identity
        """Of the own certificate that is shown."""
        self.refused: Refusal | None = None
        """Why the last handshake came to nothing."""
        self.context = client_context(files, self._check, self._report)

    def stands(self, allowlist: Allowlist, identity: Stamp) -> bool:
        """Whether neither the list nor the own certificate is another one than when it was made."""
        return self._allowlist is allowlist and self.identity == identity

    def is_as(self, allowlist: Allowlist, entry: AllowedNode, identity: Stamp) -> bool:
        """Whether what a newer list says of this agent is what it was made of."""
        made_of = self._entry, self._allowlist.security_settings, self.identity
        same = made_of == (entry, allowlist.security_settings, identity)
        if same:
            self._allowlist = allowlist
        return same

    def _check(self, shown: Presented) -> Refusal | None:
        return entry_refusal(self._entry, self._allowlist.security_settings, shown)

    def _report(self, refusal: Refusal) -> None:
        self.refused = refusal


class Pins:
    """A pin stands for as long as the allowlist's entry, its settings and the own certificate do; then
    another takes its place. So whoever is struck off, or listed with another certificate, is cut off. An own
    certificate that cannot be used takes no place: an agent would lose its lease by it."""

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self._pins: dict[str, Pin] = {}
        self._trouble: str | None = None
        """Why the own certificate that is there now is not used, but the one before it."""

    def of(self, origin: str | None, url: str) -> Pin:
        """Of the agent at `url`, whose origin that is (`origin_of`). Raises NotListed, and TlsError where a
        file cannot be used and there is no pin that was made before."""
        known = self._pins.get(origin or "")
        try:
            pin = self._as_the_files_are(known, origin, url, self._files.identity_stamp())
            self._trouble = None
        except TlsError as error:
            if known is None:
                raise
            pin = self._as_the_files_are(known, origin, url, known.identity)
            if str(error) != self._trouble:
                log.warning("%s; the certificate before it stays in use", error)
            self._trouble = str(error)
        return pin

    def _as_the_files_are(self, known: Pin | None, origin: str | None, url: str, identity: Stamp) -> Pin:
        allowlist = self._files.allowlist
        if known is not None and known.stands(allowlist, identity):
            return known
        entry = None if origin is None else allowlist.node_at(origin)
        if entry is None or origin is None:
            self._pins.pop(origin or "", None)
            raise NotListed(_nobody_listed(url, self._files))
        if known is not None and known.is_as(allowlist, entry, identity):
            return known
        made = self._pins[origin] = Pin(self._files, allowlist, entry, identity)
        return made


def _nobody_listed(url: str, files: TlsFiles) -> Refusal:
    return Refusal(
        rule="endpoint_not_listed",
        message=f"{files.allowlist_file} lists no node at {url}",
        values={"url": url},
        remedy="List it with `qnwis-continuity pki node`, with the endpoint that the topology has"
        " (https://host:port).",
    )
