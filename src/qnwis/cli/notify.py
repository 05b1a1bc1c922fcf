"""`notify`: try the channels by which runs tell people."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from qnwis.config.notifications import FILE, load_channels
from qnwis.config.problem import ConfigError, Problem
from qnwis.continuity.notifications import Channel, Delivery, Notification, RunEvent, Told
from qnwis.providers.apprise_send import apprise_send
from qnwis.providers.notifier import send_through

from .output import AsJson, Exit, clear_errors, err, out, print_json
from .people import default_name
from .settings import ConfigDir

app = typer.Typer(help="Try the channels of notifications.yaml.", no_args_is_help=True)


@app.callback()
def channels() -> None:
    """Try the channels of notifications.yaml."""


@app.command()
def test(
    config_dir: ConfigDir,
    channel: Annotated[
        str | None, typer.Option(help="Only this one.", show_default="every channel of the file")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Send a test message through each channel, from this machine and with its environment, whatever events
    and clusters the channel wants. Exit code 0 says that every one was delivered."""
    with clear_errors(as_json=as_json):
        path = config_dir / FILE
        found = load_channels(path).channels
        chosen = [one for one in found if channel in (None, one.name)]
        if not chosen:
            names = ", ".join(one.name for one in found)
            expected = f"one of the channels there: {names}" if names else "a channel"
            raise ConfigError([Problem(path, None, None, "channels", channel or "none", expected)])
    told = asyncio.run(_send(chosen, config_dir))
    if as_json:
        print_json(told)
    else:
        for delivery in told.deliveries:
            console = out if delivery.delivered else err
            what = "delivered" if delivery.delivered else f"failed: {delivery.reason}"
            console.print(f"{delivery.channel}: {what}", markup=False)
    raise typer.Exit(Exit.NOT_DONE if told.failures else Exit.OK)


async def _send(chosen: list[Channel], config_dir: ConfigDir) -> Told:
    notification = Notification(
        cluster_id="none",
        run_id="test",
        event=RunEvent.STARTED,
        title="test of QNWIS Continuity",
        text=f"sent by {default_name()}; nothing has happened",
    )
    sending = (send_through(one, notification, config_dir, apprise_send) for one in chosen)
    deliveries: list[Delivery] = await asyncio.gather(*sending)
    return Told(deliveries=tuple(deliveries))
