"""`tokens` and `api`, as a person types them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from qnwis.cli.qnwis_continuity import app
from qnwis.config.load import load_issuers


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, [*arguments], env={"COLUMNS": "200", "NO_COLOR": "1"})


def test_a_token_is_shown_once_listed_without_it_and_revoked(tmp_path: Path) -> None:
    where = ("--config-dir", str(tmp_path))
    issued = call("tokens", "issue", *where, "--name", "robot", "--role", "service", "--json")
    text = json.loads(issued.stdout)["token"]
    token_id, secret = text.split("_", 2)[1:]
    listed = call("tokens", "list", *where)
    assert token_id in listed.stdout and "robot" in listed.stdout and secret not in listed.stdout
    assert "sha256" not in call("tokens", "list", *where, "--json").stdout
    assert call("tokens", "revoke", *where, token_id).exit_code == 0
    assert "revoked" in call("tokens", "list", *where).stdout
    unknown = call("tokens", "revoke", *where, "000000000000")
    assert unknown.exit_code == 3 and "token_unknown" in unknown.output


def test_a_role_that_nobody_defined_gets_no_token(tmp_path: Path) -> None:
    done = call("tokens", "issue", "--config-dir", str(tmp_path), "--name", "robot", "--role", "root")
    assert done.exit_code == 2 and "continuity_admin" in done.output
    assert not (tmp_path / "service-tokens.yaml").exists()


@pytest.mark.parametrize("command", ["issue --name robot --role service", "revoke 000000000000"])
def test_a_folder_that_is_not_there_is_wrong_usage(tmp_path: Path, command: str) -> None:
    done = call("tokens", *command.split(), "--config-dir", str(tmp_path / "typo"))
    assert done.exit_code == 2, done.output
    assert f"{tmp_path / 'typo' / 'service-tokens.yaml'}: found No such file" in done.stderr


def test_a_file_of_tokens_that_others_can_read_is_refused(tmp_path: Path) -> None:
    call("tokens", "issue", "--config-dir", str(tmp_path), "--name", "robot", "--role", "service")
    (tmp_path / "service-tokens.yaml").chmod(0o644)
    done = call("tokens", "list", "--config-dir", str(tmp_path))
    assert done.exit_code == 2 and "0600" in done.output


def test_the_apis_key_is_made_once_and_its_entry_goes_into_the_file(tmp_path: Path) -> None:
    first = call("api", "key", "--state-dir", str(tmp_path), "--json")
    assert json.loads(first.stdout) == json.loads(
        call("api", "key", "--state-dir", str(tmp_path), "--json").stdout
    )
    assert (tmp_path / "api-signing-key.pem").stat().st_mode & 0o777 == 0o600
    (tmp_path / "issuers.yaml").write_text(json.dumps({"issuers": [json.loads(first.stdout)]}))
    assert load_issuers(tmp_path / "issuers.yaml").named("api") is not None


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "api.example.com"])
def test_tokens_are_not_served_in_the_clear(tmp_path: Path, host: str) -> None:
    done = call("api", "serve", "--config-dir", str(tmp_path), "--state-dir", str(tmp_path), "--host", host)
    assert done.exit_code == 2 and "--tls-cert" in done.output
