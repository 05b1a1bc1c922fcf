"""The files that a party of mutual TLS has: its certificate with its key, the authority's certificate and the
allowlist. Each is read anew when it is another file, so that a rotation or a removal counts at once."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

import yaml
from pydantic import ValidationError

from qnwis.continuity.allowlist import Allowlist

OWN, AUTHORITY = "identity.pem", "ca.pem"
"""The own certificate and its key are one file: so a rotation is one step."""
IDENTITY_VARIABLE, ALLOWLIST_VARIABLE = "QNWIS_IDENTITY_DIR", "QNWIS_ALLOWLIST"

log = logging.getLogger(__name__)

Stamp = tuple[tuple[int, int, int], ...]
"""Tells one version of some files from another."""
AGAIN_S = 1.0
"""An allowlist that cannot be used is read again no sooner: it is asked for with each request, and what
changed may be nothing that a stamp shows, such as who may read it."""


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
    _tried: tuple[Stamp, float] | None = field(default=None, init=False, repr=False, compare=False)
    """The version that was read last and is not in force, and when, by the monotonic clock in seconds."""

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
                if self._tried_lately(stamp):
                    return self._allowlist[1]
                self._tried = stamp, monotonic()
                self._allowlist = stamp, read_allowlist(self.allowlist_file)
            self.trouble = None
        except TlsError as error:
            if str(error) != self.trouble:
                log.warning("%s; the allowlist before it stays in force", error)
            self.trouble = str(error)
        return self._allowlist[1]

    def _tried_lately(self, stamp: Stamp) -> bool:
        return self._tried is not None and self._tried[0] == stamp and monotonic() - self._tried[1] < AGAIN_S


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
        # By way of JSON, as other configuration is read: strict, and yet lists are lists, and what YAML takes
        # for a date is its text.
        data = json.dumps(yaml.safe_load(file.read_text(encoding="utf-8")), default=str)
        return Allowlist.model_validate_json(data)
    except OSError as error:
        raise TlsError(f"{file}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise TlsError(f"{file}: is no UTF-8 text (the byte 0x{error.object[error.start]:02x})") from error
    except yaml.YAMLError as error:
        raise TlsError(f"{file}: is not YAML: {error}") from error
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, f['loc'])) or 'file'}: {f['msg']}" for f in error.errors())
        raise TlsError(f"{file}: {faults}") from error
    except Exception as error:
        # PyYAML's own: a date that no calendar has, an alias inside what it names, a file too deep.
        # Whatever it is, an agent that runs must not end by it.
        raise TlsError(
            f"{file}: holds what is no value ({type(error).__name__}: {error}); put texts in quotes"
        ) from error
