"""Files that are replaced whole, by several at once, and the lock that lets in one of them."""

from __future__ import annotations

import asyncio
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from qnwis.durable import new_beside, write_private
from qnwis.providers.whole_files import alone_within

HOLD = """
import fcntl, sys
file = open(sys.argv[1], "w")
fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


def test_writers_of_one_process_never_touch_each_others_text(tmp_path: Path) -> None:
    path, writers, rounds = tmp_path / "policy.yaml", 4, 25
    texts = {str(n) * 100_000 for n in range(writers)}
    together = Barrier(writers)

    def write(text: str) -> set[str]:
        seen = set()
        try:
            for _ in range(rounds):
                together.wait(timeout=60)
                write_private(path, text)
                seen.add(path.read_text())
        except BaseException:
            together.abort()  # else the others wait for this one
            raise
        return seen

    with ThreadPoolExecutor(writers) as pool:
        seen = set().union(*pool.map(write, texts))
    assert seen <= texts
    assert [*tmp_path.iterdir()] == [path] and path.stat().st_mode & 0o777 == 0o600


def test_a_text_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(UnicodeEncodeError):
        new_beside(tmp_path / "policy.yaml", "half a character: \ud800")
    assert [*tmp_path.iterdir()] == []


async def test_another_process_is_waited_for_while_the_loop_goes_on(tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    pipe = asyncio.subprocess.PIPE
    command = (sys.executable, "-c", HOLD, str(lock))
    other = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)
    assert other.stdout is not None
    assert await other.stdout.readline() == b"held\n"

    async def enter(within_s: float) -> bool:
        async with alone_within(lock, within_s):
            return other.returncode is not None

    with pytest.raises(TimeoutError):
        await enter(0)
    waiting = asyncio.create_task(enter(60))
    await asyncio.sleep(0)  # it begins to wait
    other.kill()
    await other.wait()
    assert await waiting, "it was let in while the other process had the lock"
