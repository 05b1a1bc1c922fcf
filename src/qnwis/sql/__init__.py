"""What the project ships to be run inside a database."""

from __future__ import annotations

from importlib.resources import files


def active_active() -> str:
    """The statements that make a database a region of an active/active cluster; its head says how."""
    return (files(__name__) / "active_active.sql").read_text(encoding="utf-8")


def audit_schema(writer: str) -> str:
    """The statements that make a database an audit log, to which the role `writer` may append."""
    quoted = '"' + writer.replace('"', '""') + '"'
    return (files(__name__) / "audit.sql").read_text(encoding="utf-8").replace(":writer", quoted)
