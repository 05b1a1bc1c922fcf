"""Where a lab lives: addresses that no other lab takes, a directory that is ours, secrets that are secret."""

from __future__ import annotations

import socket
import stat
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from qnwis.lab.control_plane import scraped_at
from qnwis.lab.errors import LabError
from qnwis.lab.layout import (
    AGENT_PORT,
    DNS_PORT,
    Folder,
    claimed_block,
    prepare_directory,
    write_secret,
)
from qnwis.lab.shape import VANTAGES
from qnwis.lab.state import AnotherVersionError, read_state


def test_labs_that_start_at_once_get_different_blocks() -> None:
    with claimed_block(nodes=3) as one, claimed_block(nodes=3) as other:
        assert one.number != other.number
        assert not set(one.listeners(3)) & set(other.listeners(3))
        assert IPv4Address(one.node(2)) in one.network


def test_every_worker_has_an_address_of_its_own_for_metrics() -> None:
    with claimed_block(nodes=3) as block:
        hosts_and_ports = [address.split(":") for address in scraped_at(block)]
        assert len({host for host, _ in hosts_and_ports}) == len(VANTAGES)
        assert {(host, int(port)) for host, port in hosts_and_ports} < set(block.listeners(3))


@pytest.mark.parametrize("taken", ["nameserver", "third agent"])
def test_a_block_with_one_address_in_use_is_passed_over(taken: str) -> None:
    with claimed_block(nodes=3) as free:
        address = (free.nameserver, DNS_PORT) if taken == "nameserver" else (free.node(2), AGENT_PORT)
    with socket.create_server(address), claimed_block(nodes=3) as block:
        assert block.number != free.number


def test_the_directory_may_be_entered_but_not_listed_by_others(tmp_path: Path) -> None:
    path = prepare_directory(tmp_path / "a" / "lab")
    assert stat.S_IMODE(path.stat().st_mode) == 0o711
    path.chmod(0o777)
    assert stat.S_IMODE(prepare_directory(path).stat().st_mode) == 0o711


def test_a_link_or_a_file_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "file").touch()
    for name in ("link", "file"):
        with pytest.raises(LabError, match=f"lab directory .*{name}"):
            prepare_directory(tmp_path / name)


def test_a_directory_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qnwis.lab.layout.os.geteuid", lambda: 4242)
    with pytest.raises(LabError, match="expected a directory of user id 4242"):
        prepare_directory(tmp_path)


def test_a_secret_is_its_owners_alone_and_never_overwritten(tmp_path: Path) -> None:
    path = write_secret(tmp_path / "secret", "s3cret")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(FileExistsError):
        write_secret(path, "other")


def test_a_lab_of_another_version_is_told_and_not_misread(tmp_path: Path) -> None:
    Folder(tmp_path).state_file.write_text('{"block": 3, "cluster_id": "lab-3"}')
    with pytest.raises(AnotherVersionError, match="was made by another version"):
        read_state(Folder(tmp_path))
