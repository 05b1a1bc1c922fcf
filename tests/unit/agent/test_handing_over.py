"""A hand-over: what is got ready while the database ends, and from when on it is left down."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from qnwis.agent import hand_over as handing_over
from qnwis.agent.effects import Done, Node
from qnwis.agent.hand_over import hand_over
from qnwis.agent.postgres import Postgres
from qnwis.agent.programs import Control, run_program
from qnwis.continuity.orders import DemotionToken, HandOverOrder

ORDER = HandOverOrder(effect_id="hand-over", run_id="run", epoch=5, return_after_s=8)
ENDED = Control(state="shut down", checkpoint=DemotionToken(timeline=1, lsn=7), segment_bytes=1 << 24)


class Ending:
    """A primary that ends when the test lets it; its deadline as if that had taken `took_s`."""

    def __init__(self, took_s: float) -> None:
        self.standby, self.running, self.took_s = False, True, took_s
        self.told, self.end = asyncio.Event(), asyncio.Event()
        self.began: list[float] = []
        self.left_s = 0.0

    async def stop(self) -> None:
        self.told.set()
        await self.end.wait()
        self.running = False
        self.left_s -= self.took_s

    def begin(self, for_s: float) -> None:
        self.began.append(for_s)
        self.left_s = for_s

    @property
    def node(self) -> Node:
        return cast(
            Node,
            SimpleNamespace(
                node_id="own",
                postgres=self,
                handed_over=self,
                leases=SimpleNamespace(epoch=5, sought=5),
                give_up=lambda: not self.running,
            ),
        )


@pytest.mark.parametrize(("took_s", "began"), [(0.1, [8.0]), (3.0, [8.0, 8.0])])
async def test_who_takes_over_has_the_whole_time_from_the_end_of_the_database_on(
    monkeypatch: pytest.MonkeyPatch, took_s: float, began: list[float]
) -> None:
    async def read(_: object, *, after: asyncio.Future[None]) -> Control:
        await after
        return ENDED

    monkeypatch.setattr(handing_over, "read_control", read)
    primary = Ending(took_s)
    effect = await hand_over(primary.node, ORDER)
    assert callable(effect)
    carrying_out = asyncio.ensure_future(effect())
    await primary.told.wait()
    assert not carrying_out.done(), "the lease is not given up while the database still ends"
    primary.end.set()
    done = await carrying_out
    assert isinstance(done, Done) and done.token == ENDED.checkpoint
    assert primary.began == began


def programs(folder: Path) -> Postgres:
    """Of which each program is `cat`."""
    return cast(Postgres, SimpleNamespace(program=lambda _: Path("/bin/cat"), environment=dict, owner=None))


async def test_a_program_that_is_started_before_its_time_works_only_then(
    tmp_path: Path,
) -> None:
    file = tmp_path / "control"
    file.write_text("before")

    async def written() -> None:
        await asyncio.sleep(0)
        file.write_text("after")

    ran = await run_program(
        programs(tmp_path), "pg_controldata", (str(file),), working_in=tmp_path, after=written()
    )
    assert ran == (0, "after")


async def test_a_program_whose_time_never_comes_is_ended(tmp_path: Path) -> None:
    async def fails() -> None:
        raise OSError("processes remain")

    with pytest.raises(OSError, match="processes remain"):
        await run_program(programs(tmp_path), "pg_controldata", ("none",), working_in=tmp_path, after=fails())
