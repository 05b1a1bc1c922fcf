"""Whose a running postmaster is, and what is left of one that is gone."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from qnwis.agent.archive import filled_in
from qnwis.agent.config import Account, LocalDatabase
from qnwis.agent.taken_over import TakenOver, stale_socket_locks


def test_a_postmaster_is_foreign_until_the_agent_has_started_one_there(tmp_path: Path) -> None:
    data, other = tmp_path / "data", tmp_path / "other"
    data.mkdir()
    taken = TakenOver(tmp_path / "database", data)
    # Of a process that is not this one's child: its shell ends at once.
    started = subprocess.run(
        ["/bin/sh", "-c", "sleep 60 >/dev/null 2>&1 & echo $!"], cwd=data, capture_output=True, check=True
    )
    pid = int(started.stdout)
    try:
        assert taken.foreign_pid() is None, "no postmaster.pid says that it is one"
        (data / "postmaster.pid").write_text(f"{pid}\n{data}\n")
        refusal = taken.refuse_foreign("n1")
        assert refusal is not None and refusal.values["pid"] == pid and "Hand it over" in refusal.remedy

        taken.now()
        assert TakenOver(tmp_path / "database", data).foreign_pid() is None
        assert TakenOver(tmp_path / "database", other).foreign_pid() is None, "nothing runs there"
        (tmp_path / "database").write_text(f"{other}\n")
        assert taken.foreign_pid() == pid, "what was taken over was another one"
    finally:
        os.kill(pid, 9)


def test_a_child_is_never_foreign_for_an_agent_that_executed_itself_anew(tmp_path: Path) -> None:
    with subprocess.Popen(["/bin/sleep", "60"], cwd=tmp_path) as child:
        (tmp_path / "postmaster.pid").write_text(f"{child.pid}\n")
        assert TakenOver(tmp_path / "database", tmp_path).foreign_pid() is None
        child.kill()


@pytest.mark.parametrize(("of", "stale"), [("/srv/data", True), ("/srv/other", False)])
def test_only_the_locks_of_its_own_sockets_are_stale(of: str, stale: bool, tmp_path: Path) -> None:
    lock = tmp_path / ".s.PGSQL.5432.lock"
    lock.write_text(f"4711\n{of}\n0\n5432\n")
    account = Account(user="any")
    database = LocalDatabase(
        host="127.0.0.1",
        port=5432,
        data_dir=Path("/srv/data"),
        pg_bin=Path("/usr/bin"),
        socket_dirs=(tmp_path, tmp_path / "none"),
        superuser=account,
        replication=account,
    )
    assert stale_socket_locks(database) == ([lock] if stale else [])


def test_a_restore_command_is_filled_in_as_postgresql_does_it() -> None:
    filled = filled_in('get %f "%p" --until %r 100%% %x', "0007", "pg_wal/X")
    assert filled == 'get 0007 "pg_wal/X" --until 0007 100% %x'
