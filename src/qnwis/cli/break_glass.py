"""`break-glass`: the plan as steps for a person, for when the control plane is gone; and its record."""

from __future__ import annotations

import asyncio
import contextlib
import os
from datetime import UTC, datetime
from pathlib import Path
from shlex import join
from time import monotonic
from typing import Annotated

import typer

from qnwis.config.load import load_cluster, load_policy
from qnwis.config.problem import ConfigError
from qnwis.config.regions import region_rules
from qnwis.config.registry import Registered, Registry
from qnwis.continuity.access import Deed
from qnwis.continuity.assessment import assess
from qnwis.continuity.audit import AuditRecord
from qnwis.continuity.break_glass import BreakGlass, agreed_membership, break_glass, markdown
from qnwis.continuity.break_glass_record import (
    Answers,
    Recorded,
    elapsed_ms,
    fencing_of,
)
from qnwis.continuity.break_glass_region import Found, index, region_break_glass
from qnwis.continuity.evidence import ClusterEvidence
from qnwis.continuity.membership import MembershipView
from qnwis.continuity.orders import FencingEvidence
from qnwis.continuity.refusal import Refusal
from qnwis.continuity.regions import region_refusal
from qnwis.continuity.run import FailoverRequest, Maintenance
from qnwis.continuity.tokens import Expected
from qnwis.continuity.topology import Cluster
from qnwis.continuity.verifier import VerificationReport, verify
from qnwis.providers.audit_place import audit_store_of
from qnwis.providers.break_glass_records import keep
from qnwis.providers.dns_by_holder import DnsByHolder
from qnwis.providers.errors import Refused, Unreachable
from qnwis.providers.evidence import collect_evidence
from qnwis.providers.nodes import HttpNodes
from qnwis.transport import Transport, transport_beside, transport_of

from .files import is_free, make_folder, read_break_glass, read_plan, write_output, write_text
from .output import AsJson, Exit, clear_errors, err, fail, out, print_json, refuse, refuse_without_agents
from .proving import PeopleDir, proved_here
from .settings import StateDir
from .signing import By, KeyFile, me

app = typer.Typer(
    help="The plan as steps for a person with psql and a shell; needs no Temporal.", no_args_is_help=True
)

ANSWER_WITHIN_S = 2.0
SETTLE_S, PAUSE_S = 5.0, 0.1
"""How long the world may take until the last reading counts, and between two readings, seconds."""


@app.command()
def plan(
    cluster: Annotated[Path, typer.Option(help="Topology, cluster.yaml.")],
    policy: Annotated[Path, typer.Option(help="Policy, policy.yaml.")],
    maintenance: Annotated[
        bool, typer.Option("--maintenance", help="The primary is well: a switchover without a loss.")
    ] = False,
    target: Annotated[str, typer.Option(help="With --maintenance: node_id that takes over.")] = "",
    even_if_healthy: Annotated[
        bool, typer.Option("--even-if-healthy", help="Fence the primary although it accepts writes.")
    ] = False,
    reason: Annotated[str, typer.Option(help="Why; becomes part of the plan.")] = "manual",
    made: Annotated[
        Path | None,
        typer.Option("--plan", help="Print this plan, which `plan` wrote, if it still fits."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Write the steps here, and as .json beside it for `record`.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Print the steps of a failover or switchover. Asks the agents; changes nothing."""
    if output is not None and output.suffix == ".json":
        fail(Exit.USAGE, f"--output {output}: expected another ending, because what `record` reads is .json")
    with clear_errors(as_json=as_json):
        topology, rules = load_cluster(cluster), load_policy(policy)
        refuse_without_agents(topology, "break-glass", as_json=as_json)
        request = FailoverRequest(
            cluster_id=topology.cluster_id,
            initiated_by="break-glass",
            reason=reason,
            even_if_healthy=even_if_healthy,
            plan=None if made is None else read_plan(made),
            maintenance=Maintenance(target_node_id=target or None) if maintenance else None,
        )
        evidence, views = asyncio.run(_read_agents(topology, transport_beside(cluster, os.environ)))
        membership = agreed_membership(topology, views)
        if isinstance(membership, Refusal):
            # Why nobody answers may lie here: a certificate that is not known there, or none.
            for node in evidence.nodes:
                if node.error is not None:
                    err.print(f"{node.node_id}: {node.error}", markup=False)
            refuse(membership, as_json=as_json)
        assessment = assess(request, topology, rules, evidence)
        if assessment.refusal is not None:
            refuse(assessment.refusal, as_json=as_json)
        paper = break_glass(assessment, topology, rules, evidence, membership)
        beside = Path(f"{paper.run_id}.json") if output is None else output.with_suffix(".json")
        text = markdown(paper, record=_record_command(paper, beside))
        if output is not None:
            write_text(output, text)
            write_output(beside, paper)
        if as_json:
            print_json(paper)
        elif output is None:
            print(text)
        else:
            out.print(f"{paper.plan.plan_id}  digest {paper.digest}", markup=False)
            out.print(f"written to {output}; keep {beside} for `break-glass record`", markup=False)


@app.command()
def region(
    name: Annotated[str, typer.Argument(metavar="REGION", help="The region that is left.")],
    config_dir: Annotated[
        Path, typer.Option(envvar="QNWIS_CONFIG_DIR", help="The clusters' files, as a worker reads them.")
    ],
    output: Annotated[Path, typer.Option(help="Directory for the sheets; it must be new or empty.")],
    reason: Annotated[str, typer.Option(help="Why; becomes part of each plan.")] = "manual",
    as_json: AsJson = False,
) -> None:
    """Print how every cluster leaves a region, a sheet each. Asks the agents; changes nothing."""
    with clear_errors(as_json=as_json):
        if not is_free(output):
            fail(Exit.USAGE, f"{output} is not empty; older sheets must not be taken for these")
        rules, (registered, unread) = region_rules(config_dir), _load(Registry(config_dir))
        if (refusal := region_refusal(name, (one.cluster for one in registered))) is not None:
            refuse(refusal, as_json=as_json)
        found = asyncio.run(_find(registered, name, transport_of(os.environ, config_dir)))
        paper = region_break_glass(name, reason, found, rules)
        if isinstance(paper, Refusal):
            refuse(paper, as_json=as_json)
        ids = [sheet.cluster.cluster_id for sheet in paper.sheets]
        files = {cluster_id: f"{number:02}-{cluster_id}" for number, cluster_id in enumerate(ids, start=1)}
        make_folder(output)
        for sheet in paper.sheets:
            beside = Path(f"{files[sheet.cluster.cluster_id]}.json")
            write_output(output / beside, sheet)
            text = markdown(sheet, record=_record_command(sheet, beside))
            write_text(output / beside.with_suffix(".md"), text)
        write_text(output / "00-index.md", index(paper, files, unread=unread))
    if as_json:
        print_json(paper)
    else:
        out.print(f"{name}: {len(ids)} sheets in {output}; begin with 00-index.md", markup=False)
        out.print(f"region plan digest {paper.digest}", markup=False)


def _load(registry: Registry) -> tuple[list[Registered], list[str]]:
    """Every registered cluster, and what could not be read."""
    registered, unread = [], []
    for cluster_id in registry.cluster_ids():
        try:
            registered.append(registry.load(cluster_id))
        except ConfigError as error:
            unread.append(f"{cluster_id}: {error}")
    return registered, unread


async def _find(registered: list[Registered], region: str, transport: Transport) -> list[Found]:
    """What is known of each cluster that has nodes in the region."""
    found = []
    for one in registered:
        if region in one.cluster.regions:
            evidence, views = await _read_agents(one.cluster, transport)
            found.append(Found(one.cluster, one.policy, evidence, views))
    return found


@app.command()
def record(
    state_dir: StateDir,
    plan: Annotated[Path, typer.Option(help="The .json that `break-glass plan --output` wrote.")],
    reason: Annotated[str, typer.Option(help="Why it was done by hand; kept in the record.")],
    answers: Annotated[
        Path | None, typer.Option(help="The folder of kept answers; by default ./<run id>.")
    ] = None,
    attest: Annotated[
        str | None,
        typer.Option(help="Your word that the old primary is off, and how; where no promises were kept."),
    ] = None,
    config_dir: PeopleDir = None,
    by: By = "",
    key: KeyFile = None,
    as_json: AsJson = False,
) -> None:
    """Record afterwards what a person carried out, with what is found when the world is read again."""
    with clear_errors(as_json=as_json):
        paper, who = read_break_glass(plan), me(key, by)
        kept = _kept(paper, answers)
        about = Expected(
            deed=Deed.RECORD, cluster_id=paper.plan.cluster_id, run_id=paper.run_id, digest=paper.digest
        )
        person, token = proved_here(who, about, reason, config_dir, as_json=as_json)
        now = datetime.now(UTC)
        fencing = fencing_of(paper, kept, attested=attest, by=who.name, at=now)
        report, after = asyncio.run(
            _read_again(
                paper,
                fencing,
                transport_of(os.environ, config_dir),
                elapsed_ms=elapsed_ms(paper, kept, now=now),
            )
        )
        recorded = Recorded(
            by=who.name,
            roles=() if person is None else person.roles,
            recorded_at=now,
            reason=reason,
            attested=attest,
            read_again_and_found=tuple(check.name for check in report.checks if check.ok),
            read_again_and_missed=tuple(f"{check.name}: {check.detail}" for check in report.failures),
            token=token,
        )
        store = audit_store_of(state_dir, os.environ)
        written, new = asyncio.run(keep(store, paper, kept, recorded, report, fencing=fencing, after=after))
    _say_which(written, paper, new=new)
    if as_json:
        print_json(written)
    else:
        _show(written, report)
    raise typer.Exit(Exit.OK if written.result.success else Exit.NOT_DONE)


async def _read_agents(
    cluster: Cluster, transport: Transport
) -> tuple[ClusterEvidence, dict[str, MembershipView]]:
    """What every agent says of its database and of the membership; without those that do not answer."""
    async with HttpNodes(transport) as nodes:
        evidence, *views = await asyncio.gather(
            collect_evidence(nodes, cluster),
            *(nodes.membership(node, timeout_s=ANSWER_WITHIN_S) for node in cluster.nodes),
            return_exceptions=True,
        )
    for answer in (evidence, *views):
        if isinstance(answer, BaseException) and not isinstance(answer, Unreachable):
            raise answer
    assert isinstance(evidence, ClusterEvidence)
    return evidence, {view.node_id: view for view in views if isinstance(view, MembershipView)}


async def _read_again(
    paper: BreakGlass, fencing: FencingEvidence | None, transport: Transport, *, elapsed_ms: float
) -> tuple[VerificationReport, ClusterEvidence]:
    """Read until the verifier passes or the world has had its time; the last reading is the answer."""
    deadline, dns = monotonic() + SETTLE_S, paper.cluster.dns
    async with HttpNodes(transport) as nodes:
        while True:
            answers: dict[str, tuple[str, ...]] | None = None if dns is None else {}
            after = await collect_evidence(nodes, paper.cluster)
            if dns is not None:
                with contextlib.suppress(Unreachable, Refused):
                    answers = await DnsByHolder().read(dns)
            report = verify(
                paper.plan,
                paper.cluster,
                paper.policy,
                paper.before,
                after,
                fencing=fencing,
                dns=answers,
                elapsed_ms=elapsed_ms,
                epoch=paper.epoch,
            )
            if report.passed or monotonic() >= deadline:
                return report, after
            await asyncio.sleep(PAUSE_S)


def _kept(paper: BreakGlass, named: Path | None) -> Answers:
    """What the steps kept. Ends the command where the folder that was named is not there, which would be
    recorded as if nobody had promised anything."""
    folder = named or Path(paper.run_id)
    if named is not None and not folder.is_dir():
        fail(
            Exit.USAGE,
            f"--answers {folder} is no folder; expected the one where the steps kept answers, or no --answers"
            " if none were kept",
        )
    kept = {path.stem: path.read_text(errors="replace") for path in sorted(folder.glob("*.json"))}
    if not kept:
        where = "has no kept answers" if folder.is_dir() else "is not there"
        err.print(f"{folder} {where}: it is recorded without any; --answers names another", markup=False)
    return kept


def _record_command(paper: BreakGlass, steps: Path) -> str:
    files = join(["--plan", str(steps), "--answers", paper.run_id])
    return f"qnwis-continuity break-glass record {files} --reason … --state-dir …"


def _say_which(record: AuditRecord, paper: BreakGlass, *, new: bool) -> None:
    """On standard error, where the run had a record already."""
    if not new:
        said = (
            f"{record.run_id} has the same words and answers already; nothing was added, and what follows is"
        )
        err.print(f"{said} what is found now, with the verdict of then", markup=False)
    elif record.run_id != paper.run_id:
        said = f"{paper.run_id} is recorded already, with other words or answers"
        err.print(f"{said}; this is a supplement to it, {record.run_id}", markup=False)


def _show(record: AuditRecord, report: VerificationReport) -> None:
    for check in report.checks:
        out.print(f"  {'ok  ' if check.ok else 'FAIL'} {check.name}: {check.detail}", markup=False)
    verdict = "verified by reading the world again" if record.result.success else "not verified"
    out.print(f"recorded afterwards, {verdict}; by {record.initiated_by} ({record.role})", markup=False)
    out.print(f"audit: {record.audit_id}", markup=False)
