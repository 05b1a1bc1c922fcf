"""Reading and writing the files that commands exchange."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ValidationError

from qnwis.config.problem import ConfigError, Problem
from qnwis.continuity.break_glass import BreakGlass
from qnwis.continuity.plan import Plan, PlanFile


def read_plan(path: Path) -> Plan:
    """The plan in a file that `plan --output` wrote. Raises ConfigError; an edited plan is one."""
    text = _read_text(path, "a file written by `plan --output`")
    try:
        file = PlanFile.model_validate_json(text)
    except ValidationError as error:
        problems = [
            Problem(path, None, None, ".".join(map(str, e["loc"])), repr(e["input"])[:60], e["msg"])
            for e in error.errors(include_url=False)
        ]
        raise ConfigError(problems) from error
    if file.digest != file.plan.digest:
        raise _bad(path, "digest", file.digest, f"{file.plan.digest}, the digest of the plan beside it")
    return file.plan


def read_break_glass(path: Path) -> BreakGlass:
    """The steps that `break-glass plan --output` wrote as JSON. Raises ConfigError; edited ones are one."""
    expected = "a file written by `break-glass plan --output`"
    text = _read_text(path, expected)
    try:
        paper = BreakGlass.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise _bad(path, ".".join(map(str, first["loc"])), first["msg"], expected) from error
    if paper.digest != paper.plan.digest:
        raise _bad(path, "digest", paper.digest, f"{paper.plan.digest}, the digest of the plan beside it")
    return paper


def _read_text(path: Path, expected: str) -> str:
    """Raises ConfigError for a file that cannot be read, or is no text."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise _bad(path, "", str(error.strerror), expected) from error
    except UnicodeDecodeError as error:
        byte = f"the byte 0x{error.object[error.start]:02x}, which is no UTF-8"
        raise _bad(path, "", byte, expected) from error


def write_text(path: Path, text: str) -> None:
    """Raises ConfigError when the file cannot be written."""
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise _bad(path, "", str(error.strerror), "a file that can be written") from error


def write_output(path: Path, value: BaseModel) -> None:
    """Write a command's result as JSON. Raises ConfigError when the file cannot be written."""
    write_text(path, value.model_dump_json(indent=2) + "\n")


def is_free(folder: Path) -> bool:
    """Whether it is not there, or empty. Raises ConfigError for what is no directory."""
    try:
        return not any(folder.iterdir())
    except FileNotFoundError:
        return True
    except OSError as error:
        raise _no_folder(folder, error) from error


def make_folder(folder: Path) -> None:
    """Raises ConfigError where it cannot be made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _no_folder(folder, error) from error


def _no_folder(folder: Path, error: OSError) -> ConfigError:
    return _bad(folder, "", str(error.strerror), "a directory, or a place for one")


def _bad(path: Path, field: str, value: str, expected: str) -> ConfigError:
    return ConfigError([Problem(path, None, None, field, value, expected)])
