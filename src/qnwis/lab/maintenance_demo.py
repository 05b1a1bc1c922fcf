"""The demonstration of planned maintenance: writers on, the service moved to another node, nothing lost."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from pathlib import Path

from qnwis.continuity.access import Deed
from qnwis.continuity.model import Model
from qnwis.continuity.run import FailoverRequest, Maintenance, RunResult
from qnwis.providers.errors import Refused
from qnwis.starting import RunHandle, pending_approval, start_maintenance, vote
from workflows.names import failover_id

from .acks import WriteReport, analyse
from .cluster import Lab
from .control_plane import ControlPlane
from .demonstration import WRITE_BEFORE_S, Follow, on_a_new_lab, start_writing
from .errors import LabError
from .people import token_of, vote_of
from .temporal_server import Say

ASKED_WITHIN_S = 30.0


class MaintenanceReport(Model):
    """What the demonstration measured. Times in milliseconds."""

    verified: bool
    """The run was verified, writes went on, and none acknowledged was lost."""
    approved_by: str
    writes: WriteReport
    result: RunResult
    ui_url: str | None


async def run_maintenance_demo(
    directory: Path | None, *, pg_bin: Path | None, clients: int, keep: bool, say: Say, follow: Follow
) -> MaintenanceReport:
    """The whole demonstration on a new lab, which is stopped afterwards unless `keep` and all went well."""
    return await on_a_new_lab(
        directory,
        partial(play_maintenance, clients=clients, say=say, follow=follow),
        pg_bin=pg_bin,
        keep=keep,
        say=say,
    )


async def play_maintenance(
    control: ControlPlane, *, clients: int, say: Say, follow: Follow
) -> MaintenanceReport:
    """Move the service under a write load, as bob asks and ann agrees."""
    lab = control.lab
    await start_writing(lab, clients, say)

    began = time.monotonic()
    result = await move(control, say, follow)
    await asyncio.sleep(WRITE_BEFORE_S)
    await lab.stop_clients()

    rows = await lab.rows(result.new_primary or lab.primary.node_id)
    writes = analyse(lab.ack_log(), rows, since=began)
    return MaintenanceReport(
        verified=result.verified and writes.first_ack_after_ms is not None and not writes.lost,
        approved_by="ann",
        writes=writes,
        result=result,
        ui_url=control.run_url(result.run_id),
    )


async def move(control: ControlPlane, say: Say, follow: Follow, *, target: str | None = None) -> RunResult:
    """Planned maintenance of the primary's node: bob asks for it, ann agrees. `target`: who takes over, else
    the planner's choice."""
    handle = await start_maintenance(control.client, _signed_request(control.lab, "bob", target))
    say("bob has started planned maintenance; it waits for an approval")
    result, _ = await asyncio.gather(follow(handle), _approve(control, handle, "ann", say))
    return result


def _signed_request(lab: Lab, person: str, target: str | None) -> FailoverRequest:
    request = FailoverRequest(
        cluster_id=lab.cluster.cluster_id,
        initiated_by=person,
        reason="the host of the primary gets a new kernel",
        maintenance=Maintenance(target_node_id=target),
    )
    token = token_of(
        lab.folder,
        lab.cluster.cluster_id,
        person,
        Deed.START,
        digest=request.digest,
        reason=request.reason,
    )
    return request.model_copy(update={"token": token})


async def _approve(control: ControlPlane, handle: RunHandle, person: str, say: Say) -> None:
    """Vote for the plan as soon as it waits; a run that ended without asking needs no vote. Raises LabError
    when it asks for none in time."""
    lab, cluster_id = control.lab, control.lab.cluster.cluster_id
    deadline = time.monotonic() + ASKED_WITHIN_S
    while time.monotonic() < deadline:
        try:
            pending = await pending_approval(control.client, failover_id(cluster_id))
        except Refused:
            await asyncio.sleep(0.05)
            if (await handle.describe()).close_time is not None:
                return
            continue
        agreed = vote_of(lab.folder, cluster_id, person, pending, "agreed")
        await vote(control.client, failover_id(cluster_id), agreed, approve=True)
        say(f"{person} approves {pending.window.digest}")
        return
    raise LabError(f"the run asked for no approval within {ASKED_WITHIN_S:g} s")
