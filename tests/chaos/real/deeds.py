"""Doing to the real lab what a story's operation says."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

from temporalio.service import RPCError

from qnwis.continuity.orders import RejoinOrder
from qnwis.continuity.rejoining import rejoin_order
from qnwis.continuity.run import FailoverRequest
from qnwis.lab import disks, faults
from qnwis.lab.clearing import NAMESERVER
from qnwis.lab.clocks import set_clock
from qnwis.lab.control_plane import WORKER, start_vantage, start_worker
from qnwis.lab.errors import LabError
from qnwis.lab.network import How
from qnwis.lab.parts import Part
from qnwis.lab.people import vote_of
from qnwis.lab.places import CLIENTS
from qnwis.lab.temporal_server import PROCESS_NAME as TEMPORAL
from qnwis.lab.temporal_server import obtain_cli, start_server
from qnwis.providers.errors import Refused, Unreachable
from qnwis.providers.evidence import collect_evidence
from qnwis.providers.nodes import HttpNodes
from qnwis.starting import pending_approval, start_failover, vote
from tests.chaos.parties import expand
from tests.chaos.story import ClockJump, Cut, Disk, Execute, Link, Operation, Place, Slow, Word
from workflows.guardian import Guardian
from workflows.guardian_state import PauseRequest, ResumeRequest
from workflows.names import failover_id

from .reading import serving
from .stage import Stage, host

PEOPLE_HEAR = (Refused, RPCError, TimeoutError, Unreachable)
"""What a person who asks is answered when it cannot be done; that may be part of the story."""
LOG_FILES_AHEAD = 40
"""More than a database of the lab has ahead of its need."""
REJOIN_WITHIN_S = 30.0
ASKED_WITHIN_S = 30.0
POLL_S = 0.2


async def do(stage: Stage, operation: Operation) -> None:
    """Raises LabError, or what the one who was asked raises, when it cannot be done."""
    await _DEEDS[operation.verb](stage, operation.what)


# --- Machines and processes ---------------------------------------------------------------------------------


def _is_node(party: str) -> bool:
    return party.startswith(("node-", "witness-"))


def _process(party: str) -> str:
    """Name of the process that is the party; the first vantage is the worker's."""
    return {"dns": NAMESERVER, "clients": CLIENTS, "temporal": TEMPORAL, "vantage-1": WORKER}.get(
        party, party
    )


def _each(stage: Stage, place: Place) -> list[str]:
    parties = expand([place.party], [node.node_id for node in stage.lab.cluster.nodes])
    return list(dict.fromkeys(party if _is_node(party) else _process(party) for party in parties))


async def _kill(stage: Stage, place: Place) -> None:
    for party in _each(stage, place):
        if _is_node(party):
            await asyncio.to_thread(faults.kill_part, stage.lab.machine(party), place.part)
        else:
            await asyncio.to_thread(stage.lab.processes.kill, party)


async def _start(stage: Stage, place: Place) -> None:
    """Of a node's parts only the agent is anybody's to start; it starts its guard and its database. One that
    runs is left alone: a composed story may start it twice."""
    lab, control = stage.lab, stage.control
    for party in _each(stage, place):
        if _is_node(party):
            agent = lab.machine(party).agent
            if agent is None or not agent.alive:
                await lab.start_node(party)
        elif (found := lab.processes.find(party)) is not None and found.alive:
            continue
        elif party == TEMPORAL:
            await start_temporal(stage)
        elif party == WORKER:
            await asyncio.to_thread(start_worker, lab, control.server)
        elif party == NAMESERVER:
            await asyncio.to_thread(lab.start_nameserver)
        else:
            await asyncio.to_thread(start_vantage, lab, control.server, party)


async def start_temporal(stage: Stage) -> None:
    """The server that was killed or stopped, on its database."""
    lab = stage.lab
    cli = await obtain_cli(lab.folder.cache, lambda line: None)
    database = lab.folder.run / "temporal.sqlite"
    await start_server(lab.processes, cli, block=lab.block, database=database)


def frozen_whole(stage: Stage, operation: Operation) -> list[str]:
    """The nodes of which the operation freezes or thaws everything: database, agent and guards together."""
    place = operation.what
    whole = isinstance(place, Place) and place.part is Part.ALL
    return [party for party in _each(stage, place) if _is_node(party)] if whole else []


async def _freeze(stage: Stage, place: Place) -> None:
    for party in _each(stage, place):
        if _is_node(party):
            await asyncio.to_thread(faults.freeze, stage.lab.machine(party), place.part)
        else:
            faults.freeze_process(stage.lab, party)


async def _thaw(stage: Stage, place: Place) -> None:
    for party in _each(stage, place):
        if _is_node(party):
            await asyncio.to_thread(faults.thaw, stage.lab.machine(party), place.part)
        else:
            faults.thaw_process(stage.lab, party)


# --- The network --------------------------------------------------------------------------------------------


def _links(stage: Stage, link: Link) -> list[tuple[str, str]]:
    nodes = tuple(node.node_id for node in stage.lab.cluster.nodes)
    pairs = [(host(sender), host(receiver)) for sender, receiver in link.directed(nodes)]
    return [(sender, receiver) for sender, receiver in dict.fromkeys(pairs) if sender != receiver]


async def _cut(stage: Stage, cut: Cut) -> None:
    await asyncio.to_thread(stage.network.cut, _links(stage, cut), How(cut.how))


async def _heal(stage: Stage, link: Link) -> None:
    await asyncio.to_thread(stage.network.heal, _links(stage, link))


async def _slow(stage: Stage, slow: Slow) -> None:
    await asyncio.to_thread(stage.network.slow, _links(stage, slow), round(slow.kbit_s))


async def _fast(stage: Stage, link: Link) -> None:
    await asyncio.to_thread(stage.network.fast, _links(stage, link))


# --- Disks, clocks, DNS -------------------------------------------------------------------------------------


async def _fill(stage: Stage, disk: Disk) -> None:
    machine = stage.lab.machine(disk.party)
    await asyncio.to_thread(disks.fill, machine.disk(disk.disk))
    if disk.disk == "wal":
        await _use_up_log_files(stage)


async def _use_up_log_files(stage: Stage) -> None:
    """Have the primary need another log file: at a lab's pace it writes for minutes in those it has."""
    state = await serving(stage.lab)
    if state is None:
        return
    with contextlib.suppress(LabError):  # that it ends in the middle is what full disks do
        for _ in range(LOG_FILES_AHEAD):
            await stage.lab.begin_log_file(state.node_id)


async def _free(stage: Stage, disk: Disk) -> None:
    await asyncio.to_thread(disks.free, stage.lab.machine(disk.party).disk(disk.disk))


async def _jump(stage: Stage, jump: ClockJump) -> None:
    set_clock(stage.clock(jump.party), jump.by_s)


async def _refuse(stage: Stage, party: str) -> None:
    faults.refuse_updates(stage.lab)


async def _take(stage: Stage, party: str) -> None:
    faults.take_updates(stage.lab)


# --- People -------------------------------------------------------------------------------------------------


async def _pause(stage: Stage, word: Word) -> None:
    request = PauseRequest(by=word.by, reason=word.reason)
    await stage.control.guardian.signal(Guardian.pause_failover, request)


async def _resume(stage: Stage, word: Word) -> None:
    request = ResumeRequest(by=word.by, reason=word.reason)
    await stage.control.guardian.signal(Guardian.resume_failover, request)


async def _execute(stage: Stage, word: Execute) -> None:
    request = FailoverRequest(
        cluster_id=stage.lab.cluster.cluster_id,
        initiated_by=word.by,
        reason=word.reason,
        even_if_healthy=word.even_if_healthy,
    )
    await start_failover(stage.control.client, request)


async def _approve(stage: Stage, word: Word) -> None:
    """As soon as a plan waits for votes."""
    client, cluster_id = stage.control.client, stage.lab.cluster.cluster_id
    lock = failover_id(cluster_id)
    async with asyncio.timeout(ASKED_WITHIN_S):
        while True:
            with contextlib.suppress(Refused):
                pending = await pending_approval(client, lock)
                break
            await asyncio.sleep(POLL_S)
    agreed = vote_of(stage.lab.folder, cluster_id, word.by, pending, word.reason)
    await vote(client, lock, agreed, approve=True)


async def _rejoin(stage: Stage, node_id: str) -> None:
    """A person's rejoin, tried until there is a primary that takes writes and the node's agent answers."""
    cluster = stage.lab.cluster
    by = f"person-{uuid.uuid4().hex[:12]}"
    async with asyncio.timeout(REJOIN_WITHIN_S), HttpNodes(stage.lab.certificates.transport) as nodes:
        while True:
            order = rejoin_order(cluster, await collect_evidence(nodes, cluster), node_id, by=by)
            if isinstance(order, RejoinOrder):
                with contextlib.suppress(Unreachable):
                    await nodes.order(cluster.node(node_id), order, timeout_s=REJOIN_WITHIN_S)
                    return
            await asyncio.sleep(POLL_S)


_DEEDS: dict[str, Callable[[Stage, Any], Awaitable[None]]] = {
    "kill": _kill,
    "start": _start,
    "freeze": _freeze,
    "thaw": _thaw,
    "cut": _cut,
    "heal": _heal,
    "slow": _slow,
    "fast": _fast,
    "fill_disk": _fill,
    "free_disk": _free,
    "jump_clock": _jump,
    "refuse_updates": _refuse,
    "take_updates": _take,
    "pause": _pause,
    "resume": _resume,
    "execute": _execute,
    "approve": _approve,
    "rejoin": _rejoin,
}

SLOW_VERBS = frozenset({"start", "execute", "approve", "rejoin", "pause", "resume"})
"""What waits for others to answer; the story goes on meanwhile."""
