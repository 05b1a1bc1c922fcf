"""A file that is kept as it was read: read again when it is another one, and never while that is in doubt."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from qnwis.config.kept import SETTLED_S, Kept
from qnwis.config.problem import ConfigError
from qnwis.config.registry import Registry
from tests.integration.continuity.world import three_nodes, write_registry


class Reader:
    def __init__(self) -> None:
        self.reads = 0

    def __call__(self, path: Path) -> str:
        self.reads += 1
        return path.read_text()


def settle(path: Path, ago_s: float = 10 * SETTLED_S) -> None:
    at = time.time() - ago_s
    os.utime(path, (at, at))


def test_a_file_is_read_once_and_again_after_an_edit(tmp_path: Path) -> None:
    file, reader = tmp_path / "file", Reader()
    kept = Kept(reader)
    file.write_text("one")
    settle(file)
    assert [kept(file), kept(file)] == ["one", "one"] and reader.reads == 1
    file.write_text("two")  # of the same length
    settle(file, ago_s=5 * SETTLED_S)
    assert kept(file) == "two" and reader.reads == 2


def test_a_file_of_another_inode_is_another_file_whatever_its_time(tmp_path: Path) -> None:
    file, beside, reader = tmp_path / "file", tmp_path / "beside", Reader()
    kept = Kept(reader)
    for path, text in ((file, "one"), (beside, "two")):
        path.write_text(text)
        os.utime(path, (1e9, 1e9))
    assert kept(file) == "one"
    beside.rename(file)
    assert kept(file) == "two"


def test_a_file_that_was_just_written_is_read_each_time(tmp_path: Path) -> None:
    file, reader = tmp_path / "file", Reader()
    kept = Kept(reader)
    file.write_text("one")
    assert [kept(file), kept(file)] == ["one", "one"] and reader.reads == 2


def test_what_cannot_be_read_is_not_kept(tmp_path: Path) -> None:
    file, reader = tmp_path / "file", Reader()
    kept = Kept(reader)
    with pytest.raises(FileNotFoundError):
        kept(file)
    file.write_text("one")
    settle(file)
    assert kept(file) == "one"
    file.unlink()
    with pytest.raises(FileNotFoundError):
        kept(file)


def test_an_edited_topology_counts_from_the_next_load_on(tmp_path: Path) -> None:
    write_registry(tmp_path, three_nodes("kept"))
    registry = Registry(tmp_path)
    cluster_id = registry.cluster_ids()[0]
    folder = next(tmp_path.rglob("cluster.yaml")).parent
    for name in ("cluster.yaml", "policy.yaml"):
        settle(folder / name)
    before = registry.load(cluster_id)
    assert registry.load(cluster_id).cluster is before.cluster, "a file that is the same is not read again"
    text = (folder / "cluster.yaml").read_text()
    (folder / "cluster.yaml").write_text(text.replace("\nname: kept", "\nname: another name"))
    assert registry.load(cluster_id).cluster.name == "another name"
    (folder / "cluster.yaml").write_text("no: topology")
    with pytest.raises(ConfigError):
        registry.load(cluster_id)


@pytest.mark.parametrize("cluster_id", ["", ".", "..", "../clusters", "a/b"])
def test_an_id_is_no_path(tmp_path: Path, cluster_id: str) -> None:
    write_registry(tmp_path, three_nodes("kept"))
    with pytest.raises(ConfigError, match="one of the clusters here"):
        Registry(tmp_path).load(cluster_id)
