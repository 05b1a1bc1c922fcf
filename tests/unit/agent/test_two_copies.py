"""A record of two copies: what a crash leaves, what a failed write leaves, and what an older agent wrote."""

from __future__ import annotations

import os
import zlib
from pathlib import Path
from stat import S_ISDIR
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qnwis.agent.files import StateError
from qnwis.agent.lease import GRANTOR, records_of
from qnwis.agent.two_copies import PAGE_BYTES, TwoCopies, read_copies
from tests.no_room import NoRoom

from .own import own_config

SECTOR_BYTES = 512
TEXTS = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=3 * PAGE_BYTES)


@given(texts=st.lists(TEXTS, min_size=1, max_size=8))
def test_what_was_written_last_is_read(texts: list[str]) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder, "record")
        assert TwoCopies(path).text == ""
        kept = TwoCopies(path)
        for text in texts:
            kept.write(text)
            assert kept.text == TwoCopies(path).text == text
        kept.clear()
        assert kept.text == TwoCopies(path).text == ""


@given(
    before=st.lists(TEXTS, min_size=1, max_size=4),
    last=TEXTS,
    arrived=st.sets(st.integers(0, 8 * PAGE_BYTES // SECTOR_BYTES)),
    zeroed=st.none() | st.integers(0, 8 * PAGE_BYTES // SECTOR_BYTES),
)
def test_a_crash_in_the_middle_of_a_write_leaves_the_former_text_or_this_one(
    before: list[str], last: str, arrived: set[int], zeroed: int | None
) -> None:
    """Any sectors of it arrived, in any order, and one may have been lost."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "record")
        kept = TwoCopies(path)
        for text in before:
            kept.write(text)
        old, inode = path.read_bytes(), path.stat().st_ino
        kept.write(last)
        new = path.read_bytes()
        if path.stat().st_ino == inode:  # else it was replaced by name: the one or the other
            sectors = [
                (new if at in arrived else old)[at * SECTOR_BYTES : (at + 1) * SECTOR_BYTES]
                for at in range(len(new) // SECTOR_BYTES)
            ]
            changed = [
                at for at, sector in enumerate(sectors) if sector != old[at * SECTOR_BYTES :][:SECTOR_BYTES]
            ]
            if zeroed is not None and changed:
                sectors[changed[zeroed % len(changed)]] = bytes(SECTOR_BYTES)
            path.write_bytes(b"".join(sectors))
        again = TwoCopies(path)
        assert again.text in (before[-1], last)
        again.write("after")
        assert TwoCopies(path).text == "after"


def test_nothing_but_the_bytes_of_a_copy_changes(tmp_path: Path) -> None:
    path = tmp_path / "record"
    kept = TwoCopies(path)
    kept.write("first")
    before = path.stat()
    for text in ("second", "third", "fourth"):
        kept.write(text)
    after = path.stat()
    assert (after.st_ino, after.st_size, after.st_blocks) == (before.st_ino, before.st_size, before.st_blocks)
    assert after.st_mode & 0o777 == 0o600


@pytest.mark.parametrize("bit", range(8 * len(b"#5 12345678 fifth")))
def test_a_bit_that_flips_in_either_copy_makes_no_older_one_of_two_whole_copies_the_newest(
    tmp_path: Path, bit: int
) -> None:
    path = tmp_path / "record"
    kept = TwoCopies(path)
    for text in ("first", "second", "third", "fourth", "fifth"):
        kept.write(text)
    content = path.read_bytes()
    for place, newest in enumerate("fifth" in half.decode() for half in _halves(content)):
        flipped = bytearray(content)
        flipped[place * PAGE_BYTES + bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        assert read_copies(path).text == ("fourth" if newest else "fifth")


FAILED: list[object] = []
"""The calls that did."""


def failed(*call: object) -> None:
    FAILED.append(call)
    raise OSError("the disk is gone")


def failing(monkeypatch: pytest.MonkeyPatch, *calls: str) -> None:
    for call in calls:
        monkeypatch.setattr(os, call, failed)


@pytest.mark.parametrize("attempts", [1, 2, 3])
def test_a_write_that_fails_never_costs_the_text_that_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, attempts: int
) -> None:
    path = tmp_path / "record"
    kept = TwoCopies(path)
    for text in ("zeroth", "first"):
        kept.write(text)
    counted = path.read_bytes()
    with monkeypatch.context() as patched:
        failing(patched, "fdatasync", "fsync")
        for attempt in range(attempts):
            with pytest.raises(OSError, match="the disk is gone"):
                kept.write(f"failed {attempt}")
    assert kept.text == "first"
    halves = zip(_halves(counted), _halves(path.read_bytes()), strict=True)
    assert [b" first" in before for before, after in halves if before == after] == [True]
    kept.write("second")
    assert TwoCopies(path).text == "second", "not what was written before it, and failed"


@pytest.mark.parametrize("call", ["open", "pwrite", "fdatasync"])
def test_where_a_file_cannot_be_overwritten_a_new_one_takes_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """One that a person has put back is not the agent's to write, and one block of it may have gone bad."""
    path = tmp_path / "record"
    kept = TwoCopies(path)
    kept.write("first")
    before = path.stat().st_ino
    with monkeypatch.context() as patched:
        if call == "open":
            really = os.open
            patched.setattr(os, "open", lambda at, *more: _denied() if at == path else really(at, *more))
        else:
            failing(patched, call)
        kept.write("second")
    assert TwoCopies(path).text == "second" and path.stat().st_ino != before


def test_a_new_file_of_which_it_is_not_known_whether_it_is_there_is_not_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its only copy counts after a crash, if the file is there, and the former file's if not."""
    path = tmp_path / "record"
    kept = TwoCopies(path)
    for text in ("zeroth", "first"):
        kept.write(text)
    with monkeypatch.context() as patched:
        failing(patched, "fdatasync")
        really = os.fsync
        patched.setattr(os, "fsync", lambda fd: failed() if S_ISDIR(os.fstat(fd).st_mode) else really(fd))
        with pytest.raises(OSError, match="the disk is gone"):
            kept.write("perhaps")
    failing(monkeypatch, "pwrite")
    called = len(FAILED)
    kept.write("second")
    assert read_copies(path).text == "second" and len(FAILED) == called


def _denied() -> int:
    raise PermissionError("not the agent's")


def test_what_is_cleared_is_gone_though_a_write_had_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "record"
    kept = TwoCopies(path)
    kept.write("first")
    kept.clear()
    with monkeypatch.context() as patched:
        failing(patched, "fdatasync", "fsync")
        with pytest.raises(OSError, match="the disk is gone"):
            kept.write("failed, and is on the disk all the same")
    assert kept.text == "" and read_copies(path).text
    kept.clear()
    assert read_copies(path).text == ""


def test_what_is_read_to_be_counted_on_is_on_disk_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever wrote it may have been killed before it was, and the next write is over the other copy."""
    path = tmp_path / "record"
    TwoCopies(path).write("first")
    synced: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(str(Path(f"/proc/self/fd/{fd}").readlink())))
    assert TwoCopies(path).text == "first"
    assert synced == [str(path), str(tmp_path)]
    failing(monkeypatch, "fsync")
    with pytest.raises(StateError, match="record: whether it is on disk is not known"):
        TwoCopies(path)


def test_a_write_for_which_there_is_no_room_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "record"
    kept, disk = TwoCopies(path), NoRoom(path)
    kept.write("first")
    disk.fill()
    with pytest.raises(OSError, match="record"):
        kept.write("second")
    assert kept.text == TwoCopies(path).text == "first"
    disk.free()
    kept.write("third")
    assert TwoCopies(path).text == "third"


@pytest.mark.parametrize("padded", [13, 2 * PAGE_BYTES])
def test_what_an_older_agent_wrote_is_read_and_replaced_whole(tmp_path: Path, padded: int) -> None:
    path = tmp_path / "record"
    path.write_text('{"epoch": 7}'.ljust(padded - 1) + "\n")
    kept = TwoCopies(path)
    assert kept.text == '{"epoch": 7}'
    kept.write('{"epoch": 8}')
    assert TwoCopies(path).text == '{"epoch": 8}'
    assert b'"epoch": 7' not in path.read_bytes()


WHOLE = b"#7 %08x {}" % zlib.crc32(b"7 {}")


@pytest.mark.parametrize(
    "content",
    [b"", b"\n", b"#", WHOLE.ljust(PAGE_BYTES), WHOLE.replace(b"7", b"8", 1).ljust(2 * PAGE_BYTES)],
)
def test_a_file_without_a_whole_copy_or_cut_off_is_not_one_that_is_not_there(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "record"
    path.write_bytes(content)
    kept = TwoCopies(path)
    assert kept.text is None
    kept.clear()
    assert TwoCopies(path).text == ""


def _halves(content: bytes) -> tuple[bytes, bytes]:
    middle = len(content) // 2
    return content[:middle], content[middle:]


def test_a_lease_record_without_a_whole_copy_is_named_as_one(tmp_path: Path) -> None:
    config = own_config(tmp_path, peers=())
    config.state_dir.mkdir()
    (config.state_dir / GRANTOR).write_bytes(WHOLE)
    with pytest.raises(StateError, match=r"grantor.json: is not a lease record \(no copy in it is whole\)"):
        records_of(config)
