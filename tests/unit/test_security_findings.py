"""What `make security` lets pass: findings that were justified, as many as were looked at, and no others."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from tests.security.justified import Finding, Justified, load_justified, open_findings

PROJECT = Path(__file__).parents[2]
CODE = Finding(check="B608", file="a.py", says="line 3: SQL")
LOOKED_AT = Justified(check="B608", file="a.py", why="a constant")


def test_a_finding_is_left_until_it_is_justified_where_it_stands() -> None:
    assert open_findings([CODE], (), ["B608"]) == ["a.py: B608: line 3: SQL"]
    assert open_findings([CODE], [LOOKED_AT], ["B608"]) == []
    for other in ({"file": "b.py"}, {"check": "B105"}):
        assert open_findings([CODE], [LOOKED_AT.model_copy(update=other)], ["B608"]) != []


def test_one_more_in_the_same_file_is_seen() -> None:
    assert len(open_findings([CODE, CODE], [LOOKED_AT], ["B608"])) == 2


def test_a_justification_of_nothing_is_taken_out() -> None:
    (line,) = open_findings([], [LOOKED_AT], ["B608"])
    assert line == "a.py: B608: justified 1 times and found 0 times"
    assert open_findings([], [LOOKED_AT], []) == [], "what was not looked for says nothing"


def test_each_says_why_and_the_files_are_there() -> None:
    found = load_justified(PROJECT / "pyproject.toml")
    assert all(one.why and (PROJECT / one.file).exists() for one in found if one.check != "pip-audit")
    with pytest.raises(ValidationError, match="why"):
        Justified.model_validate({"check": "B608", "file": "a.py"})
