"""The files that a party of mutual TLS has: its certificate with its key, the authority's certificate and the
allowlist. Each is read anew when it is another file, so that a rotation or a removal counts at once."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from pydantic import ValidationError

from qnwis.continuity.allowlist import Allowlist

OWN, AUTHORITY = "identity.pem", "ca.pem"
"""The own certificate and its key are one file: so a rotation is one step."""
IDENTITY_VARIABLE, ALLOWLIST_VARIABLE = "QNWIS_IDENTITY_DIR", "QNWIS_ALLOWLIST"

log = logging.getLogger(__name__)

Stamp = tuple[tuple[int, int, int], ...]
"""Tells one version of some files from another."""


class TlsError(Exception):
    """A file of mutual TLS cannot be used; the text names it and what to do."""


@dataclass
class TlsFiles:
    """Where one party's files are. Raises TlsError at once if one cannot be used."""

    identity: Path
    """Folder with identity.pem and ca.pem, as `qnwis-continuity pki` makes it."""
    allowlist_file: Path
    _allowlist: tuple[Stamp, Allowlist] = field(init=False)
    trouble: str | None = None
    """Why the allowlist that is there now is not heeded, but the one before it."""

    def __post_init__(self) -> None:
        self.identity_stamp()
        _check_key(self.own)
        stamp = _stamp(self.allowlist_file)
        self._allowlist = stamp, read_allowlist(self.allowlist_file)

    @property
    def own(self) -> Path:
        return self.identity / OWN

    @property
    def authority(self) -> Path:
        return self.identity / AUTHORITY

    def identity_stamp(self) -> Stamp:
        """Of the own certificate and the authority's. Raises TlsError."""
        return _stamp(self.own, self.authority)

    @property
    def allowlist(self) -> Allowlist:
        """As the file is now; one that cannot be read changes nothing, is logged, and named in `trouble`."""
        try:
            stamp = _stamp(self.allowlist_file)
            if stamp != self._allowlist[0]:
                self._allowlist = stamp, read_allowlist(self.allowlist_file)
            self.trouble = None
        except TlsError as error:
            if str(error) != self.trouble:
                log.warning("%s; the allowlist before it stays in force", error)
            self.trouble = str(error)
        return self._allowlist[1]


def _stamp(*files: Path) -> Stamp:
    try:
        stats = [file.stat() for file in files]
    except OSError as error:
        raise TlsError(
            f"{error.filename}: cannot be read ({error.strerror}); `qnwis-continuity pki` makes it"
        ) from error
    return tuple((stat.st_mtime_ns, stat.st_size, stat.st_ino) for stat in stats)


def _check_key(key: Path) -> None:
    mode = key.stat().st_mode
    if mode & 0o077:
        raise TlsError(f"{key}: mode {mode & 0o777:04o}; others can read it. chmod 600 {key}")


def read_allowlist(file: Path) -> Allowlist:
    """Raises TlsError with every fault."""
    try:
        # By way of JSON, as other configuration is read: strict, and yet lists are lists.
        return Allowlist.model_validate_json(json.dumps(yaml.safe_load(file.read_text())))
    except OSError as error:
        raise TlsError(f"{file}: cannot be read ({error.strerror})") from error
    except yaml.YAMLError as error:
        raise TlsError(f"{file}: is not YAML: {error}") from error
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, f['loc'])) or 'file'}: {f['msg']}" for f in error.errors())
        raise TlsError(f"{file}: {faults}") from error
