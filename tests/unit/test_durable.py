"""Files that a power cut leaves whole, with their names: nothing counts on a key before."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from qnwis.durable import new_beside, put
from qnwis.pki.authority import AUTHORITY_KEY, Authority
from qnwis.providers.audit_keys import SigningKey
from qnwis.providers.key_store import FileKeyStore
from qnwis.providers.keys import new_key, write_key
from qnwis.providers.service_tokens import TokenFile

from .synced import Disk

NOW = datetime(2025, 1, 11, tzinfo=UTC)


def data_key(folder: Path) -> Path:
    FileKeyStore(folder / "state" / "keys.json").current(NOW)
    return folder / "state" / "keys.json"


def rotated_data_key(folder: Path) -> Path:
    FileKeyStore(folder / "keys.json").current(NOW)
    FileKeyStore(folder / "keys.json").current(NOW + timedelta(days=91))
    return folder / "keys.json"


def signing_key(folder: Path) -> Path:
    SigningKey(folder / "state" / "signing.pem").signer(may_create=True)
    return folder / "state" / "signing.pem"


def public_key(folder: Path) -> Path:
    return signing_key(folder).with_name("signing.pem.pub")


def persons_key(folder: Path) -> Path:
    write_key(folder / "keys" / "ann.pem", new_key(), person="ann")
    return folder / "keys" / "ann.pem"


def authoritys_key(folder: Path) -> Path:
    Authority.make(folder, organization="Test", country=None)
    return folder / AUTHORITY_KEY


def service_token(folder: Path) -> Path:
    TokenFile(folder / "tokens.yaml").issue("robot", ("service",), NOW, NOW + timedelta(days=1))
    return folder / "tokens.yaml"


@pytest.mark.parametrize(
    "made",
    [data_key, rotated_data_key, signing_key, public_key, persons_key, authoritys_key, service_token],
)
def test_what_is_made_is_on_disk_under_its_name_before_it_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: Callable[[Path], Path]
) -> None:
    disk = Disk(monkeypatch)
    path = made(tmp_path)
    assert disk.has(path)
    assert path.parent == tmp_path or disk.has(path.parent)


@pytest.mark.parametrize("made", [rotated_data_key, service_token])
def test_what_is_replaced_belongs_to_whom_it_belonged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: Callable[[Path], Path]
) -> None:
    """Root types what the API's user reads; as another user than root, its own is all that can be given."""
    path, given = made(tmp_path), []
    if os.geteuid() == 0:
        os.chown(path, 4242, 4343)
    held = path.stat()
    give = os.fchown
    monkeypatch.setattr(os, "fchown", lambda fd, *to: (given.append(to), give(fd, *to)))
    if made is service_token:
        made(tmp_path)
    else:
        FileKeyStore(path).rotate(NOW)
    assert path.stat().st_ino != held.st_ino
    assert given == [(held.st_uid, held.st_gid)] == [(path.stat().st_uid, path.stat().st_gid)]
    assert path.stat().st_mode & 0o777 == 0o600


def test_what_belongs_to_another_is_replaced_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The API may change a file that root made, in a folder of its own."""
    (tmp_path / "policy.yaml").write_text("old")

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "fchown", refuse)
    put(new_beside(tmp_path / "policy.yaml", "new", mode=0o644), tmp_path / "policy.yaml")
    assert (tmp_path / "policy.yaml").read_text() == "new"
