"""Waiting for the lab's parts to be ready, with their own words when they are not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from qnwis.continuity.topology import Cluster, Node
from qnwis.providers.errors import Refused, Unreachable
from qnwis.providers.nodes import HttpNodes

from .errors import LabError
from .processes import Started, last_lines


async def not_streaming(nodes: HttpNodes, cluster: Cluster) -> str | None:
    """What is missing until one primary takes writes and every other data node streams; None when nothing
    is. Of an active/active cluster that is asked of each region."""
    if cluster.is_active_active:
        missing = [await not_streaming(nodes, group) for group in cluster.lease_groups]
        return next((why for why in missing if why is not None), None)
    return await _group_not_streaming(nodes, cluster)


async def silent(nodes: HttpNodes, node: Node) -> str | None:
    """Why the node's agent does not answer; None when it does."""
    return (await nodes.probe(node, "/health/live", timeout_s=1.0)).error


async def _group_not_streaming(nodes: HttpNodes, cluster: Cluster) -> str | None:
    try:
        states = await asyncio.gather(*(nodes.state(node, timeout_s=1.0) for node in cluster.nodes))
    except (Unreachable, Refused) as error:
        return str(error)
    holders = {node.node_id for node in cluster.nodes if node.holds_data}
    primaries = [state for state in states if state.writable]
    if len(primaries) != 1:
        return f"writable: {[state.node_id for state in primaries]}"
    (primary,) = primaries
    streaming = {s.application_name for s in primary.standbys if s.state == "streaming"}
    missing = holders - {primary.node_id} - streaming
    if missing:
        return f"{primary.node_id} does not stream to {sorted(missing)}"
    idle = [s.node_id for s in states if s.node_id in holders - {primary.node_id} and not s.streaming]
    return f"{idle[0]}: not streaming" if idle else None


async def until_none(
    missing: Callable[[], Awaitable[str | None]],
    what: str,
    processes: list[Started],
    *,
    timeout_s: float = 60.0,
    more_logs: list[Path] | None = None,
    pause_s: float = 0.02,
) -> None:
    """Ask until nothing is missing. Raises LabError with the reason and the logs when one of the processes
    has ended or the time is up."""
    deadline = time.monotonic() + timeout_s
    while (reason := await missing()) is not None:
        ended = [p.name for p in processes if not p.alive]
        if ended or time.monotonic() > deadline:
            why = f"{', '.join(ended)} ended" if ended else f"not ready within {timeout_s:g} s"
            logs = [p.log for p in processes if not ended or p.name in ended] + (more_logs or [])
            ends = "\n".join(f"{log} ends:\n{last_lines(log)}" for log in logs)
            raise LabError(f"{what}: {why} ({reason})\n{ends}")
        await asyncio.sleep(pause_s)
