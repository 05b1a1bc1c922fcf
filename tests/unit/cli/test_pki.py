"""`pki`, as a person types it: what cannot be made leaves nothing behind, and what was cut off can go on."""

from __future__ import annotations

from errno import ENOSPC
from os import strerror
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from qnwis.cli.qnwis_continuity import app
from qnwis.continuity.allowlist import Allowlist
from qnwis.pki.authority import AUTHORITY_KEY, issued
from qnwis.tls.files import AUTHORITY, OWN, read_allowlist


class Desk:
    """A person with an authority's folder, an allowlist and topologies."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pki, self.allowlist = folder / "pki", folder / "allowlist.yaml"

    def types(self, *arguments: str) -> tuple[int, str]:
        """Exit code and what is printed; an error that is no message of the command's own is raised."""
        environment = {
            "COLUMNS": "400",
            "NO_COLOR": "1",
            "QNWIS_PKI_DIR": str(self.pki),
            "QNWIS_ALLOWLIST": str(self.allowlist),
        }
        done = CliRunner().invoke(app, ["pki", *arguments], env=environment)
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return done.exit_code, done.output

    def makes(self, *arguments: str) -> None:
        code, printed = self.types(*arguments)
        assert code == 0, printed

    def enrolls(self, cluster_id: str, node_id: str, host: str = "10.0.0.1") -> tuple[int, str]:
        node = {"node_id": node_id, "hostname": host, "role": "primary", "region": "here", "site": "s"}
        node |= {"status": "healthy", "endpoint": f"https://{host}:8443"}
        data = {"cluster_id": cluster_id, "name": "c", "regions": ["here"], "nodes": [node]}
        topology = self.folder / "cluster.yaml"
        topology.write_text(yaml.safe_dump(data))
        return self.types("node", node_id, "--cluster", str(topology))

    @property
    def listed(self) -> Allowlist:
        return read_allowlist(self.allowlist)

    @property
    def worker(self) -> Path:
        return self.pki / "identities" / "clients" / "worker"

    @property
    def following(self) -> Path:
        return self.worker.with_name("worker.next")


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    made = Desk(tmp_path)
    made.makes("init", "--organization", "Example")
    return made


def made_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--country", "Germany"], "country is 'Germany'; expected its code of two letters"),
        (["--country", "ü"], "expected its code of two letters"),
        (["--organization", "x" * 55], "has 65 bytes; expected 1 to 64"),
    ],
)
def test_an_authority_of_a_name_that_no_certificate_has_is_not_begun(
    tmp_path: Path, options: list[str], told: str
) -> None:
    desk = Desk(tmp_path)
    code, printed = desk.types("init", *options)
    assert code == 2 and told in printed
    assert not desk.pki.exists()


@pytest.mark.parametrize("written", [b"", b"-----BEGIN CERT"], ids=["nothing", "a part"])
def test_an_authority_that_cannot_be_written_whole_is_not_in_the_way_of_the_next_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: bytes
) -> None:
    desk, write = Desk(tmp_path), Path.write_bytes

    def full(path: Path, content: bytes) -> int:
        if path.name == AUTHORITY:
            write(path, written)
            raise OSError(ENOSPC, strerror(ENOSPC), str(path))
        return write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        code, printed = desk.types("init", "--organization", "Example")
    assert code == 2 and f"{AUTHORITY}: cannot be written (No space left" in printed
    assert made_in(tmp_path) == []
    desk.makes("init", "--organization", "Example")
    desk.makes("client", "worker")


def test_of_a_key_without_its_certificate_it_is_said_what_to_do(desk: Desk) -> None:
    kept = (desk.pki / AUTHORITY).read_bytes()
    (desk.pki / AUTHORITY).unlink()
    key = desk.pki / AUTHORITY_KEY
    for arguments in (["init"], ["client", "worker"]):
        code, printed = desk.types(*arguments)
        assert code == 2 and f"remove {key}" in printed and f"copy {AUTHORITY}" in printed, printed
    key.unlink()
    desk.makes("init")
    assert (desk.pki / AUTHORITY).read_bytes() != kept


def test_the_certificate_of_an_authority_whose_key_is_kept_elsewhere_is_not_replaced(desk: Desk) -> None:
    own = desk.pki / AUTHORITY
    before = own.read_bytes()
    (desk.pki / AUTHORITY_KEY).rename(desk.folder / "kept.pem")
    code, printed = desk.types("init")
    assert code == 2 and f"{own}: exists" in printed and own.read_bytes() == before


def test_a_node_whose_name_is_too_long_is_told_how_long_it_may_be(desk: Desk) -> None:
    code, printed = desk.enrolls("c" * 40, "n" * 40)
    assert code == 2 and "has 81 bytes; expected 1 to 64" in printed
    assert not desk.allowlist.exists() and not (desk.pki / "identities").exists()
    assert desk.enrolls("c" * 40, "n" * 23)[0] == 0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["client", "worker", "--days", "9999999"], "9999999 days from now there is no date"),
        (["client", "what worker"], "found 'what worker'"),
    ],
)
def test_what_cannot_be_made_leaves_nothing(desk: Desk, arguments: list[str], told: str) -> None:
    before = made_in(desk.folder)
    code, printed = desk.types(*arguments)
    assert code == 2 and told in printed
    assert made_in(desk.folder) == before


def test_a_host_that_no_certificate_holds_is_named(desk: Desk) -> None:
    code, printed = desk.enrolls("c", "a", "dätabase")
    assert code == 2 and "dätabase: is no name of a host that a certificate holds" in printed


def test_an_identity_that_cannot_be_listed_is_not_kept_and_can_be_made_again(desk: Desk) -> None:
    desk.allowlist.write_text("allowed_clients: {}")
    for code, printed in (desk.types("client", "worker"), desk.enrolls("c", "a")):
        assert code == 2 and "allowed_clients" in printed
    assert OWN not in made_in(desk.pki)
    desk.allowlist.unlink()
    desk.makes("client", "worker")
    assert desk.enrolls("c", "a")[0] == 0
    assert issued(desk.worker).fingerprint == desk.listed.allowed_clients[0].fingerprint


def test_an_allowlist_that_cannot_be_written_is_named_and_the_identity_is_not_kept(desk: Desk) -> None:
    desk.allowlist = desk.pki / AUTHORITY / "allowlist.yaml"  # below a file
    code, printed = desk.types("client", "worker")
    assert code == 2 and "allowlist.yaml: cannot be changed" in printed
    assert OWN not in made_in(desk.pki)


def test_an_identity_that_cannot_be_written_whole_is_not_kept(desk: Desk) -> None:
    (desk.worker / AUTHORITY).mkdir(parents=True)
    code, printed = desk.types("client", "worker")
    assert code == 2 and "cannot be written" in printed and OWN not in made_in(desk.pki)
    (desk.worker / AUTHORITY).rmdir()
    desk.makes("client", "worker")


def test_a_rotation_that_cannot_be_listed_is_begun_again(desk: Desk) -> None:
    desk.makes("client", "worker")
    good = desk.allowlist.read_text()
    desk.allowlist.write_text("allowed_clients: {}")
    assert desk.types("rotate", str(desk.worker))[0] == 2
    desk.allowlist.write_text(good)
    other = Desk(desk.folder / "other")
    other.folder.mkdir()
    other.makes("init", "--organization", "Other")
    code, printed = desk.types("rotate", str(desk.worker), "--pki", str(other.pki))
    assert code == 2 and "remove it and make it anew instead" in printed
    assert not desk.following.exists()
    for step in ([], ["--install"], ["--finish"]):
        desk.makes("rotate", str(desk.worker), *step)


def test_what_is_in_the_way_is_told_with_the_way_out(desk: Desk) -> None:
    desk.makes("client", "worker")
    code, printed = desk.types("client", "worker")
    assert code == 2 and "what it does not list, remove, and make it anew" in printed
    desk.makes("rotate", str(desk.worker))
    code, printed = desk.types("rotate", str(desk.worker))
    assert code == 2 and "`pki rotate --install` goes on with it" in printed
    desk.makes("revoke", str(desk.worker))
    code, printed = desk.types("rotate", str(desk.worker))
    assert code == 2 and f"does not list {desk.worker} (" in printed and "remove that folder" in printed


def test_a_new_certificate_that_nobody_lists_is_told_of_and_removed(desk: Desk) -> None:
    """As after a kill between making and listing it."""
    desk.makes("client", "worker")
    good = desk.allowlist.read_text()
    desk.makes("rotate", str(desk.worker))
    desk.allowlist.write_text(good)
    for step in ([], ["--install"]):
        code, printed = desk.types("rotate", str(desk.worker), *step)
        assert code == 2 and "remove that folder" in printed
        assert f"does not list {desk.following} (" in printed


def test_something_else_in_the_new_folder_is_no_hindrance(desk: Desk) -> None:
    desk.makes("client", "worker")
    for _ in range(2):
        desk.makes("rotate", str(desk.worker))
        (desk.following / "notes.txt").write_text("for node-1")
        desk.makes("rotate", str(desk.worker), "--install")
        desk.makes("rotate", str(desk.worker), "--finish")
        (entry,) = desk.listed.allowed_clients
        assert entry.fingerprints == (issued(desk.worker).fingerprint,)
        assert made_in(desk.following) == ["notes.txt"]


def test_an_install_that_was_cut_off_before_the_files_were_put_in_place_is_done_again(desk: Desk) -> None:
    desk.makes("client", "worker")
    old = issued(desk.worker).fingerprint
    desk.makes("rotate", str(desk.worker))
    new = issued(desk.following).fingerprint
    kept = (desk.worker / AUTHORITY).read_bytes()
    (desk.worker / AUTHORITY).unlink()
    (desk.worker / AUTHORITY).mkdir()  # no file can be put in its place
    code, printed = desk.types("rotate", str(desk.worker), "--install")
    assert code == 2 and "cannot be written" in printed
    assert issued(desk.worker).fingerprint == old
    assert set(desk.listed.allowed_clients[0].fingerprints) == {old, new}, "whatever its owner shows"
    (desk.worker / AUTHORITY).rmdir()
    desk.makes("rotate", str(desk.worker), "--install")
    assert issued(desk.worker).fingerprint == new and (desk.worker / AUTHORITY).read_bytes() == kept
    desk.makes("rotate", str(desk.worker), "--finish")
    assert desk.listed.allowed_clients[0].fingerprints == (new,)
