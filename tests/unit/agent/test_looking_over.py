"""What would keep an agent from a start: found by `--check` before it is executed anew, told at a start."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from qnwis.agent import going_on
from qnwis.agent.__main__ import EXIT_AGAIN, EXIT_CONFIG, run_from
from qnwis.agent.config import ConfigError, load_config
from qnwis.agent.deadline import HANDED_OVER, QUIESCED
from qnwis.agent.files import write_durably, write_if_other
from qnwis.agent.journal import JOURNAL, Journal
from qnwis.agent.lease import found_cluster
from qnwis.agent.receiving import HELD_UPSTREAM
from tests.looking import WITHIN_S

TORN = b'{"at": "2026-01-01T00:00:00Z", "mark": "\xe2\x82'
"""Cut off in the middle of a character."""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Of a first member that has never run, and would start."""
    state = tmp_path / "state"
    for name in ("super", "replicator"):
        (tmp_path / f"{name}.password").write_text("secret\n")
    file = tmp_path / "agent.yaml"
    file.write_text(
        yaml.safe_dump(
            {
                "cluster_id": "c",
                "node_id": "alone",
                "role": "primary",
                "listen_host": "127.0.0.1",
                "state_dir": str(state),
                "database": {
                    "host": "127.0.0.1",
                    "port": 5432,
                    "data_dir": str(tmp_path / "data"),
                    "pg_bin": str(tmp_path / "bin"),
                    "superuser": {"user": "super", "password_file": str(tmp_path / "super.password")},
                    "replication": {
                        "user": "replicator",
                        "password_file": str(tmp_path / "replicator.password"),
                    },
                },
                "peers": [],
            }
        )
    )
    found_cluster(load_config(file))
    return file


def changed(config: Path, **changes: object) -> None:
    config.write_text(yaml.safe_dump({**yaml.safe_load(config.read_text()), **changes}))


def unknown_user(config: Path) -> str:
    changed(config, database={**yaml.safe_load(config.read_text())["database"], "os_user": "no-such-user"})
    return "no-such-user"


def no_password(config: Path) -> str:
    (config.parent / "super.password").unlink()
    return "super.password"


def no_readable_password(config: Path) -> str:
    no_password(config)
    (config.parent / "super.password").mkdir()
    return "super.password"


def certificate_for_all(config: Path) -> str:
    identity = config.parent / "identity"
    identity.mkdir()
    for name in ("identity.pem", "ca.pem"):
        (identity / name).touch(mode=0o644)
    (config.parent / "allowlist.yaml").touch()
    changed(config, tls={"identity_dir": str(identity), "allowlist": str(config.parent / "allowlist.yaml")})
    return "identity.pem"


def broken_allowlist(config: Path) -> str:
    certificate_for_all(config)
    (config.parent / "identity" / "identity.pem").chmod(0o600)
    (config.parent / "allowlist.yaml").write_text("allowed_nodes: 3")
    return "allowlist.yaml"


def broken_certificate(config: Path) -> str:
    broken_allowlist(config)
    (config.parent / "allowlist.yaml").write_text("allowed_nodes: []")
    return "identity"


def address_of_no_machine(config: Path) -> str:
    changed(config, listen_host="192.0.2.1", plain_http=True)  # kept for documentation
    return "cannot listen on 192.0.2.1"


def reached_by_whoever(config: Path) -> str:
    changed(config, listen_host="0.0.0.0")
    return f"{config}: tls: Value error, is absent, and listen_host is 0.0.0.0"


def unreadable(name: str) -> Callable[[Path], str]:
    def make_folder(config: Path) -> str:
        (config.parent / "state" / name).mkdir()
        return f"{name}: cannot be read"

    return make_folder


def damaged(name: str) -> Callable[[Path], str]:
    def damage(config: Path) -> str:
        (config.parent / "state" / name).write_text("x\n")
        return name

    return damage


FAULTS = [
    unknown_user,
    no_password,
    no_readable_password,
    certificate_for_all,
    broken_allowlist,
    broken_certificate,
    address_of_no_machine,
    reached_by_whoever,
    *map(unreadable, (QUIESCED, HANDED_OVER, HELD_UPSTREAM)),
    *map(damaged, (JOURNAL, "grantor.json", "holder.json", "peers.json", "adoption.json")),
]


def test_an_agent_that_would_start_is_told_so_and_nothing_is_written(config: Path) -> None:
    journal = config.parent / "state" / JOURNAL
    journal.write_bytes(TORN)
    before = {path: path.read_bytes() for path in config.parent.rglob("*") if path.is_file()}
    assert run_from(config, check=True) == 0
    assert before == {path: path.read_bytes() for path in config.parent.rglob("*") if path.is_file()}
    assert Journal(journal).lines == ()
    assert journal.read_bytes() == b""


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_without_certificates_an_agent_is_reached_by_this_machine_alone(config: Path, host: str) -> None:
    changed(config, listen_host=host)
    assert load_config(config).tls is None


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "db-1"])
def test_without_certificates_others_reach_an_agent_only_where_its_file_says_so(
    config: Path, host: str
) -> None:
    changed(config, listen_host=host)
    with pytest.raises(ConfigError, match="or plain_http: true where the network is the nodes' own"):
        load_config(config)
    changed(config, plain_http=True)
    assert load_config(config).listen_host == host
    changed(config, plain_http=False, tls={"identity_dir": "/i", "allowlist": "/a"})
    assert load_config(config).tls is not None


@pytest.mark.parametrize("in_the_way", ["above it", "itself", "its record"])
def test_a_first_member_whose_folder_cannot_be_written_to_is_told_what_to_make(
    config: Path, capsys: pytest.CaptureFixture[str], in_the_way: str
) -> None:
    above = config.parent / "lib"
    state = above / "agent"
    changed(config, state_dir=str(state))
    if in_the_way == "its record":  # what is written first
        (state / "grantor.json.new").mkdir(parents=True)
    else:
        file = above if in_the_way == "above it" else state
        file.parent.mkdir(exist_ok=True)
        file.touch()
    assert run_from(config, new_cluster=True) == EXIT_CONFIG
    told = capsys.readouterr().err
    assert f"{state / 'grantor.json'}: cannot be made (" in told and f"make {state} for the user" in told


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"cluster_id: \xff\n", "cannot be read (it is no UTF-8 text)"),
        (b"cluster_id: 2026-02-30\n", "holds what is no value (ValueError: day is out of range"),
        (b"cluster_id: !!bool c\n", "holds what is no value (KeyError"),
        (b"[" * 5000, "holds what is no value (RecursionError"),
    ],
    ids=["no text", "no date", "no value", "too deep"],
)
def test_a_file_that_cannot_be_read_is_a_fault_of_the_configuration(
    config: Path, capsys: pytest.CaptureFixture[str], content: bytes, told: str
) -> None:
    config.write_bytes(content)
    for check in (True, False):
        assert run_from(config, check=check) == EXIT_CONFIG
        assert f"{config}: {told}" in capsys.readouterr().err


@pytest.mark.parametrize("fault", FAULTS)
def test_what_would_keep_an_agent_from_a_start_is_found_before(
    config: Path, fault: Callable[[Path], str], capsys: pytest.CaptureFixture[str]
) -> None:
    named = fault(config)
    assert run_from(config, check=True) == EXIT_CONFIG
    assert named in capsys.readouterr().err


def test_all_faults_are_said_at_once(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    named = [unknown_user(config), no_password(config), damaged("peers.json")(config)]
    assert run_from(config, check=True) == EXIT_CONFIG
    said = capsys.readouterr().err
    assert [name for name in named if name not in said] == []


def started(config: Path) -> subprocess.CompletedProcess[str]:
    """An agent that cannot serve, once it has ended."""
    command = [sys.executable, "-m", "qnwis.agent", "--config", str(config)]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ, timeout=WITHIN_S)


def test_a_start_without_its_password_file_says_so_as_a_fault_of_the_configuration(config: Path) -> None:
    no_password(config)
    ended = started(config)
    assert ended.returncode == EXIT_CONFIG
    assert "Traceback" not in ended.stderr
    assert "super.password: cannot be read (No such file or directory)" in ended.stderr


def test_an_address_that_is_taken_is_no_fault_of_the_configuration(config: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        changed(config, listen_port=taken.getsockname()[1], role="witness", database=None)
        ended = started(config)
    assert ended.returncode == EXIT_AGAIN
    assert "Traceback" not in ended.stderr
    assert "cannot listen on 127.0.0.1" in ended.stderr


@pytest.fixture
def going_on_there(config: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same file, checked by the agent that runs with it."""
    monkeypatch.chdir(config.parent / "state")
    monkeypatch.setenv(going_on.LISTENS_ON, str(load_config(config).listen_port))
    return config


def test_an_agent_goes_on_where_it_was(going_on_there: Path) -> None:
    assert run_from(going_on_there, check=True) == 0


def test_a_port_that_is_taken_by_another_is_found_before_the_agent_goes_on(
    going_on_there: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        changed(going_on_there, listen_port=port)
        assert run_from(going_on_there, check=True) == EXIT_CONFIG
        assert f"cannot listen on 127.0.0.1:{port}" in capsys.readouterr().err
        monkeypatch.setenv(going_on.LISTENS_ON, str(port))
        assert run_from(going_on_there, check=True) == 0, "it is taken by the agent itself"


def no_records(state: Path) -> Path:
    return state.with_name("blank")


def a_copy_of_the_records(state: Path) -> Path:
    """What is promised between the copy and the first look at it would be forgotten."""
    return Path(shutil.copytree(state, state.with_name("copy")))


def records_that_are_gone(state: Path) -> Path:
    (state / "grantor.json").unlink()
    return state


@pytest.mark.parametrize("moved", [no_records, a_copy_of_the_records, records_that_are_gone])
def test_an_agent_does_not_go_on_without_the_records_that_it_has(
    going_on_there: Path, moved: Callable[[Path], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    state = moved(going_on_there.parent / "state")
    changed(going_on_there, state_dir=str(state))
    assert run_from(going_on_there, check=True) == EXIT_CONFIG
    assert f"state_dir is {state}" in capsys.readouterr().err


async def test_an_interpreter_that_is_missing_for_a_moment_is_a_reason_not_to_go_on(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(config.parent / "python-being-replaced"))
    reason = await going_on._would_not_start(config, 8443)
    assert reason is not None and "python-being-replaced" in reason


def test_a_file_that_is_as_it_should_be_is_not_written_again(tmp_path: Path) -> None:
    file = tmp_path / "pgpass"
    write_durably(file, "a")
    first = file.stat().st_ino
    write_if_other(file, "a")
    assert file.stat().st_ino == first
    file.chmod(0o644)
    write_if_other(file, "a")
    assert (file.stat().st_mode & 0o777, file.read_text()) == (0o600, "a")
    write_if_other(file, "b")
    assert file.read_text() == "b"
