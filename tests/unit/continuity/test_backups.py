"""How the answers of whoever makes the backups are read: never more than they say."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qnwis.continuity.backups import BackupAnswer, read_answer

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
STAMP = int(AT.timestamp())


def stanza(*backups: tuple[int, bool], name: str = "main", code: int = 0) -> dict[str, Any]:
    """As pgBackRest 2.45 says it, as far as it is read."""
    made = [
        {"label": f"at {stop}", "error": error, "timestamp": {"start": stop - 9, "stop": stop}}
        for stop, error in backups
    ]
    return {
        "name": name,
        "status": {"code": code, "message": "ok" if not code else "missing"},
        "backup": made,
    }


@pytest.mark.parametrize(
    ("answer", "at", "detail"),
    [
        ([stanza((STAMP, False), (STAMP - 60, False))], AT, f"at {STAMP} of main"),
        ([stanza((STAMP, False), (STAMP + 60, True))], AT, f"at {STAMP} of main"),
        ([stanza((STAMP + 60, False)), stanza((STAMP, False), name="other")], AT, "of other"),
        ([stanza((STAMP, True))], None, "no good backup of main"),
        ([stanza()], None, "no good backup of main"),
        ([stanza((STAMP, False), code=3)], None, "main: missing"),
        ([], None, "no stanza"),
        ({"main": 1}, None, "not of form pgbackrest"),
        ([{"name": "main"}], None, "not of form pgbackrest: KeyError"),
    ],
)
def test_of_pgbackrest_the_newest_good_backup_of_the_stanza_that_is_worst_off_counts(
    answer: object, at: datetime | None, detail: str
) -> None:
    found = read_answer(BackupAnswer.PGBACKREST, json.dumps(answer))
    assert found.last_good_at == at and detail in found.detail, found


@pytest.mark.parametrize(
    ("answer", "at", "detail"),
    [
        ('{"last_good_at": "2026-01-02T03:04:05Z"}', AT, "as its source says"),
        ('{"last_good_at": "2026-01-02T04:04:05+01:00", "detail": "nightly"}', AT, "nightly"),
        ('{"last_good_at": "2026-01-02T03:04:05"}', None, "not of form time"),
        ('{"last_good_at": null}', None, "not of form time"),
        ("", None, "not of form time"),
    ],
)
def test_a_time_needs_its_zone(answer: str, at: datetime | None, detail: str) -> None:
    found = read_answer(BackupAnswer.TIME, answer)
    assert found.last_good_at == at and detail in found.detail, found


@given(
    st.sampled_from(BackupAnswer),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(
                st.sampled_from(["name", "status", "code", "backup", "timestamp", "stop", "error"]), inner
            )
        ),
    ),
)
def test_whatever_is_answered_is_read_and_no_backup_comes_of_nothing(form: BackupAnswer, answer: Any) -> None:
    assert read_answer(form, json.dumps(answer)).last_good_at is None
