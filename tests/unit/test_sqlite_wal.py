"""The first switch to a write-ahead log, which SQLite refuses at once to all but one."""

import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest

from qnwis.providers.sqlite_wal import write_ahead


def opened(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)


def test_who_comes_second_asks_again_until_the_first_is_done(tmp_path: Path) -> None:
    path = tmp_path / "new.sqlite"
    with closing(opened(path)) as first, closing(opened(path)) as second:
        first.execute("BEGIN IMMEDIATE")
        first.execute("CREATE TABLE things (name)")
        asked = threading.Semaphore(0)
        second.set_trace_callback(lambda _: asked.release())
        switching = threading.Thread(target=write_ahead, args=(second,), kwargs={"within_s": 60})
        switching.start()
        for _ in range(3):
            assert asked.acquire(timeout=30), "it was refused and did not ask again"
        first.execute("COMMIT")
        switching.join(timeout=60)
        second.set_trace_callback(None)
        assert second.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_file_that_stays_locked_is_told(tmp_path: Path) -> None:
    path = tmp_path / "new.sqlite"
    with closing(opened(path)) as first, closing(opened(path)) as second:
        first.execute("BEGIN IMMEDIATE")
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            write_ahead(second, within_s=0)
