"""A real pgBackRest is asked for the newest backup, as an agent asks it."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from qnwis.agent.backups import ask_for_backup
from qnwis.agent.config import BackupSource
from qnwis.continuity.backups import BackupAnswer

from .debian import INSTALLED, USER, newest, why_not_here
from .pg import free_port

SETTINGS = """
listen_addresses = ''
port = {port}
unix_socket_directories = '{home}'
fsync = off
archive_mode = on
archive_command = 'pgbackrest --config={home}/pgbackrest.conf --stanza=main archive-push %p'
"""
PGBACKREST = """
[main]
pg1-path={home}/data
pg1-port={port}
pg1-socket-path={home}
[global]
repo1-path={home}/repository
log-path={home}
lock-path={home}
spool-path={home}
start-fast=y
"""
pytestmark = [
    pytest.mark.skipif(why_not_here() is not None, reason=str(why_not_here())),
    pytest.mark.skipif(
        shutil.which("pgbackrest") is None, reason="pgbackrest is not installed (make install-system)"
    ),
]


@pytest.fixture
def home() -> Iterator[Path]:
    """A running database, and pgBackRest's configuration for it."""
    home = Path(tempfile.mkdtemp(prefix="qnwis-test-", dir="/var/tmp"))
    shutil.chown(home, USER)
    programs = INSTALLED / str(newest()) / "bin"
    data, port = home / "data", free_port("127.0.0.1", above=21_000)
    try:
        as_postgres(programs / "initdb", "--pgdata", data, "--auth", "trust", "--no-sync")
        with (data / "postgresql.conf").open("a") as settings:
            settings.write(SETTINGS.format(home=home, port=port))
        (home / "pgbackrest.conf").write_text(PGBACKREST.format(home=home, port=port))
        as_postgres(programs / "pg_ctl", "--pgdata", data, "--wait", "--log", home / "log", "start")
        yield home
    finally:
        if (data / "postmaster.pid").exists():
            as_postgres(programs / "pg_ctl", "--pgdata", data, "--mode", "immediate", "stop")
        shutil.rmtree(home)


async def test_pgbackrest_is_believed_only_where_it_has_a_good_backup(home: Path) -> None:
    run = ("pgbackrest", f"--config={home}/pgbackrest.conf")
    source = BackupSource(
        command=(*as_user(), *run, "--output=json", "info"), answer=BackupAnswer.PGBACKREST, timeout_s=60
    )
    assert (await ask_for_backup(source)).detail == "pgBackRest has no stanza"

    as_postgres(*run, "--stanza=main", "stanza-create")
    assert (await ask_for_backup(source)).detail == "pgBackRest says main: no valid backups"

    before = datetime.fromtimestamp(int(time.time()), UTC)
    as_postgres(*run, "--stanza=main", "backup")
    found = await ask_for_backup(source)
    assert found.last_good_at is not None and before <= found.last_good_at <= datetime.now(UTC)
    assert found.detail.startswith("pgBackRest's 20") and found.detail.endswith("F of main")


@pytest.mark.parametrize(
    ("command", "detail"),
    [
        (("/bin/sh", "-c", "echo no such host >&2; exit 3"), "/bin/sh ended with status 3: no such host"),
        (("/nowhere/pgbackrest",), "/nowhere/pgbackrest cannot be run: No such file or directory"),
        (("/bin/sleep", "60"), "/bin/sleep did not answer within 0.2 s"),
        (("/bin/echo", "soon"), "the answer is not of form pgbackrest: JSONDecodeError"),
    ],
)
async def test_a_source_that_does_not_answer_has_no_backup(command: tuple[str, ...], detail: str) -> None:
    source = BackupSource(command=command, answer=BackupAnswer.PGBACKREST, timeout_s=0.2)
    if command[0] == "/bin/sh":
        source = source.model_copy(update={"timeout_s": 60})
    found = await ask_for_backup(source)
    assert found.last_good_at is None and found.detail.startswith(detail), found


def as_user() -> tuple[str, ...]:
    return ("setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups")


def as_postgres(*command: object) -> None:
    subprocess.run(
        [*as_user(), *map(str, command)], cwd="/", check=True, stdin=subprocess.DEVNULL, capture_output=True
    )
