"""`simulate`: what a scenario would do to this topology under this policy; same seed, same bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from qnwis.config.load import load_cluster, load_policy
from qnwis.continuity.simulate import Scenario, SimulationResult
from qnwis.continuity.simulate import simulate as play

from .files import write_output, write_text
from .output import AsJson, Exit, clear_errors, fail, out, print_json, refuse_without_agents


def simulate(
    cluster: Annotated[Path, typer.Option(help="Topology, cluster.yaml.")],
    policy: Annotated[Path, typer.Option(help="Policy, policy.yaml.")],
    scenario: Annotated[Scenario, typer.Option(help="What happens.")] = Scenario.PRIMARY_FAILURE,
    seed: Annotated[int, typer.Option(help="The same seed gives the same bytes.")] = 42,
    output: Annotated[Path | None, typer.Option(help="Write the result here as JSON.")] = None,
    report: Annotated[Path | None, typer.Option(help="Write a report here, .html or .md.")] = None,
    runs: Annotated[
        int | None,
        typer.Option(min=1, max=10_000_000, help="Play so many failures of the primary instead of one."),
    ] = None,
    world: Annotated[
        str, typer.Option(help="With --runs: what happens how often, a YAML file or cloud, wan, lab.")
    ] = "cloud",
    against_cluster: Annotated[
        Path | None, typer.Option(help="With --runs: compare with this topology on the same failures.")
    ] = None,
    against_policy: Annotated[
        Path | None, typer.Option(help="With --runs: compare with this policy on the same failures.")
    ] = None,
    processes: Annotated[int, typer.Option(min=1, max=64, help="With --runs; changes no result.")] = 2,
    as_json: AsJson = False,
) -> None:
    """Simulate a failure and what this policy makes of it. Touches nothing."""
    if runs is not None:
        # Many failures need numpy, which one failure does not.
        from .simulate_many import Asked, simulate_many

        simulate_many(
            Asked(cluster, policy, runs, seed, world, against_cluster, against_policy, processes),
            scenario,
            output=output,
            report=report,
            as_json=as_json,
        )
        return
    if against_cluster is not None or against_policy is not None:
        fail(Exit.USAGE, "--against-cluster and --against-policy: expected --runs N with them")
    with clear_errors(as_json=as_json):
        topology = load_cluster(cluster)
        refuse_without_agents(topology, "simulate", as_json=as_json)
        result = play(topology, load_policy(policy), scenario, seed)
        if output is not None:
            write_output(output, result)
        if report is not None:
            _write_report(report, result)
    if as_json:
        print_json(result)
    else:
        for event in result.timeline:
            out.print(f"{event.t_ms:>8.0f} ms  {event.what}", markup=False)
        if result.refusal is not None:
            out.print(f"refused [{result.refusal.rule}]: {result.refusal.message}", markup=False)
            out.print(f"  → {result.refusal.remedy}", markup=False)
        verdict = "succeeded and verified" if result.success else "no verified failover"
        out.print(f"{scenario.value}, seed {seed}: {verdict}", style="bold", markup=False)
    raise typer.Exit(
        Exit.OK if result.success else Exit.REFUSED if result.refusal is not None else Exit.NOT_DONE
    )


def _write_report(path: Path, result: SimulationResult) -> None:
    # A simulation is run in loops: what shows a page is loaded where one is asked for.
    from qnwis.continuity.report_simulation import document_of_simulation

    from .report import Format, format_of, rendered

    form = format_of(path)
    if form is Format.JSON:
        fail(Exit.USAGE, f"--report {path}: expected a file that ends in .html or .md; --output writes JSON")
    write_text(path, rendered(document_of_simulation(result), form))
