"""`validate`: whether the files of a registry can be used, and what the cluster would survive."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from qnwis.config.allowlist import load_allowlist, unlisted
from qnwis.config.hooks import load_hooks
from qnwis.config.load import load_cluster, load_issuers, load_people, load_policy
from qnwis.config.problem import ConfigError, Problem
from qnwis.config.regions import load_regions
from qnwis.config.yaml_source import read_yaml
from qnwis.continuity.losses import Effect, Loss, advice, losses, unsurvivable
from qnwis.continuity.region_wait import wait_advice
from qnwis.continuity.regions import RegionRules
from qnwis.continuity.topology import Cluster
from qnwis.providers.third_party import unusable

from .output import AsJson, Exit, fail, out, print_json, styled

STYLES = {Effect.GOES_ON: "green", Effect.FAILS_OVER: "green", Effect.SHIFTS: "green", Effect.STOPS: "yellow"}


def validate(
    cluster: Annotated[Path, typer.Option(help="Topology, cluster.yaml.")],
    policy: Annotated[Path | None, typer.Option(help="Policy, policy.yaml.")] = None,
    hooks: Annotated[Path | None, typer.Option(help="Hooks and probes, hooks.yaml.")] = None,
    regions: Annotated[Path | None, typer.Option(help="When a region is lost, regions.yaml.")] = None,
    allowlist: Annotated[Path | None, typer.Option(help="Whose certificates count, allowlist.yaml.")] = None,
    people: Annotated[Path | None, typer.Option(help="Who may do what, people.yaml.")] = None,
    issuers: Annotated[Path | None, typer.Option(help="Who may vouch for people, issuers.yaml.")] = None,
    as_json: AsJson = False,
) -> None:
    """Check files without using them, and list what the loss of each node and each region would do.

    Every problem names file, line, field, value and what was expected.
    """
    problems: list[Problem] = []
    topology: Cluster | None = None
    try:
        topology = load_cluster(cluster)
        source = read_yaml(cluster)
        problems += [
            source.problem(loc, f"a provider that can be used here: {refusal.message}")
            for loc, refusal in unusable(topology)
        ]
        if (expected := unsurvivable(topology)) is not None:
            problems.append(Problem(cluster, None, None, "nodes", f"{len(topology.nodes)} nodes", expected))
    except ConfigError as error:
        problems += error.problems
    files: tuple[tuple[Path | None, Callable[[Path], object]], ...] = (
        (policy, load_policy),
        (hooks, load_hooks),
        (regions, load_regions),
        (allowlist, load_allowlist),
        (people, load_people),
        (issuers, load_issuers),
    )
    for file, load in files:
        if file is not None:
            try:
                load(file)
            except ConfigError as error:
                problems += error.problems
    if allowlist is not None and topology is not None and not problems:
        problems += unlisted(topology, load_allowlist(allowlist), allowlist)
    if problems or topology is None:
        fail(Exit.USAGE, "\n".join(map(str, problems)))
    found = losses(topology)
    advised = advice(topology, found)
    if policy is not None:
        rules = load_regions(regions) if regions is not None else RegionRules()
        odd = wait_advice(load_policy(policy), rules.dwell_s)
        advised = (*advised, odd) if odd is not None else advised
    if as_json:
        print_json({"losses": [one.model_dump(mode="json") for one in found], "advice": advised})
    else:
        _show(found, advised, by_http=topology.by_http)


def _show(found: tuple[Loss, ...], advised: tuple[str, ...], *, by_http: bool) -> None:
    table = Table("without", "members left", "the cluster", "", box=None, pad_edge=False)
    for loss in found:
        left = f"{loss.left}, quorum {loss.quorum}"
        table.add_row(loss.what, left, styled(loss.effect, STYLES[loss.effect]), loss.why)
    if found:
        out.print(table)
    else:
        out.print(
            "an application without a lease: another node is promoted once the old one is seen not to write,"
            " or is fenced"
            if by_http
            else "Patroni manages it: within a region it fails over by itself, as its DCS allows",
            markup=False,
        )
    for line in advised:
        out.print(f"→ {line}", markup=False)
    out.print("valid", style="bold green")
