"""What is known of a database's backups, and how the answer of whoever makes them is read."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from pydantic import AwareDatetime, Field, TypeAdapter, ValidationError

from .model import Model


class BackupAnswer(StrEnum):
    """In which form a source answers."""

    PGBACKREST = "pgbackrest"  # `pgbackrest info --output=json`
    TIME = "time"  # JSON with `last_good_at`, RFC 3339


class Backup(Model):
    """What a source said of the backups."""

    last_good_at: AwareDatetime | None
    """When the newest good one was complete; None where none is known."""
    detail: str
    """Which one, or why none, for people."""


def read_answer(form: BackupAnswer, text: str) -> Backup:
    """What the text says. One that is not in that form is no backup."""
    try:
        return _pgbackrest(text) if form is BackupAnswer.PGBACKREST else _time(text)
    except (ValidationError, ValueError, KeyError, TypeError, AttributeError) as error:
        return Backup(last_good_at=None, detail=f"the answer is not of form {form.value}: {_said(error)}")


class _Time(Model):
    last_good_at: AwareDatetime
    detail: str = Field(default="")


def _time(text: str) -> Backup:
    found = TypeAdapter(_Time).validate_json(text)
    return Backup(last_good_at=found.last_good_at, detail=found.detail or "as its source says")


def _pgbackrest(text: str) -> Backup:
    stanzas: list[dict[str, Any]] = json.loads(text)
    if not stanzas:
        return Backup(last_good_at=None, detail="pgBackRest has no stanza")
    bad = [f"{one['name']}: {one['status']['message']}" for one in stanzas if one["status"]["code"] != 0]
    if bad:
        return Backup(last_good_at=None, detail=f"pgBackRest says {'; '.join(bad)}")
    newest = []
    for stanza in stanzas:
        good = [one for one in stanza["backup"] if one.get("error") is not True]
        if not good:
            return Backup(last_good_at=None, detail=f"pgBackRest has no good backup of {stanza['name']}")
        last = max(good, key=lambda one: int(one["timestamp"]["stop"]))
        newest.append((int(last["timestamp"]["stop"]), f"{last['label']} of {stanza['name']}"))
    stopped_at, which = min(newest)  # of several stanzas the one that is worst off
    return Backup(last_good_at=datetime.fromtimestamp(stopped_at, UTC), detail=f"pgBackRest's {which}")


def _said(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return "; ".join(fault["msg"] for fault in error.errors())
    return f"{type(error).__name__}: {error}"
