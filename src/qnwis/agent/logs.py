"""Structured logs: one JSON object a line on stderr."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime

from pydantic import JsonValue

_always: dict[str, JsonValue] = {}


def log_as(**fields: JsonValue) -> None:
    """Fields that every line of this process carries, for example the node."""
    _always.update(fields)


def log(event: str, **fields: JsonValue) -> None:
    """Write one line. `event` is a stable snake_case name."""
    line = {"at": datetime.now(UTC).isoformat(timespec="milliseconds"), **_always, "event": event, **fields}
    print(json.dumps(line, default=str), file=sys.stderr, flush=True)
