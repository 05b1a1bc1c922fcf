"""A story from its first second to the facts about its last."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass
from pathlib import Path

from temporalio.service import RPCError

from qnwis.continuity.run import RunResult
from qnwis.lab.control_plane import WORKER
from qnwis.lab.history import History, Kind, by_time
from qnwis.lab.temporal_server import PROCESS_NAME as TEMPORAL
from qnwis.lab.temporal_server import Say
from tests.chaos.checker import broken_promises
from tests.chaos.facts import Facts, Thaw
from tests.chaos.parties import VANTAGES
from tests.chaos.story import Operation, Story

from .deeds import PEOPLE_HEAR, SLOW_VERBS, do, frozen_whole, start_temporal
from .reading import ended_runs, facts_of, rows_of, serving, watch_guardian
from .stage import Stage, staged

UNFINISHED_MAY_TAKE_S = 20.0
"""A run or a rejoin that goes on at the story's end is waited for: a busy machine is slower, not wrong."""
LATE_MAY_TAKE_S = 60.0
"""For so long what the story says of its end is awaited. What must never happen is judged all the while."""
WRITE_WITHIN_S = 3.0
"""After the story's end, a service that takes writes acknowledges one within this."""


@dataclass(frozen=True)
class Played:
    history: History
    """Its times count from the story's beginning."""
    facts: Facts


async def play(story: Story, root: Path, say: Say, *, agent_module: str = "qnwis.agent") -> Played:
    """Play the story on a lab made in the folder. Raises LabError when the lab does not start."""
    async with staged(story, root, say, agent_module=agent_module) as stage:
        say("the story begins")
        began_s = time.monotonic()
        held_by: list[str] = []
        watching = asyncio.ensure_future(watch_guardian(stage, held_by, say))
        try:
            thawed = await _perform(stage, story, began_s, say)
            say("the story is over")
            told = Told(stage, story, began_s, held_by, thawed)
            played = await told.as_it_ends(say)
        finally:
            watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watching
        await stage.lab.stop_clients()
        serves = await _who_serves(stage)
        rows = None if serves is None else await rows_of(stage.lab, serves)
        facts = played.facts.model_copy(update={"rows": rows})
        say("what happened is read")
        return Played(told.history(), facts)


@dataclass(frozen=True)
class Told:
    """A story whose last operation is done."""

    stage: Stage
    story: Story
    began_s: float
    held_by: list[str]
    thawed: list[Thaw]

    async def as_it_ends(self, say: Say) -> Played:
        """What is read at the end: once it is as the story says, or when that has had time enough."""
        deadline = time.monotonic() + LATE_MAY_TAKE_S
        while True:
            runs = await _runs(self.stage, say)
            writable = await _takes_writes(self.stage)
            history = self.history()
            facts = facts_of(
                self.story,
                self.stage.lab,
                history,
                runs=runs,
                held_by=self.held_by,
                thawed=self.thawed,
                serves=await _who_serves(self.stage),
                writable=writable,
                rows=None,
            )
            broken = broken_promises(self.story.must_hold, history, facts)
            if not broken or time.monotonic() > deadline:
                return Played(history, facts)
            say(f"not yet: {'; '.join(map(str, broken))}")
            await asyncio.sleep(1.0)

    def history(self) -> History:
        """So far, its times counted from the story's beginning."""
        return by_time(e._replace(at_s=e.at_s - self.began_s) for e in self.stage.lab.history())


async def _who_serves(stage: Stage) -> str | None:
    state = await serving(stage.lab)
    return None if state is None else state.node_id


async def _perform(stage: Stage, story: Story, began_s: float, say: Say) -> list[Thaw]:
    """Every operation at its time, until the story's end; which machines went on after they were frozen."""
    pending: list[tuple[Operation, asyncio.Future[None]]] = []
    frozen: set[str] = set()
    thawed: list[Thaw] = []
    late_s = 0.0
    for operation in story.operations:
        await asyncio.sleep(max(0.0, began_s + operation.at_s + late_s - time.monotonic()))
        if operation.once_rejoined is not None:
            await asyncio.wait([d for o, d in pending if o.rejoin == operation.once_rejoined])
            late_s = max(late_s, time.monotonic() - began_s - operation.at_s)
        if operation.verb == "freeze":
            frozen.update(frozen_whole(stage, operation))
        elif operation.verb == "thaw":
            at_s = time.monotonic() - began_s
            again = frozen.intersection(frozen_whole(stage, operation))
            thawed += [Thaw(node_id=node_id, at_s=at_s) for node_id in sorted(again)]
            frozen -= again
        deed = asyncio.ensure_future(_done(stage, operation, began_s, say))
        if operation.verb in SLOW_VERBS:
            pending.append((operation, deed))
        else:
            await deed
    await asyncio.sleep(max(0.0, began_s + story.ends_at_s + late_s - time.monotonic()))
    if rejoining := [deed for operation, deed in pending if operation.rejoin is not None]:
        await asyncio.wait(rejoining, timeout=UNFINISHED_MAY_TAKE_S)
    for _, deed in pending:
        deed.cancel()
    for ended in await asyncio.gather(*(deed for _, deed in pending), return_exceptions=True):
        if isinstance(ended, Exception):
            raise ended
    return thawed


async def _done(stage: Stage, operation: Operation, began_s: float, say: Say) -> None:
    what = f"at {time.monotonic() - began_s:.2f} s: {operation.verb} {operation.what}"
    say(what)
    try:
        await do(stage, operation)
    except PEOPLE_HEAR as error:
        say(f"{what}: {error}")


async def _runs(stage: Stage, say: Say) -> list[RunResult]:
    """The runs that ended. A Temporal server that is down is started to tell, when nobody can act on it."""
    temporal = stage.lab.processes.find(TEMPORAL)
    if temporal is None or not temporal.alive:
        for name in (WORKER, *VANTAGES):
            if stage.lab.processes.find(name) is not None:
                await asyncio.to_thread(stage.lab.processes.kill, name)
        await start_temporal(stage)
    deadline = time.monotonic() + UNFINISHED_MAY_TAKE_S
    while True:
        try:
            runs, still_open = await ended_runs(stage)
        except RPCError as error:
            runs, still_open = [], True
            say(f"Temporal does not tell of the runs: {error}")
        if not still_open or time.monotonic() > deadline:
            return runs
        await asyncio.sleep(0.2)


async def _takes_writes(stage: Stage) -> bool:
    """Whether a write through the service's name, invoked from now on, is acknowledged."""
    now_s = time.monotonic()
    while time.monotonic() < now_s + WRITE_WITHIN_S:
        history = stage.lab.history()
        invoked = {e.write for e in history if e.kind is Kind.INVOKED and e.at_s > now_s and not e.pinned}
        if any(e.kind is Kind.ACKNOWLEDGED and e.write in invoked for e in history):
            return True
        await asyncio.sleep(0.2)
    return False
