"""`simulate --runs N`: distributions over many failures, and which setting buys how much."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from qnwis.config.access import AccessFiles
from qnwis.config.load import load_cluster, load_policy
from qnwis.config.problem import ConfigError, Problem
from qnwis.continuity.access import ApprovalWorkflow
from qnwis.continuity.simulate import Scenario

from .files import write_output, write_text
from .output import Exit, clear_errors, fail, out, print_json, refuse, refuse_without_agents
from .report import Format, format_of, rendered

NEEDS = "--runs needs numpy, and a page matplotlib: pip install 'qnwis-continuity[simulator]'"

try:
    from qnwis.montecarlo.document import compared, document_of, rows, verdict, yearly
    from qnwis.montecarlo.result import Other, Study, StudyResult, study
    from qnwis.montecarlo.study import Settings, unplayable
    from qnwis.montecarlo.world import World, load_world
except ModuleNotFoundError as error:
    if error.name != "numpy":
        raise
    fail(Exit.USAGE, NEEDS)

APPROVAL = "manual_failover"


@dataclass(frozen=True)
class Asked:
    cluster: Path
    policy: Path
    runs: int
    seed: int
    world: str
    against_cluster: Path | None
    against_policy: Path | None
    processes: int

    @property
    def compares(self) -> bool:
        return self.against_cluster is not None or self.against_policy is not None


def simulate_many(
    asked: Asked, scenario: Scenario, *, output: Path | None, report: Path | None, as_json: bool
) -> None:
    if scenario is not Scenario.PRIMARY_FAILURE:
        fail(Exit.USAGE, f"--runs plays failures of the primary: expected no --scenario {scenario.value}")
    if report is not None and format_of(report) is Format.JSON:
        fail(
            Exit.USAGE, f"--report {report}: expected a file that ends in .html or .md; --output writes JSON"
        )
    with clear_errors(as_json=as_json):
        world = load_world(asked.world)
        settings = _settings(asked.cluster, asked.policy, world, as_json=as_json)
        other = None
        if asked.compares:
            compared_with = _settings(
                asked.against_cluster or asked.cluster,
                asked.against_policy or asked.policy,
                world,
                as_json=as_json,
            )
            given = filter(None, (asked.against_cluster, asked.against_policy))
            other = Other(", ".join(path.name for path in given), compared_with)
        for one in (settings, *([] if other is None else [other.settings])):
            if (refusal := unplayable(one, asked.runs)) is not None:
                refuse(refusal, as_json=as_json)
        found = study(settings, asked.runs, asked.seed, other, processes=asked.processes)
        if output is not None:
            write_output(output, found.result)
        if report is not None:
            _write_report(report, found)
    if as_json:
        print_json(found.result)
    else:
        _show(found.result)


def _settings(cluster: Path, policy: Path, world: World, *, as_json: bool) -> Settings:
    topology = load_cluster(cluster)
    refuse_without_agents(topology, "simulate", as_json=as_json)
    return Settings(topology, load_policy(policy), world, _approval(cluster.parent))


def _approval(directory: Path) -> ApprovalWorkflow:
    files = AccessFiles(directory)
    found = files.load_rbac().approval_workflows.get(APPROVAL)
    if found is None:
        field = f"rbac.approval_workflows.{APPROVAL}"
        raise ConfigError([Problem(files.rbac, None, None, field, "nothing", "an approval workflow")])
    return found


def _write_report(path: Path, found: Study) -> None:
    drawn: dict[str, str] = {}
    if format_of(path) is Format.HTML:
        # Only a page has pictures, and they take a second to load.
        try:
            from qnwis.montecarlo.pictures import pictures
        except ModuleNotFoundError:
            fail(Exit.USAGE, NEEDS)
        drawn = pictures(found)
    write_text(path, rendered(document_of(found.result, drawn), format_of(path)))


def _show(result: StudyResult) -> None:
    out.print(
        f"{result.runs} failures of the primary of {result.cluster_id} in {result.years:g} years,"
        f" seed {result.seed}, policy {result.policy_id}, world {result.world}",
        style="bold",
        markup=False,
    )
    table = Table("", "P50", "P95", "P99", "mean", "most", box=None, pad_edge=False)
    for row in rows(result.figures):
        table.add_row(*row)
    out.print(table)
    for name, what in yearly(result.figures):
        out.print(f"{name}: {what}", markup=False)
    out.print()
    out.print("Which setting buys how much", style="bold")
    for one in result.settings:
        out.print(one.words, markup=False)
    if result.comparison is not None:
        out.print()
        out.print(f"Compared with {result.comparison.name}", style="bold", markup=False)
        for (line,) in compared(result):
            out.print(line, markup=False)
    out.print()
    out.print(verdict(result.figures), style="bold", markup=False)
