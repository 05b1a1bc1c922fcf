"""Guards as processes: they end what works in the database's folder, and are replaced when they cannot."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from qnwis.agent.guard import now
from qnwis.agent.guarding import COUNT, PIPE_BYTES, Guarding
from qnwis.agent.processes import processes_in


@pytest.fixture
def database(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Stands for a database: a process that works in its folder, and is frozen besides."""
    (tmp_path / "data").mkdir()
    process = subprocess.Popen(["sleep", "600"], cwd=tmp_path / "data")
    os.kill(process.pid, signal.SIGSTOP)
    yield process
    process.kill()
    process.wait()


@pytest.fixture
def guarding(tmp_path: Path, database: subprocess.Popen[bytes]) -> Iterator[Guarding]:
    guarding = Guarding(tmp_path / "data", tmp_path / "guard.log")
    yield guarding
    guarding.over()


def pids(guarding: Guarding) -> list[int]:
    return [pid for pid, _ in guarding.hand_on()]


def test_any_one_guard_ends_the_database_at_the_end_of_the_lease(
    guarding: Guarding, database: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    end = now() + 0.5
    guarding.tell(end)
    for pid in pids(guarding)[1:]:
        os.kill(pid, signal.SIGSTOP)
    assert database.wait(20) == -signal.SIGKILL
    assert now() >= end
    assert processes_in(tmp_path / "data") == []
    os.waitid(os.P_PID, pids(guarding)[0], os.WEXITED | os.WNOWAIT)
    assert "the lease is over: woken" in (tmp_path / "guard.log").read_text()


def test_guards_are_told_of_renewals(guarding: Guarding, database: subprocess.Popen[bytes]) -> None:
    guarding.tell(now() + 0.5)
    last = now() + 2
    guarding.tell(last)
    database.wait(20)
    assert now() >= last


def test_guards_end_the_database_of_an_agent_that_is_gone(
    guarding: Guarding, database: subprocess.Popen[bytes]
) -> None:
    guarding.tell(now() + 600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for _, pipe in guarding.hand_on():
        os.dup2(nothing, pipe)  # as if the agent had been killed: nobody can write to them any more
    os.close(nothing)
    assert database.wait(20) == -signal.SIGKILL


def test_guards_on_call_end_the_database_only_once_they_were_told_to(
    guarding: Guarding, database: subprocess.Popen[bytes]
) -> None:
    guarding.be_on_call()
    on_call = pids(guarding)
    end = now() + 0.5
    guarding.tell(end)
    assert pids(guarding) == on_call
    assert database.wait(20) == -signal.SIGKILL
    assert now() >= end


def test_guards_on_call_go_with_their_agent_and_leave_the_database(
    guarding: Guarding, database: subprocess.Popen[bytes]
) -> None:
    guarding.be_on_call()
    nothing = os.open(os.devnull, os.O_RDONLY)
    for _, pipe in guarding.hand_on():
        os.dup2(nothing, pipe)  # as if the agent had been killed: nobody can write to them any more
    os.close(nothing)
    for pid in pids(guarding):
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert database.poll() is None


def test_a_guard_that_ended_is_replaced_at_the_next_renewal(guarding: Guarding) -> None:
    guarding.tell(now() + 600)
    killed, other = pids(guarding)
    os.kill(killed, signal.SIGKILL)
    os.waitid(os.P_PID, killed, os.WEXITED | os.WNOWAIT)
    guarding.tell(now() + 600)
    assert len(pids(guarding)) == COUNT
    assert other in pids(guarding) and killed not in pids(guarding)


def test_a_guard_that_reads_nothing_is_replaced_and_never_waited_for(guarding: Guarding) -> None:
    guarding.tell(now() + 600)
    frozen = pids(guarding)
    for pid in frozen:
        os.kill(pid, signal.SIGSTOP)
    for _ in range(PIPE_BYTES):
        guarding.tell(now() + 600)
        if not set(frozen) & set(pids(guarding)):
            break
    assert not set(frozen) & set(pids(guarding))
    assert len(pids(guarding)) == COUNT


def test_guards_that_are_no_longer_needed_leave_the_database_alone(
    guarding: Guarding, database: subprocess.Popen[bytes]
) -> None:
    guarding.tell(now() + 600)
    guarding.over()
    assert pids(guarding) == []
    assert database.poll() is None
