"""What a rejoin makes of data that it finds, and of a database that takes its time."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from qnwis.agent import rejoin
from qnwis.agent.database import Facts
from qnwis.agent.effects import Node
from qnwis.agent.postgres import Postgres
from qnwis.continuity.membership import Peer


async def test_a_database_that_needs_longer_than_is_waited_is_no_failure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def silent() -> None:
        return None

    node: Any = SimpleNamespace(
        facts=silent, postgres=SimpleNamespace(running=True), receiving=SimpleNamespace(held_meanwhile=False)
    )
    upstream: Any = SimpleNamespace(node_id="n1")
    theirs: Any = None
    monkeypatch.setattr(rejoin, "STREAMING_WITHIN_S", 0.0)
    said = await rejoin._until_streaming(cast(Node, node), cast(Peer, upstream), cast(Facts, theirs))
    assert said.startswith("does not stream yet, ")


async def test_a_copy_that_was_never_started_is_not_left_to_recover_by_itself(tmp_path: Path) -> None:
    """Its control file says what the primary's said, that it was in production."""
    (tmp_path / "backup_label").touch()
    assert await rejoin._must_not_recover(cast(Postgres, SimpleNamespace(data_dir=tmp_path)))


async def test_copies_that_were_cut_off_are_removed_whichever_order_they_were_of(tmp_path: Path) -> None:
    data, killed, other = tmp_path / "data [1]", tmp_path / "data [1].fresh-a", tmp_path / "data [1].fresh-b"
    kept = [data, tmp_path / "data [1].before-rejoin-a", tmp_path / "data 1.fresh-a"]
    for folder in (killed, other, *kept):
        (folder / "base").mkdir(parents=True)
    with subprocess.Popen(["sleep", "600"], cwd=killed / "base") as copying:
        await rejoin._remove_copies(data)
        assert copying.wait() != 0
    assert sorted(tmp_path.iterdir()) == sorted(kept)
