"""The lab on which a run and the script take turns."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from qnwis.config.registry import Registry
from qnwis.continuity.run import FailoverRequest, Maintenance
from qnwis.lab.cluster import Lab
from qnwis.lab.control_plane import ControlPlane
from qnwis.lab.errors import LabError
from qnwis.lab.shape import Shape
from qnwis.lab.waiting import not_streaming, until_none
from qnwis.providers.all_nodes import AllNodes
from qnwis.providers.audit_place import audit_store_of
from qnwis.providers.bundles import FOLDER, Bundles
from qnwis.providers.channels import channel_notifier
from qnwis.providers.dns_by_holder import DnsByHolder
from qnwis.providers.fencing import HookByMaker, PowerHook
from qnwis.providers.key_store import FileKeyStore
from qnwis.providers.nodes import HttpNodes
from qnwis.starting import say_to_guardian, start_maintenance
from workers.wiring import Providers
from workflows.guardian_state import PauseRequest

from .figures import Round
from .script import Script
from .timeline import Doing, Ran, attributed, ran

PERSON = "bob"
SHAPE = Shape(policy={"approvals": False}, power_switch=False)
"""Nobody is asked: how long people take is no overhead of anything."""
PAIR = ("node-1", "node-2")
"""Between them the service goes to and fro."""
SETTLED_S = 2.0
"""After each move: what the guardian and the databases have to do then is no part of the next."""


@dataclass(frozen=True)
class Bed:
    control: ControlPlane
    providers: Providers
    nodes: HttpNodes

    async def round(self, number: int) -> Round:
        """The service goes there by one and back by the other; each of them has every second way there.
        Raises LabError for a move that was not verified, or calls that differ."""
        there, back = PAIR[1], PAIR[0]
        if number % 2:
            run_ms, by_run = await self.by_run(there)
            script_ms, calls = await self.by_script(back)
        else:
            script_ms, calls = await self.by_script(there)
            run_ms, by_run = await self.by_run(back)
        if list(by_run.calls) != calls:
            raise LabError(f"the script called {calls}, the run {list(by_run.calls)}")
        doing = {d: 1000 * s for d, s in attributed(by_run.spans, by_run.begin_s, by_run.end_s).items()}
        doing[Doing.CLIENT] = run_ms - 1000 * (by_run.end_s - by_run.begin_s)
        return Round(
            run_ms=run_ms, script_ms=script_ms, doing=doing, calls=len(calls), attempts=by_run.attempts
        )

    async def by_run(self, target: str) -> tuple[float, Ran]:
        """How long it took, milliseconds, and its history."""
        began = time.perf_counter()
        handle = await start_maintenance(self.control.client, self._request(target))
        result = await handle.result()
        took_ms = 1000 * (time.perf_counter() - began)
        if not result.verified:
            raise LabError(f"the run ended {result.outcome}: {result.reason}")
        history = await handle.fetch_history()
        await self._settled()
        return took_ms, ran(history.events)

    async def by_script(self, target: str) -> tuple[float, list[str]]:
        """How long it took, milliseconds, and what it called."""
        script = Script(self.providers)
        took_s = await script.switch_over(self._request(target))
        await self._settled()
        return 1000 * took_s, script.calls

    def _request(self, target: str) -> FailoverRequest:
        return FailoverRequest(
            cluster_id=self.control.lab.cluster.cluster_id,
            initiated_by=PERSON,
            reason="to measure the overhead of a run",
            maintenance=Maintenance(target_node_id=target),
        )

    async def _settled(self) -> None:
        cluster = self.control.lab.cluster
        await until_none(lambda: not_streaming(self.nodes, cluster), "the cluster", [])
        await asyncio.sleep(SETTLED_S)


@asynccontextmanager
async def made(directory: Path) -> AsyncIterator[Bed]:
    """A new lab with its control plane. Raises LabError."""
    lab = await Lab.create(directory, shape=SHAPE)
    try:
        control = await ControlPlane.start(lab, lambda _: None)
        # The script holds no lock: a guardian that sees the old primary end would fail over.
        pause = PauseRequest(by=PERSON, reason="a script moves the service")
        await say_to_guardian(control.client, lab.cluster.cluster_id, "pause", pause)
        transport = lab.certificates.transport
        async with AllNodes(transport) as nodes, HttpNodes(transport) as looking:
            yield Bed(control, _providers(lab, nodes), looking)
    finally:
        await lab.stop()


def _providers(lab: Lab, nodes: AllNodes) -> Providers:
    """Of the script: as a worker has them, with an audit trail of its own."""
    state = lab.folder.run / "script"
    state.mkdir()
    audit = audit_store_of(state, os.environ)
    return Providers(
        registry=Registry(lab.folder.config),
        nodes=nodes,
        dns=DnsByHolder(),
        hook=HookByMaker(PowerHook(lab.certificates.transport)),
        audit=audit,
        bundles=Bundles(audit, FileKeyStore(state / "audit-keys.json"), state / FOLDER),
        notifier=channel_notifier(lab.folder.config, state),
    )
