"""Where the files are that say who may do what."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from qnwis.continuity.access import Access, Issuers, People, Rbac

from .load import load_issuers, load_people, load_rbac
from .shipped import shipped

RBAC = Path("rbac") / "continuity.yaml"


@dataclass(frozen=True)
class AccessFiles:
    """`people.yaml` and `issuers.yaml` of a registry's folder, and `rbac/continuity.yaml` beside that folder,
    else the shipped.

    Read anew on each load, so that a revocation counts from the next decision on.
    """

    directory: Path
    """The registry's folder."""

    @property
    def people(self) -> Path:
        return self.directory / "people.yaml"

    @property
    def issuers(self) -> Path:
        return self.directory / "issuers.yaml"

    @property
    def rbac(self) -> Path:
        own = self.directory.parent / RBAC
        return own if own.exists() else shipped("config") / RBAC

    def load(self) -> Access:
        """Without people.yaml there is nobody, without issuers.yaml nobody vouches. Raises ConfigError."""
        people = load_people(self.people) if self.people.exists() else People()
        issuers = load_issuers(self.issuers) if self.issuers.exists() else Issuers()
        return Access(rbac=load_rbac(self.rbac), people=people, issuers=issuers)

    def load_rbac(self) -> Rbac:
        """Roles and approval workflows alone, for who asks often: parsed anew only when the file is another.
        Raises ConfigError."""
        path = self.rbac
        stat = path.stat()
        return _rbac_as_of(path, stat.st_mtime_ns, stat.st_size, stat.st_ino)


@lru_cache(maxsize=8)
def _rbac_as_of(path: Path, *version: int) -> Rbac:
    return load_rbac(path)
