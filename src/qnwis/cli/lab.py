"""`lab`: a real cluster on this machine, to try and to test: PostgreSQL, agents, DNS, Temporal, guardian."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.table import Table

from qnwis.continuity.run import RunResult
from qnwis.lab.acks import WriteReport
from qnwis.lab.active_demo import ActiveReport
from qnwis.lab.cluster import Lab
from qnwis.lab.container_demo import ContainerReport, run_container_demo
from qnwis.lab.control_plane import ControlPlane, scraped_at
from qnwis.lab.demo import DemoReport, run_demo
from qnwis.lab.errors import LabError
from qnwis.lab.maintenance_demo import MaintenanceReport, run_maintenance_demo
from qnwis.lab.region_demo import RegionDemoReport, run_region_demo
from qnwis.lab.shape import Shape

from .output import AsJson, Exit, err, fail, out, print_json
from .watching import follow, follow_on_terminal

app = typer.Typer(help="A real cluster on this machine, to try and to test.", no_args_is_help=True)

Directory = Annotated[
    Path | None, typer.Option(help="The lab's directory; by default one below /var/tmp.", show_default=False)
]
Asynchronous = Annotated[
    bool, typer.Option("--asynchronous", help="Commit without waiting for a standby; losses are possible.")
]
PgBin = Annotated[
    Path | None,
    typer.Option(help="Another PostgreSQL's bin folder, instead of the wheel's.", show_default=False),
]
NodeId = Annotated[str, typer.Argument(help="node-1, node-2 or node-3.")]
T = TypeVar("T")


@app.command()
def demo(
    directory: Directory = None,
    asynchronous: Asynchronous = False,
    pg_bin: PgBin = None,
    clients: Annotated[int, typer.Option(min=1, help="Writing clients.")] = 4,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the lab running afterwards.")] = False,
    as_json: AsJson = False,
) -> None:
    """Kill a primary under a write load and watch the failover; exit code 0 only if it was verified."""
    report = _run(
        run_demo(
            directory,
            asynchronous=asynchronous,
            pg_bin=pg_bin,
            clients=clients,
            keep=keep,
            say=_say,
            follow=follow if as_json else follow_on_terminal,
        )
    )
    if as_json:
        print_json(report)
    else:
        _show(report)
        if keep:
            _show_kept(directory)
    raise typer.Exit(Exit.OK if report.verified else Exit.NOT_DONE)


@app.command(name="demo-maintenance")
def demo_maintenance(
    clients: Annotated[int, typer.Option(min=1, help="Clients that write.")] = 4,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the lab running.")] = False,
    directory: Directory = None,
    pg_bin: PgBin = None,
    as_json: AsJson = False,
) -> None:
    """Move the service to another node under a write load; exits 0 only if verified and nothing was lost."""
    report = _run(
        run_maintenance_demo(
            directory,
            pg_bin=pg_bin,
            clients=clients,
            keep=keep,
            say=_say,
            follow=follow if as_json else follow_on_terminal,
        )
    )
    if as_json:
        print_json(report)
    else:
        _show_maintenance(report)
        if keep:
            _show_kept(directory)
    raise typer.Exit(Exit.OK if report.verified else Exit.NOT_DONE)


@app.command(name="demo-region")
def demo_region(directory: Directory = None, pg_bin: PgBin = None, as_json: AsJson = False) -> None:
    """Lose a region under a write load, have four clusters leave it and come back, one of them active/active;
    exits 0 only if verified and nothing was lost."""
    report = _run(run_region_demo(directory, pg_bin=pg_bin, say=_say))
    if as_json:
        print_json(report)
    else:
        _show_region(report)
    raise typer.Exit(Exit.OK if report.verified else Exit.NOT_DONE)


@app.command(name="demo-containers")
def demo_containers(
    file: Annotated[Path, typer.Option(help="The project's docker-compose.yml.")] = Path(
        "docker-compose.yml"
    ),
    project: Annotated[str, typer.Option(help="Name of the compose project.")] = "qnwis-demo",
    clients: Annotated[int, typer.Option(min=1, help="Clients that write.")] = 4,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the containers running.")] = False,
    as_json: AsJson = False,
) -> None:
    """In containers: kill the primary's under a write load, then again and the worker that carries out the
    failover too; exits 0 only if both were verified and nothing was lost."""
    report = _run(
        run_container_demo(
            file,
            project,
            clients=clients,
            keep=keep,
            say=_say,
            follow=follow if as_json else follow_on_terminal,
            show=None if as_json else _show,
        )
    )
    if as_json:
        print_json(report)
    else:
        _show_containers(report)
    raise typer.Exit(Exit.OK if report.verified else Exit.NOT_DONE)


@app.command()
def start(directory: Directory = None, asynchronous: Asynchronous = False, pg_bin: PgBin = None) -> None:
    """Start a lab with its control plane, and leave it running."""

    async def begin() -> None:
        lab = await Lab.create(directory, shape=Shape(asynchronous=asynchronous), pg_bin=pg_bin)
        try:
            await ControlPlane.start(lab, _say)
            lab.keep()
        except BaseException:
            await lab.stop()
            raise

    _run(begin())
    _show_kept(directory)


@app.command()
def stop(directory: Directory = None) -> None:
    """Stop every process of the lab. Its files stay until the next lab is made there."""
    with _lab_errors():
        lab = Lab.open(directory)
        asyncio.run(lab.stop())
    out.print(f"the lab in {lab.folder.root} is stopped", markup=False)


@app.command()
def kill(node_id: NodeId, directory: Directory = None) -> None:
    """SIGKILL a node: its agent and every process of its database."""
    with _lab_errors():
        killed = asyncio.run(_open(directory, node_id).kill_node(node_id))
    out.print(f"{node_id}: {killed} processes killed", markup=False)


@app.command()
def restore(node_id: NodeId, directory: Directory = None) -> None:
    """Give a node its power back and start its agent, which decides whether its database may start. Ends when
    the agent answers."""
    with _lab_errors():
        changed = asyncio.run(_open(directory, node_id).restore_node(node_id))
    out.print(f"{node_id}: {'started' if changed else 'was running'}", markup=False)


@app.command()
def clients(
    directory: Directory = None,
    count: Annotated[int, typer.Option(min=0, help="How many; 0 stops them.")] = 4,
) -> None:
    """Start clients that write through the service's DNS name, as applications would."""
    with _lab_errors():
        lab = _running(directory)
        asyncio.run(lab.start_clients(count) if count else lab.stop_clients())
    out.print(f"{count} clients write to {lab.folder.history}", markup=False)


@app.command()
def env(directory: Directory = None) -> None:
    """Print the settings under which the other commands speak of this lab: `eval "$(… lab env)"`."""
    with _lab_errors():
        for name, value in _settings(Lab.open(directory)).items():
            print(f"export {name}={value}")


def _running(directory: Path | None) -> Lab:
    lab = Lab.open(directory)
    if lab.stopped:
        raise LabError(
            f"nothing of the lab in {lab.folder.root} runs any more; start a new one with"
            " `qnwis-continuity lab start`"
        )
    return lab


def _open(directory: Path | None, node_id: str) -> Lab:
    lab = _running(directory)
    known = [node.node_id for node in lab.cluster.nodes]
    if node_id not in known:
        raise LabError(f"no node {node_id!r} in this lab; expected one of {', '.join(known)}")
    return lab


def _settings(lab: Lab) -> dict[str, str]:
    return {
        "TEMPORAL_ADDRESS": lab.state().temporal_address or "",
        "QNWIS_CONFIG_DIR": str(lab.folder.config),
        "QNWIS_STATE_DIR": str(lab.folder.audit),
        "QNWIS_KEY": str(lab.folder.key("bob")),
        **lab.certificates.environment(),
    }


def _say(line: str) -> None:
    err.print(f"· {line}", markup=False, style="dim")


def _run(work: Coroutine[Any, Any, T]) -> T:
    """Run to the end; Ctrl-C and SIGTERM cancel, so that what was started is stopped."""

    async def cancellable() -> T:
        task = asyncio.ensure_future(work)
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        return await task

    with _lab_errors():
        try:
            return asyncio.run(cancellable())
        except asyncio.CancelledError:
            fail(Exit.INTERRUPTED, "interrupted; the lab is stopped")


@contextlib.contextmanager
def _lab_errors() -> Iterator[None]:
    try:
        yield
    except LabError as error:
        fail(Exit.NOT_DONE, str(error))


def _show(report: DemoReport) -> None:
    """The summary for people."""
    result, writes = report.result, report.writes
    rows = [
        ("outcome", f"{result.outcome.value}: {result.reason}"),
        ("time to detect", _seconds(report.detect_ms)),
        ("time to promote", _seconds(report.promote_ms)),
        ("writes acknowledged again", _seconds(report.writes_back_ms)),
        ("write gap (longest of any client)", _seconds(writes.gap_ms)),
        ("acknowledged writes", f"{writes.acked}, lost {len(writes.lost)}, unknown {writes.unknown}"),
        ("primary", f"{result.old_primary} → {result.new_primary}, epoch {result.epoch}"),
        ("DNS", f"{', '.join(report.dns_before)} → {', '.join(report.dns_after)}"),
        *_proof(result),
        ("Temporal UI", report.ui_url or "the UI of the server at TEMPORAL_ADDRESS"),
    ]
    _show_rows(rows, result, writes, good=report.verified)


def _show_containers(report: ContainerReport) -> None:
    """What both failovers came to."""
    rows = [
        ("killed during the second run", f"{report.killed_worker}, while it did {report.killed_in}"),
        ("went on with it", ", ".join(report.went_on) or "nobody"),
        ("both failovers", f"{report.acked} writes acknowledged, lost {len(report.lost)}"),
    ]
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in rows:
        table.add_row(name, value)
    out.print()
    out.print(table)
    lost = f"{len(report.lost) or 'no'} acknowledged writes lost"
    verdict = f"{'both verified' if report.verified else 'NOT both verified'}, {lost}"
    out.print(verdict, style="bold green" if report.verified else "bold red")
    for line in report.kept:
        out.print(line, markup=False)


def _show_maintenance(report: MaintenanceReport) -> None:
    """The summary for people."""
    result, writes = report.result, report.writes
    rows = [
        ("outcome", f"{result.outcome.value}: {result.reason}"),
        ("approved by", report.approved_by),
        ("write gap (longest of any client)", _seconds(writes.gap_ms)),
        ("acknowledged writes", f"{writes.acked}, lost {len(writes.lost)}, unknown {writes.unknown}"),
        ("primary", f"{result.old_primary} → {result.new_primary}, epoch {result.epoch}"),
        *_proof(result),
        ("Temporal UI", report.ui_url or "the UI of the server at TEMPORAL_ADDRESS"),
    ]
    _show_rows(rows, result, writes, good=report.verified)


def _show_region(report: RegionDemoReport) -> None:
    """The summary for people."""
    for result in (report.out, report.back):
        if result is None:
            continue
        good = "bold green" if result.verified else "bold red"
        out.print()
        out.print(f"{result.outcome.value}: {result.reason}", style=good, markup=False)
        for one in result.moved:
            out.print(f"  {one.cluster_id}: {one.became}: {one.reason}", markup=False)
    table = Table("cluster", "acknowledged", "lost", "unknown", "gap in all", "gap on the way back", box=None)
    for cluster in report.clusters:
        writes = cluster.writes
        table.add_row(
            cluster.cluster_id,
            str(writes.acked),
            str(len(writes.lost)),
            str(writes.unknown),
            _seconds(writes.gap_ms),
            _seconds(cluster.gap_back_ms),
        )
    if report.active is not None:
        writes = report.active.writes
        numbers = (str(writes.acked), str(len(writes.lost)), str(writes.unknown), _seconds(writes.gap_ms))
        table.add_row(report.active.cluster_id, *numbers, "none: weights")
    out.print()
    out.print(table)
    if report.active is not None:
        _show_active(report.active)
    lost = sum(
        len(cluster.writes.lost) for cluster in (*report.clusters, report.active) if cluster is not None
    )
    verdict = f"{'verified' if report.verified else 'NOT verified'}, {lost or 'no'} acknowledged writes lost"
    out.print(verdict, style="bold green" if report.verified else "bold red")


SHOWN_CONFLICTS = 3


def _show_active(active: ActiveReport) -> None:
    """What an active/active cluster has besides: regions, which wrote apart."""
    name, not_yet, writes = active.cluster_id, active.not_yet, active.writes
    shares = ", ".join(f"{node_id} {count}" for node_id, count in sorted(writes.per_server.items()))
    timelines = ", ".join(f"{number} in {region}" for region, number in active.timelines_after.items())
    rows = [
        ("acknowledged by", shares),
        (
            "not yet replicated while away",
            f"{not_yet.writes} writes, {not_yet.unsent_bytes} bytes of log ({not_yet.allowed_bytes} allowed);"
            f" missing anywhere at the end: {len(writes.lost)}",
        ),
        ("rows that differ between regions", str(active.differing_rows)),
        ("promoted", ("SOMETHING" if active.promoted else "nothing") + "; timeline " + timelines),
        ("conflicts found and resolved", str(len(active.conflicts))),
        *(("", one.told()) for one in active.conflicts[-SHOWN_CONFLICTS:]),
    ]
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column()
    table.add_column(overflow="fold")
    for label, value in rows:
        table.add_row(label, value)
    out.print()
    out.print(f"{name}, active/active:", markup=False)
    out.print(table)


def _proof(result: RunResult) -> Iterator[tuple[str, str]]:
    """What proves how it went."""
    if result.fencing is not None:
        yield "fencing evidence", f"{result.fencing.type.value}: {result.fencing.detail}"
    if result.verification is not None:
        checks, confidence = result.verification.checks, result.verification.confidence
        yield "verification", f"{sum(c.ok for c in checks)} of {len(checks)} checks passed"
        for check in checks:
            if not check.ok:
                yield "", f"FAILED {check.name}: {check.detail}"
        yield "confidence", f"{confidence.score} ({confidence.band})"
    yield "audit", result.audit_id or "none"


def _show_rows(
    rows: Sequence[tuple[str, str]], result: RunResult, writes: WriteReport, *, good: bool
) -> None:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column()
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, value)
    out.print()
    out.print(table)
    lost = f"{len(writes.lost) or 'no'} acknowledged writes lost"
    verdict = f"{'verified' if result.verified else 'NOT verified'}, {lost}"
    out.print(verdict, style="bold green" if good else "bold red")


def _show_kept(directory: Path | None) -> None:
    lab = Lab.open(directory)
    option = "" if directory is None else f" --directory {directory}"
    out.lines(
        f"The lab runs in {lab.folder.root}; Temporal UI {lab.state().temporal_ui or '(yours)'}\n"
        f'  eval "$(qnwis-continuity lab env{option})"\n'
        f"  qnwis-continuity status --cluster {lab.folder.config / 'cluster.yaml'}\n"
        f"  metrics, for Prometheus: {' '.join(scraped_at(lab.block))}\n"
        "  qnwis-continuity audit verify\n"
        "  qnwis-continuity report latest --output report.html\n"
        f"  you are bob; others approve what he starts: --key {lab.folder.key('ann')}\n"
        f"  qnwis-continuity lab stop{option}"
    )


def _seconds(ms: float | None) -> str:
    return "never" if ms is None else f"{ms / 1000:.2f} s"
