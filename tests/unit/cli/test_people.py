"""`people`, as a person types it."""

from __future__ import annotations

import json
from pathlib import Path

import yaml
from typer.testing import CliRunner, Result

from qnwis.cli.qnwis_continuity import app


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["people", *arguments], env={"COLUMNS": "200", "NO_COLOR": "1"})


def test_a_key_is_made_once_and_its_entry_goes_into_the_file(tmp_path: Path) -> None:
    private = tmp_path / "own" / "key.pem"
    arguments = ["key", "--name", "ann", "--role", "continuity_admin", "--key", str(private), "--json"]
    first, again = call(*arguments), call(*arguments)
    entry = json.loads(first.stdout)
    assert json.loads(again.stdout) == entry, "a key that is there is never replaced"
    assert private.stat().st_mode & 0o777 == 0o600
    people = tmp_path / "people.yaml"
    people.write_text(yaml.safe_dump({"people": [entry]}))
    listed = call("list", "--people", str(people))
    assert listed.exit_code == 0
    assert "ann" in listed.output and entry["public_key"] in listed.output


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    private = tmp_path / "key.pem"
    call("key", "--key", str(private))
    private.chmod(0o644)
    done = call("key", "--key", str(private))
    assert done.exit_code == 2
    assert f"chmod 600 {private}" in done.output


def test_a_key_that_is_not_there_is_one_clear_line(tmp_path: Path) -> None:
    missing = tmp_path / "none.pem"
    typed = ["abort", "lab-1", "--reason", "test", "--key", str(missing)]
    done = CliRunner().invoke(app, typed, env={"NO_COLOR": "1"})
    assert done.exit_code == 2
    (line,) = done.output.splitlines()
    assert f"{missing}: cannot be read" in line and "qnwis-continuity people key" in line


def test_a_person_without_a_key_is_named_with_the_line(tmp_path: Path) -> None:
    people = tmp_path / "people.yaml"
    people.write_text("people:\n  - name: ann\n    roles: [continuity_admin]\n    public_key: abc\n")
    done = call("list", "--people", str(people))
    assert done.exit_code == 2
    assert f"{people}:4" in done.output and "public_key" in done.output and "abc" in done.output
