"""What a system must offer to be measured."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from .bed import Bed
from .settings import Setting


class Running(ABC):
    """A cluster that runs, healthy, with a table `rows (client text, n bigint)` for the clients."""

    hosts: Mapping[str, str]
    """Address by node."""
    port: int
    user: str
    database: str
    password_file: Path
    primary: str
    """The node that serves."""

    @abstractmethod
    def home(self, node: str) -> Path:
        """In which everything of the node runs: its agent and its database."""

    @abstractmethod
    def data_dir(self, node: str) -> Path: ...

    async def switch_over(self) -> None:
        """Move the service to another node as a person would; returns when the system says so."""
        raise NotImplementedError

    async def after_kill(self) -> None:
        """What somebody does as soon as the primary is killed; managers do it themselves."""
        return


class System(ABC):
    name: str
    fences: bool
    """Whether it sees to it that an old primary takes no more writes."""
    settings: Sequence[Setting]
    remarks: Sequence[str] = ()
    """What a reader of the table must know."""

    @abstractmethod
    def missing(self) -> str | None:
        """What this machine lacks for it, and what to do."""

    @abstractmethod
    def version(self) -> str: ...

    @abstractmethod
    def running(self, bed: Bed, setting: Setting) -> AbstractAsyncContextManager[Running]:
        """A new cluster of three nodes on that bed. Raises LabError."""
