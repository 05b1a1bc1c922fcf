"""Where the files are that say who may do what."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from qnwis.continuity.access import Access, People

from .load import load_people, load_rbac
from .shipped import shipped

RBAC = Path("rbac") / "continuity.yaml"


@dataclass(frozen=True)
class AccessFiles:
    """`people.yaml` of a registry's folder, and `rbac/continuity.yaml` beside that folder, else the shipped.

    Read anew on each load, so that a revocation counts from the next decision on.
    """

    directory: Path
    """The registry's folder."""

    @property
    def people(self) -> Path:
        return self.directory / "people.yaml"

    @property
    def rbac(self) -> Path:
        own = self.directory.parent / RBAC
        return own if own.exists() else shipped("config") / RBAC

    def load(self) -> Access:
        """Without people.yaml there is nobody. Raises ConfigError."""
        people = load_people(self.people) if self.people.exists() else People()
        return Access(rbac=load_rbac(self.rbac), people=people)
