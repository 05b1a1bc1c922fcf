"""Key stores: who can read them, how keys are rotated, and what an altered wrapping says."""

from __future__ import annotations

import stat
import subprocess
import sys
from base64 import b64encode
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from qnwis.providers.key_store import (
    EnvironmentKeyStore,
    FileKeyStore,
    KeyStore,
    KeyStoreError,
    Wrapped,
    key_store_of,
)

AT = datetime(2025, 1, 11, tzinfo=UTC)
KEY = b"k" * 32
SECRET = b64encode(b"s" * 32).decode()


@pytest.fixture(params=["file", "environment"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> KeyStore:
    if request.param == "file":
        return FileKeyStore(tmp_path / "keys" / "keys.json")
    return EnvironmentKeyStore("KEYS", {"KEYS": f"new:{SECRET}, old:{b64encode(b'o' * 32).decode()}"})


async def test_what_was_wrapped_is_unwrapped_and_nothing_else_is(store: KeyStore) -> None:
    wrapped = await store.wrap(KEY)
    assert await store.unwrap(wrapped) == KEY and KEY not in wrapped.blob
    for place in range(len(wrapped.blob)):
        altered = wrapped.blob[:place] + bytes([wrapped.blob[place] ^ 1]) + wrapped.blob[place + 1 :]
        with pytest.raises(KeyStoreError, match="altered"):
            await store.unwrap(Wrapped(wrapped.key_id, altered))
    for short in (b"", wrapped.blob[:12], wrapped.blob[:-1]):
        with pytest.raises(KeyStoreError):
            await store.unwrap(Wrapped(wrapped.key_id, short))
    with pytest.raises(KeyStoreError, match="no key other"):
        await store.unwrap(Wrapped("other", wrapped.blob))


async def test_after_90_days_a_new_key_wraps_and_the_old_one_still_unwraps(tmp_path: Path) -> None:
    store = FileKeyStore(tmp_path / "keys.json")
    first = store.current(datetime.now(UTC) - timedelta(days=91))
    wrapped = await FileKeyStore(tmp_path / "keys.json", rotate_after=timedelta(days=999)).wrap(KEY)
    assert wrapped.key_id == first.id
    assert (await store.wrap(KEY)).key_id != first.id
    assert await store.unwrap(wrapped) == KEY
    assert len(store.keys()) == 2


def test_a_key_rotates_after_90_days_and_not_before(tmp_path: Path) -> None:
    store = FileKeyStore(tmp_path / "keys.json")
    first = store.current(AT)
    assert store.current(AT + timedelta(days=90) - timedelta(seconds=1)) == first
    assert store.current(AT + timedelta(days=90)) != first
    assert store.rotate(AT) == store.keys()[-1]


def test_a_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    store = FileKeyStore(tmp_path / "keys.json")
    store.current(AT)
    assert stat.S_IMODE((tmp_path / "keys.json").stat().st_mode) == 0o600
    for mode in (0o640, 0o604, 0o620, 0o602):
        (tmp_path / "keys.json").chmod(mode)
        with pytest.raises(KeyStoreError, match=r"chmod 600"):
            store.keys()


@pytest.mark.parametrize("text", ["", "{}", '[{"id": "a"}]', '[{"id": "a b", "secret": ""}]'])
def test_a_file_that_holds_no_keys_is_said_to_and_shows_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "keys.json").write_text(text)
    (tmp_path / "keys.json").chmod(0o600)
    with pytest.raises(KeyStoreError, match="no list of keys"):
        FileKeyStore(tmp_path / "keys.json").current(AT)


@pytest.mark.parametrize("text", ["", "a", f"a:{SECRET[:-4]}", f"a b:{SECRET}", "a:!"])
async def test_a_variable_that_holds_no_key_is_said_to_and_shows_nothing(text: str) -> None:
    with pytest.raises(KeyStoreError) as caught:
        await EnvironmentKeyStore("KEYS", {"KEYS": text}).wrap(KEY)
    assert SECRET[:8] not in str(caught.value)


def test_what_the_environment_names(tmp_path: Path) -> None:
    assert key_store_of({}) is None
    assert isinstance(key_store_of({"QNWIS_KEY_STORE": f"file:{tmp_path}/k"}), FileKeyStore)
    assert isinstance(key_store_of({"QNWIS_KEY_STORE": "env:KEYS"}), EnvironmentKeyStore)
    for wrong in ("vault", "file:", "/etc/keys"):
        with pytest.raises(KeyStoreError, match="QNWIS_KEY_STORE"):
            key_store_of({"QNWIS_KEY_STORE": wrong})


def test_processes_that_begin_at_once_have_one_key(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from datetime import datetime, UTC;"
        "from qnwis.providers.key_store import FileKeyStore; sys.stdin.read(1);"
        "print(FileKeyStore(Path(sys.argv[1])).current(datetime.now(UTC)).id)"
    )
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / "keys.json")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for _ in range(3)
    ]
    for process in running:
        assert process.stdin is not None
        process.stdin.write(b"\n")
        process.stdin.flush()
    assert len({process.communicate(timeout=120)[0] for process in running}) == 1
