"""lab.json: what another command needs to know of the lab in a directory."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from qnwis.continuity.model import Model

from .errors import LabError
from .layout import Block, Folder


class LabState(Model):
    block: Block
    cluster_id: str
    owner_pid: int
    """The process that made the lab and will stop it, unless `kept`."""
    owner_identity: str
    agent_module: str = "qnwis.agent"
    """The program that runs as each node's agent."""
    certificates_of: Path | None = None
    """The lab with which its certificates lie, where that is another."""
    kept: bool = False
    """Left running on purpose: only a command to stop it may end it."""
    temporal_address: str | None = None
    temporal_ui: str | None = None


class AnotherVersionError(LabError):
    """The lab was made by another version of this project."""


def read_state(folder: Folder) -> LabState | None:
    """None where there is no lab. Raises AnotherVersionError."""
    try:
        return LabState.model_validate_json(folder.state_file.read_text())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise AnotherVersionError(
            f"the lab in {folder.root} was made by another version ({error.errors()[0]['msg']}); end it with"
            " that one, or make a new one here"
        ) from error


def write_state(folder: Folder, state: LabState) -> None:
    beside = folder.state_file.with_suffix(".new")
    beside.write_text(state.model_dump_json(indent=2))
    beside.replace(folder.state_file)
