"""`guardian`: start, look at, pause and resume the guardian of a cluster, and acknowledge its runs."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Annotated, Any, TypeVar

import typer
from temporalio.client import WorkflowFailureError
from temporalio.service import RPCError

from qnwis.continuity.access import Deed
from qnwis.continuity.tokens import PersonRequest
from qnwis.guardians import LOOK_WITHIN, begun, cluster_view
from qnwis.starting import say_to_guardian, start_guardian
from qnwis.temporal import connect
from workflows.guardian_state import (
    AcknowledgeRequest,
    GuardianView,
    PauseRequest,
    ResumeRequest,
)
from workflows.guardian_words import in_words, primary_in_words
from workflows.names import guardian_id

from .output import AsJson, Exit, clear_errors, fail, out, print_json
from .settings import Address
from .speaking import Speaker, spoken
from .steering import Reason

app = typer.Typer(
    help="Start, look at, pause and resume the guardian of a cluster, acknowledge its runs.",
    no_args_is_help=True,
)

ClusterId = Annotated[str, typer.Argument(help="cluster_id of a registered cluster.")]
T = TypeVar("T")


@app.command()
def start(cluster_id: ClusterId, address: Address = None) -> None:
    """Start the guardian, and see it begin; one that runs already is left as it is. Exit code 2 says that it
    has ended at once, and why."""
    name = guardian_id(cluster_id)
    with clear_errors():
        try:
            seen = asyncio.run(_start(cluster_id, address))
        except WorkflowFailureError as error:
            fail(Exit.USAGE, f"{name} has ended: {error.cause.__cause__ or error.cause}")
    if seen is None:
        out.print(f"{name} is started, and no worker has taken it up yet", markup=False)
    elif not _watches(seen):
        out.print(f"{name} is started, and still looks around in {cluster_id}", markup=False)
    else:
        out.print(f"{name} watches {cluster_id}", markup=False)


async def _start(cluster_id: str, address: str | None) -> GuardianView | None:
    client = await connect(address)
    guardian = await start_guardian(client, cluster_id)
    return await begun(guardian, lambda: cluster_view(client, cluster_id, within=LOOK_WITHIN), _watches)


def _watches(seen: GuardianView) -> bool:
    """It knows its cluster, and has judged every node for the first time."""
    return bool(seen.verdicts)


@app.command()
def view(cluster_id: ClusterId, address: Address = None, as_json: AsJson = False) -> None:
    """What the guardian knows, and why it does or does not act."""

    async def ask() -> GuardianView:
        return await cluster_view(await connect(address), cluster_id)

    seen = _done(ask(), cluster_id, as_json=as_json)
    if as_json:
        print_json(seen)
        return
    out.print(primary_in_words(seen), markup=False)
    for line in in_words(seen):
        out.print(f"  {line}", markup=False)
    if seen.pause is not None:
        out.print(f"paused by {seen.pause.by}: {seen.pause.reason}", markup=False)
    if seen.holding is not None:
        out.print(f"not acting: {seen.holding}", markup=False)


@app.command()
@spoken
def pause(cluster_id: ClusterId, reason: Reason, speaker: Speaker) -> None:
    """Switch automatic failover off. Runs that go on are not touched."""
    request = PauseRequest(by=speaker.name, reason=reason)
    _say(Deed.PAUSE, cluster_id, request, speaker, f"automatic failover of {cluster_id} is paused")


@app.command()
@spoken
def resume(cluster_id: ClusterId, reason: Reason, speaker: Speaker) -> None:
    """Switch automatic failover on again."""
    request = ResumeRequest(by=speaker.name, reason=reason)
    _say(Deed.RESUME, cluster_id, request, speaker, f"automatic failover of {cluster_id} is on")


@app.command()
@spoken
def acknowledge(
    cluster_id: ClusterId,
    run_id: Annotated[str, typer.Option(help="The run that was looked at; `view --json` lists them.")],
    reason: Reason,
    speaker: Speaker,
) -> None:
    """Let a run that ended hold no further failover back: its cooldown ends now."""
    request = AcknowledgeRequest(run_id=run_id, by=speaker.name, reason=reason)
    said = f"run {run_id} of {cluster_id} is acknowledged by {speaker.name}"
    _say(Deed.ACKNOWLEDGE, cluster_id, request, speaker, said)


def _say(deed: Deed, cluster_id: str, request: PersonRequest, speaker: Speaker, said: str) -> None:
    """Sign it, and send it or print it. The guardian's update is named as the deed is."""
    signed = speaker.me.signed(deed, request, cluster_id=cluster_id)
    if speaker.only_print:
        print_json(signed)
        return

    async def send() -> None:
        await say_to_guardian(await connect(speaker.address), cluster_id, deed.value, signed)

    _done(send(), cluster_id, as_json=speaker.as_json)
    if speaker.as_json:
        print_json(signed)
    else:
        out.print(said, markup=False)


def _done(work: Coroutine[Any, Any, T], cluster_id: str, *, as_json: bool) -> T:
    with clear_errors(as_json=as_json):
        try:
            return asyncio.run(work)
        except RPCError as error:
            fail(Exit.UNREACHABLE, f"{guardian_id(cluster_id)} does not answer: {error.message}")
