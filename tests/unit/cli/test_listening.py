"""The commands that take tokens over HTTP: without TLS nobody else can listen on the way."""

from __future__ import annotations

import ssl
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from qnwis.cli.qnwis_continuity import app
from qnwis.pki.authority import OWN, Authority

API = ("api", "serve", "--config-dir", "config", "--state-dir", "state")
CODEC = ("codec-server", "--token-hash", f"sha256:{'0' * 64}")
KEYS = {"QNWIS_KEY_STORE": "env:KEYS", "KEYS": f"k:{b64encode(b's' * 32).decode()}"}


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, [*arguments], env={"COLUMNS": "200", "NO_COLOR": "1", **KEYS})


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """How codec servers were started."""
    found: list[dict[str, Any]] = []
    monkeypatch.setattr("qnwis.cli.codec_server.web.run_app", lambda _, **how: found.append(how))
    return found


@pytest.mark.parametrize("command", [API, CODEC], ids=["api", "codec-server"])
def test_what_takes_tokens_listens_elsewhere_only_with_tls(
    command: tuple[str, ...], started: list[dict[str, Any]]
) -> None:
    for host in ("0.0.0.0", "::", "10.0.0.1", "codec.example.com"):
        refused = call(*command, "--host", host)
        assert refused.exit_code == 2 and "--behind-tls" in refused.stderr, refused.output
    half = call(*command, "--tls-cert", "cert.pem")
    assert half.exit_code == 2 and "--tls-cert goes with --tls-key" in half.stderr
    assert started == []


def test_a_codec_server_starts_on_loopback_behind_tls_and_with_it(
    started: list[dict[str, Any]], tmp_path: Path
) -> None:
    Authority.make(tmp_path, organization="Test", country=None).issue(tmp_path / "own", "codec", [], days=1)
    own = str(tmp_path / "own" / OWN)
    for options in (
        (),
        ("--host", "localhost"),
        ("--host", "0.0.0.0", "--behind-tls"),
        ("--host", "0.0.0.0", "--tls-cert", own, "--tls-key", own),
    ):
        assert call(*CODEC, *options).exit_code == 0
    *clear, with_tls = [how["ssl_context"] for how in started]
    assert clear == [None, None, None] and isinstance(with_tls, ssl.SSLContext)


def test_a_certificate_that_cannot_be_used_is_wrong_usage(
    started: list[dict[str, Any]], tmp_path: Path
) -> None:
    (tmp_path / "no.pem").write_text("no certificate")
    for name in ("gone.pem", "no.pem"):
        file = str(tmp_path / name)
        refused = call(*CODEC, "--tls-cert", file, "--tls-key", file)
        assert refused.exit_code == 2 and file in refused.stderr
    assert started == []
