"""`pki`: an authority, identities for agents and for who asks them, and the allowlist that names them."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from qnwis.config.load import load_cluster
from qnwis.pki.authority import DAYS, Authority, Issued, issued
from qnwis.pki.identities import (
    begin,
    enroll_client,
    enroll_node,
    finish,
    install,
    of_client,
    of_node,
    strike_off,
)
from qnwis.tls.files import OWN

from .output import AsJson, Exit, clear_errors, fail, out, print_json

app = typer.Typer(
    help="Make, replace and revoke the certificates of agents and of who asks them.", no_args_is_help=True
)

PkiDir = Annotated[
    Path, typer.Option("--pki", envvar="QNWIS_PKI_DIR", help="The authority's folder; keep it to yourself.")
]
AllowlistFile = Annotated[
    Path,
    typer.Option("--allowlist", envvar="QNWIS_ALLOWLIST", help="allowlist.yaml; made where there is none."),
]
Days = Annotated[int, typer.Option(min=1, help="How long a certificate counts.")]
Identity = Annotated[Path, typer.Argument(help="The identity's folder, as `pki list` shows it.")]


@app.command()
def init(
    pki: PkiDir,
    organization: Annotated[str, typer.Option(help="O of every name.")] = "QNWIS",
    country: Annotated[str | None, typer.Option(help="C of every name, two letters.")] = None,
) -> None:
    """Make the authority."""
    with clear_errors():
        Authority.make(pki, organization=organization, country=country)
    out.print(f"the authority is in {pki}; its key signs identities and belongs on no node", markup=False)


@app.command()
def node(
    node_ids: Annotated[list[str], typer.Argument(metavar="NODE_ID...", help="Nodes of the topology.")],
    pki: PkiDir,
    cluster: Annotated[Path, typer.Option(help="Topology, cluster.yaml.")],
    allowlist: AllowlistFile,
    days: Days = DAYS,
    as_json: AsJson = False,
) -> None:
    """Make the identities of nodes' agents, and list them."""
    made = {}
    with clear_errors(as_json=as_json):
        topology, authority = load_cluster(cluster), Authority(pki)
        known = [one.node_id for one in topology.nodes]
        if unknown := [one for one in node_ids if one not in known]:
            fail(Exit.USAGE, f"{cluster}: no node {', '.join(unknown)}; expected some of {', '.join(known)}")
        for node_id in node_ids:
            identity = of_node(authority, topology.cluster_id, node_id)
            made[str(identity)] = enroll_node(
                authority, topology, topology.node(node_id), allowlist, days=days
            )
    _tell(made, allowlist, as_json=as_json)


@app.command()
def client(
    name: Annotated[str, typer.Argument(help="A worker, a vantage, the API or a person.")],
    pki: PkiDir,
    allowlist: AllowlistFile,
    days: Days = DAYS,
    as_json: AsJson = False,
) -> None:
    """Make the identity of somebody who asks agents, and list it."""
    with clear_errors(as_json=as_json):
        authority = Authority(pki)
        made = {str(of_client(authority, name)): enroll_client(authority, name, allowlist, days=days)}
    _tell(made, allowlist, as_json=as_json)


@app.command()
def rotate(
    identity: Identity,
    pki: PkiDir,
    allowlist: AllowlistFile,
    step_install: Annotated[
        bool, typer.Option("--install", help="Second step: put the new files in place.")
    ] = False,
    step_finish: Annotated[
        bool, typer.Option("--finish", help="Third step: the old certificate counts no more.")
    ] = False,
    days: Days = DAYS,
    as_json: AsJson = False,
) -> None:
    """Replace an identity without an outage: begin, then --install, then --finish.

    After each step bring the allowlist to every agent and everybody who asks agents; after --install the
    identity's folder to its owner. Each heeds changed files by itself.
    """
    with clear_errors(as_json=as_json):
        if step_install and step_finish:
            fail(
                Exit.USAGE,
                "--install and --finish are steps of their own; bring the files along between them",
            )
        if step_install:
            now = install(identity, allowlist)
        elif step_finish:
            now = finish(identity, allowlist)
        else:
            now = begin(Authority(pki), identity, allowlist, days=days)
    _tell({str(identity): now}, allowlist, as_json=as_json)


@app.command()
def revoke(identity: Identity, allowlist: AllowlistFile, as_json: AsJson = False) -> None:
    """Strike an identity off the allowlist: from then on nobody heeds whoever shows it."""
    with clear_errors(as_json=as_json):
        gone = strike_off(identity, allowlist)
    _tell({str(identity): gone}, allowlist, as_json=as_json)


@app.command(name="list")
def list_identities(pki: PkiDir, as_json: AsJson = False) -> None:
    """Every identity that was made here, and until when it counts."""
    with clear_errors(as_json=as_json):
        found = {str(path.parent): issued(path.parent) for path in sorted(pki.glob(f"identities/*/*/{OWN}"))}
    if as_json:
        print_json(_data(found))
        return
    table = Table("identity", "name", "until", "fingerprint", box=None, pad_edge=False)
    for identity, one in found.items():
        days = (one.not_after - datetime.now(UTC)).days
        until = f"{one.not_after:%Y-%m-%d} ({days} days)"
        table.add_row(identity, one.certificate_dn, until, one.fingerprint[:23] + "…")
    out.print(table)


def _tell(made: dict[str, Issued], allowlist: Path, *, as_json: bool) -> None:
    if as_json:
        print_json(_data(made))
        return
    for identity, one in made.items():
        until = f"{one.not_after:%Y-%m-%d}"
        out.print(f"{identity}: {one.certificate_dn}, {one.fingerprint}, until {until}", markup=False)
    out.print(f"{allowlist} is changed: bring it to every agent and everybody who asks them", markup=False)


def _data(made: dict[str, Issued]) -> dict[str, dict[str, str]]:
    return {
        identity: {
            "fingerprint": one.fingerprint,
            "certificate_dn": one.certificate_dn,
            "not_after": one.not_after.isoformat(),
        }
        for identity, one in made.items()
    }
