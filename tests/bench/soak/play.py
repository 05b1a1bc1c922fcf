"""One cycle: the primary's node killed and failed over, brought back, and the service moved back to it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from temporalio.client import WorkflowHandle

from qnwis.agent.journal import Line
from qnwis.continuity.refusal import Refusal
from qnwis.continuity.rejoining import rejoin_order
from qnwis.continuity.run import RunResult
from qnwis.lab.acks import ack_log
from qnwis.lab.cluster import Lab
from qnwis.lab.control_plane import ControlPlane, next_run, watched
from qnwis.lab.errors import LabError
from qnwis.lab.maintenance_demo import move
from qnwis.lab.waiting import not_streaming, until_none
from qnwis.providers.errors import Refused, Unreachable
from qnwis.providers.evidence import collect_evidence
from qnwis.providers.nodes import HttpNodes
from workflows.names import failover_id

from . import rows
from .asking import Asking
from .cycles import Cycle, duration_ms, gaps_ms, unless_rewound, unverified
from .sampling import Sampler
from .violations import gone, violations

CLIENTS, PAUSE_MS, PINNED_PAUSE_MS = 4, 10.0, 50.0
"""Few enough writes a second that two cores are not busy with them."""
BEFORE_S, AFTER_S = 2.0, 2.0
"""How long clients are seen writing before a move, and after it."""
STARTS_WITHIN_S, ENDS_WITHIN_S, REJOINS_WITHIN_S = 60.0, 120.0, 60.0


@dataclass
class Soak:
    """On one lab, whose primary is the node that was made as such before each cycle and after it."""

    control: ControlPlane
    nodes: HttpNodes
    asking: Asking
    sampler: Sampler
    kept: int = 0
    """Rows that the database held after the cycle before."""
    newest_run: str | None = None
    """Under the cluster's lock, as of the cycle before."""

    async def cycle(self, number: int) -> Cycle:
        """Raises LabError where it does not come to its end: what the next one would begin with is not known
        then."""
        began, lab, home = time.monotonic(), self.control.lab, self.control.lab.primary.node_id
        first = time.time_ns() // 1000
        """As `qnwis.lab.clients` numbers its writes: all of this cycle are above it."""
        await self._start_writing()
        # As after more writes: else what PostgreSQL keeps of its log would not level off for hours.
        await lab.begin_log_file(home)
        await asyncio.sleep(BEFORE_S)

        killed_at, killed_s = time.time(), time.monotonic()
        await lab.kill_node(home)
        failover = await next_run(
            self.control.client,
            self.control.guardian,
            lab.cluster.cluster_id,
            within_s=STARTS_WITHIN_S,
            after=self.newest_run,
        )
        there = await self._followed(failover)
        wrong = unverified(there, "failover", old=home)
        await asyncio.sleep(AFTER_S)
        await lab.begin_log_file(there.new_primary or home)
        rejoin_ms, how = await self._bring_back(home)
        wrong += unless_rewound(how)

        moved_s = time.monotonic()
        back = await move(self.control, _silent, self._followed, target=home)
        self.newest_run = back.run_id
        switchover = self.control.client.get_workflow_handle(
            failover_id(lab.cluster.cluster_id), run_id=back.run_id
        )
        wrong += unverified(back, "switchover", old=there.new_primary or "", new=home)
        await asyncio.sleep(AFTER_S)
        await lab.stop_clients()
        await self._all_streaming()
        await self.asking.look(back.audit_id)

        history = await asyncio.to_thread(lab.history)
        held = await rows.since(lab, home, first)
        wrong += gone(await rows.before(lab, home, first), self.kept)
        self.kept += len(held)
        wrong += await asyncio.to_thread(lambda: violations(history, held, _journals(lab), primary=home))
        log = ack_log(history)
        gap, gap_back = gaps_ms(log, killed_s=killed_s, moved_s=moved_s, clients=CLIENTS)
        wrong += ["a client never wrote again after the failover"] if gap is None else []
        wrong += ["a client never wrote again after the switchover"] if gap_back is None else []
        return Cycle(
            number=number,
            failover_gap_ms=gap,
            switchover_gap_ms=gap_back,
            started_ms=1000 * (there.started_at.timestamp() - killed_at),
            failover_run_ms=duration_ms(there),
            switchover_run_ms=duration_ms(back),
            rejoin_ms=rejoin_ms,
            writes=len(log.acks),
            violations=tuple(wrong),
            readings=await self.sampler.sample(failover, switchover),
            took_ms=1000 * (time.monotonic() - began),
        )

    async def _start_writing(self) -> None:
        """New clients, each with a history of its own: that of the whole soak would not fit in memory."""
        lab = self.control.lab
        for node in lab.data_nodes:
            lab.folder.pinned_history(node.node_id).unlink(missing_ok=True)
        lab.start_pinned_clients(pause_ms=PINNED_PAUSE_MS)
        await lab.start_clients(CLIENTS, pause_ms=PAUSE_MS)

    async def _followed(self, run: WorkflowHandle[Any, RunResult]) -> RunResult:
        """Its end, with somebody who follows it through the API. Raises LabError where it comes too late."""
        run_id = run.run_id or run.result_run_id
        assert run_id is not None
        try:
            async with asyncio.timeout(ENDS_WITHIN_S):
                result, _ = await asyncio.gather(run.result(), self.asking.follow(run_id))
        except TimeoutError:
            raise LabError(f"run {run_id} has not ended within {ENDS_WITHIN_S:g} s") from None
        return result

    async def _bring_back(self, node_id: str) -> tuple[float, str]:
        """Start a killed node again and have it follow the present primary; how long that took, milliseconds,
        and what its agent says of it. Returns when the guardian sees every node healthy. Raises LabError."""
        began, lab = time.monotonic(), self.control.lab
        agent = await asyncio.to_thread(lab.machine(node_id).start)

        async def silent() -> str | None:
            return (await collect_evidence(self.nodes, lab.cluster)).of(node_id).error

        await until_none(silent, f"the agent of {node_id}", [agent])
        order = rejoin_order(
            lab.cluster, await collect_evidence(self.nodes, lab.cluster), node_id, by=f"soak-{time.time_ns()}"
        )
        if isinstance(order, Refusal):
            raise LabError(f"{node_id} cannot rejoin: {order}")
        try:
            receipt = await self.nodes.order(lab.cluster.node(node_id), order, timeout_s=REJOINS_WITHIN_S)
        except (Refused, Unreachable) as error:
            raise LabError(f"{node_id} did not rejoin: {error}") from error
        await self._all_streaming()
        took_ms = 1000 * (time.monotonic() - began)
        await watched(self.control.client, lab.cluster)
        return took_ms, receipt.detail

    async def _all_streaming(self) -> None:
        await until_none(lambda: not_streaming(self.nodes, self.control.lab.cluster), "the cluster", [])


def _journals(lab: Lab) -> Iterator[tuple[str, Line]]:
    for node in lab.cluster.nodes:
        journal = lab.machine(node.node_id).state_dir / "journal.jsonl"
        for line in journal.read_text().splitlines():
            yield node.node_id, Line.model_validate_json(line)


def _silent(_: str) -> None:
    """A soak says a line for each cycle, and nothing of what happens in one."""
