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
from tests.chaos.facts import Facts, Thaw
from tests.chaos.parties import VANTAGES
from tests.chaos.story import Operation, Story

from .deeds import PEOPLE_HEAR, SLOW_VERBS, do, frozen_whole, start_temporal
from .reading import ended_runs, facts_of, rows_of, serving, watch_guardian
from .stage import Stage, staged

UNFINISHED_MAY_TAKE_S = 20.0
"""A run or a rejoin that goes on at the story's end is waited for: a busy machine is slower, not wrong."""
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
            runs = await _runs(stage, say)
        finally:
            watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watching
        writable = await _takes_writes(stage)
        await stage.lab.stop_clients()
        state = await serving(stage.lab)
        serves = None if state is None else state.node_id
        rows = None if serves is None else await rows_of(stage.lab, serves)
        history = by_time(e._replace(at_s=e.at_s - began_s) for e in stage.lab.history())
        facts = facts_of(
            story,
            stage.lab,
            history,
            runs=runs,
            held_by=held_by,
            thawed=thawed,
            serves=serves,
            writable=writable,
            rows=rows,
        )
        say("what happened is read")
        return Played(history, facts)


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
