"""`builds`: which builds of this program workers run, and which of them begins what begins next."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer
from rich.table import Table

from qnwis.builds import DEPLOYMENT, Build, builds_of, make_current
from qnwis.temporal import connect

from .output import AsJson, clear_errors, out, print_json
from .settings import Address

app = typer.Typer(
    help="Upgrade workers while runs go on: each run ends on the build it began on.", no_args_is_help=True
)

Deployment = Annotated[str, typer.Option(help="Deployment of the workers.", show_default=True)]


@app.command(name="list")
def list_builds(
    deployment: Deployment = DEPLOYMENT, address: Address = None, as_json: AsJson = False
) -> None:
    """Every build that workers were seen with. The workers of one that is drained can be stopped."""

    async def look() -> tuple[Build, ...]:
        return await builds_of(await connect(address), deployment)

    with clear_errors(as_json=as_json):
        found = asyncio.run(look())
    if as_json:
        print_json({"builds": [build.model_dump(mode="json") for build in found]})
        return
    if not found:
        out.print(f"no worker of {deployment} said which build it runs; see `worker --build`", markup=False)
        return
    table = Table("build", "status", "since", box=None, pad_edge=False)
    for build in found:
        table.add_row(build.build, build.status, f"{build.since:%Y-%m-%d %H:%M} UTC")
    out.print(table)


@app.command()
def current(
    build: Annotated[str, typer.Argument(help="As workers name it by --build.")],
    deployment: Deployment = DEPLOYMENT,
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Let what begins from now on be of this build; guardians go over to it, runs under way do not."""

    async def change() -> None:
        await make_current(await connect(address), build, deployment)

    with clear_errors(as_json=as_json):
        asyncio.run(change())
    if as_json:
        print_json({"deployment": deployment, "current": build})
    else:
        out.print(f"{build} is the current build of {deployment}", markup=False)
