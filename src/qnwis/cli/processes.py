"""`worker` and `agent`: the long-running processes."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from qnwis.builds import DEPLOYMENT
from qnwis.logs import log_to_stderr
from qnwis.metrics.serving import MetricsAddress
from qnwis.tracing.asked import TracingError
from workers.run import run_worker
from workers.settings import WorkerSettings

from .output import clear_errors
from .settings import Address, ConfigDir, OptionalStateDir, state_dir_of


def worker(
    config_dir: ConfigDir,
    state_dir: OptionalStateDir = None,
    vantage: Annotated[
        list[str] | None,
        typer.Option(
            envvar="QNWIS_VANTAGE",
            help="Place to probe from; may be repeated. One that is named default, if none is given.",
            show_default=False,
        ),
    ] = None,
    vantages_only: Annotated[
        bool, typer.Option("--vantages-only", help="Serve only the named vantages: no runbooks, no state.")
    ] = False,
    address: Address = None,
    build: Annotated[
        str | None,
        typer.Option(
            envvar="QNWIS_BUILD",
            help="Build of this program: a run ends on the build it began on (see `builds`).",
        ),
    ] = None,
    deployment: Annotated[
        str, typer.Option(help="Name that workers of all builds share.", show_default=True)
    ] = DEPLOYMENT,
    metrics: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Serve /metrics for Prometheus there.")
    ] = None,
    sdk_metrics: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="The same of the Temporal SDK's own metrics.")
    ] = None,
) -> None:
    """Run a worker: runbooks, and the watches of the named vantages."""
    if vantages_only and not vantage:
        raise typer.BadParameter("--vantages-only needs at least one --vantage")
    if not vantages_only and (state_dir := state_dir_of(state_dir)) is None:
        raise typer.BadParameter("--state-dir (QNWIS_STATE_DIR) is needed by a worker that runs runbooks")
    log_to_stderr()
    settings = WorkerSettings(
        config_dir=config_dir,
        state_dir=state_dir,
        vantages=tuple(vantage or ("default",)),
        vantages_only=vantages_only,
        address=address,
        build=build,
        deployment=deployment,
        metrics=metrics,
        sdk_metrics=sdk_metrics,
    )
    with clear_errors():
        try:
            asyncio.run(run_worker(settings))
        except (MetricsAddress, TracingError) as error:
            raise typer.BadParameter(str(error)) from error


def agent(
    config: Annotated[Path, typer.Option(help="The node's agent.yaml.")],
    new_cluster: Annotated[
        bool, typer.Option("--new-cluster", help="Make it a first member of a new cluster, once, and end.")
    ] = False,
) -> None:
    """Run the node agent beside this machine's database."""
    from qnwis.agent.__main__ import run_from  # the agent's process loads no more than it needs

    raise typer.Exit(run_from(config, new_cluster=new_cluster))
