"""`report`: what a run, a drill or an evacuation did, as a page, Markdown or JSON; and across runs."""

from __future__ import annotations

import asyncio
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from typer.core import TyperGroup

from qnwis.config.registry import Registry
from qnwis.continuity.audit import AuditRecord
from qnwis.continuity.plain_text import harmless_json
from qnwis.continuity.report import Report, report_of
from qnwis.continuity.report_text import Document, document_of, markdown, ms
from qnwis.continuity.trend import Trend, trends
from qnwis.providers.audit_store import AuditStore
from qnwis.providers.past_reports import NEWEST_RECORDS, reports_of
from qnwis.report_page.page import html

from .audit import place, store_of
from .files import write_text
from .output import AsJson, Exit, clear_errors, fail, out, print_json
from .settings import OptionalStateDir

LATEST = "latest"


class Reports(TyperGroup):
    """`report RUN` is `report of RUN`."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        known = not args or args[0] in {*self.commands, "--help"}
        return super().parse_args(ctx, args if known else ["of", *args])


app = typer.Typer(
    cls=Reports,
    help="What a run did: `report RUN` (or an audit id, or `latest`); and `report trend CLUSTER`.",
    no_args_is_help=True,
)


class Format(StrEnum):
    HTML = "html"
    MD = "md"
    JSON = "json"


Output = Annotated[Path | None, typer.Option(help="Write it here; without it, to standard output.")]


@app.command("of")
def of(
    run: Annotated[str, typer.Argument(help="Run id, audit id, or `latest`.")],
    form: Annotated[
        Format | None, typer.Option("--format", help="By default as --output ends, else md.")
    ] = None,
    output: Output = None,
    state_dir: OptionalStateDir = None,
) -> None:
    """Show the report of a run from its audit record. `report RUN` does the same."""
    store = store_of(state_dir)
    with clear_errors():
        report = asyncio.run(_report(store, run))
        if report is None:
            fail(
                Exit.USAGE,
                f"no run and no record {run} in {place(state_dir)}; expected a run id, an audit id"
                f" (`qnwis-continuity audit` lists them) or {LATEST}",
            )
        chosen = form or format_of(output)
        if chosen is Format.JSON:
            text = harmless_json(report.model_dump_json(indent=2)) + "\n"
        else:
            text = rendered(document_of(report), chosen)
        show(text, output)


@app.command()
def trend(
    cluster: Annotated[str, typer.Argument(help="cluster_id.")],
    state_dir: OptionalStateDir = None,
    objective_s: Annotated[
        float | None,
        typer.Option("--objective", min=0, help="Seconds; by default max_failover_time_s of the policy."),
    ] = None,
    config_dir: Annotated[
        Path | None, typer.Option(envvar="QNWIS_CONFIG_DIR", help="Where the cluster's policy is.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """How long runs of a cluster took to recover, against the objective, and what the next may take."""
    store = store_of(state_dir)
    with clear_errors(as_json=as_json):
        if objective_s is None and config_dir is not None:
            objective_s = Registry(config_dir).load(cluster).policy.max_failover_time_s
        reports = asyncio.run(reports_of(store, cluster))
    found = trends(cluster, reports, None if objective_s is None else objective_s * 1000)
    if as_json:
        print_json({"trends": [one.model_dump(mode="json") for one in found]})
        return
    if not found:
        fail(
            Exit.NOT_DONE,
            f"no verified run of {cluster} that moved its service is among the newest {NEWEST_RECORDS}"
            f" records of {place(state_dir)}",
        )
    for one in found:
        _show_trend(one)


def format_of(output: Path | None) -> Format:
    """As a file's name ends; Markdown where there is none, or it says nothing."""
    ends = output.suffix.removeprefix(".").lower() if output is not None else ""
    return Format(ends) if ends in set(Format) else Format.MD


def rendered(document: Document, form: Format) -> str:
    return html(document) if form is Format.HTML else markdown(document)


def show(text: str, output: Path | None) -> None:
    """Raises ConfigError for a file that cannot be written."""
    if output is None:
        print(text, end="")
    else:
        write_text(output, text)
        out.print(str(output), markup=False)


async def _report(store: AuditStore, run: str) -> Report | None:
    record = await _record(store, run)
    return None if record is None else report_of(record, await store.artefacts(record.audit_id))


async def _record(store: AuditStore, run: str) -> AuditRecord | None:
    if run == LATEST:
        return next(iter(await store.latest(1)), None)
    found = await store.get(run)
    return found or next(iter(reversed(await store.by_run(run))), None)


def _show_trend(one: Trend) -> None:
    objective = "" if one.objective_ms is None else f", objective {ms(one.objective_ms)}"
    by = "" if one.runbook is None else f" by {one.runbook.value}"
    out.print(f"{one.operation} of {one.cluster_id}{by}{objective}", style="bold", markup=False)
    table = Table("audit id", "when", "recovered in", "objective", box=None, pad_edge=False)
    for run in one.runs:
        within = "" if run.within is None else "met" if run.within else "MISSED"
        table.add_row(run.audit_id, f"{run.at:%F %T}", ms(run.recovery_ms), within)
    out.print(table)
    steps = Table("step", "runs", "P50", "P90", box=None, pad_edge=False)
    for step in one.steps:
        steps.add_row(step.name, str(step.runs), ms(step.p50_ms), ms(step.p90_ms))
    out.print(steps)
    if one.change_ms_per_run is not None:
        out.print(f"trend: {one.change_ms_per_run:+.0f} ms from run to run")
    if (told := one.forecast) is None:
        out.print("forecast: too few runs")
    else:
        out.print(f"next run: {ms(told.p50_ms)} (P50), {ms(told.p90_ms)} (P90), of {told.runs} runs")
    out.print()
