"""What every process of the project writes on stderr: an event a line, JSON unless a person looks on.

Each line has `at` (UTC), `level`, and `event` (a stable snake_case name, of an agent) or `logger` and
`message`; besides, where it belongs to: `run_id`, `cluster_id`, `step`, and `trace_id` where that is traced.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from pydantic import JsonValue

from .whereabouts import whereabouts

_always: dict[str, JsonValue] = {}
_trace_id: Callable[[], str | None] = lambda: None  # noqa: E731  until something traces

MESSAGE, EXCEPTION = "message", "exception"


def log_as(**fields: JsonValue) -> None:
    """Fields that every line of this process carries, for example the node."""
    _always.update(fields)


def log_traces(trace_id: Callable[[], str | None]) -> None:
    """From now on lines name the trace that this function says the present work belongs to."""
    global _trace_id
    _trace_id = trace_id


def log(event: str, **fields: JsonValue) -> None:
    """Write one line. `event` is a stable snake_case name."""
    print(_line("info", datetime.now(UTC), {"event": event, **fields}), file=sys.stderr, flush=True)


def log_to_stderr() -> None:
    """Have what the modules of this process say through `logging` written in this form, from INFO on."""
    logging.basicConfig(level=logging.INFO, handlers=[handler()])
    # One line for each request of a probe would be all that there is to see.
    logging.getLogger("httpx").setLevel(logging.WARNING)


def handler() -> logging.Handler:
    """Writes on stderr in this form."""
    made = logging.StreamHandler(sys.stderr)
    made.setFormatter(_Lines())
    return made


class _Lines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        said: dict[str, JsonValue] = {"logger": record.name, MESSAGE: record.getMessage()}
        if record.exc_info:
            said[EXCEPTION] = self.formatException(record.exc_info)
        return _line(record.levelname.lower(), datetime.fromtimestamp(record.created, UTC), said)


def _line(level: str, at: datetime, said: Mapping[str, JsonValue]) -> str:
    where: dict[str, JsonValue] = {**_always, **whereabouts()}
    if (trace_id := _trace_id()) is not None:
        where["trace_id"] = trace_id
    if sys.stderr.isatty():
        return _for_people(level, at, where, said)
    line = {"at": at.isoformat(timespec="milliseconds"), "level": level, **where, **said}
    return json.dumps(line, default=str, ensure_ascii=False)


def _for_people(
    level: str, at: datetime, where: Mapping[str, JsonValue], said: Mapping[str, JsonValue]
) -> str:
    """What is said first, then all else that a line of JSON would have."""
    apart = ("event", MESSAGE, EXCEPTION)
    fields = {**where, **{name: value for name, value in said.items() if name not in apart}}
    rest = " ".join(f"{name}={value}" for name, value in fields.items())
    told = said.get("event") or said.get(MESSAGE)
    exception = f"\n{said[EXCEPTION]}" if EXCEPTION in said else ""
    return f"{at.astimezone():%H:%M:%S} {level.upper():7} {told}  [{rest}]{exception}"
