"""Whole failovers on real parts: PostgreSQL, agents, DNS, Temporal, a worker, the guardian.

The tests share one lab; each starts from a healed cluster, whoever is the primary by then. The demonstration
has labs of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from functools import partial
from pathlib import Path
from typing import LiteralString

import psycopg
import pytest

from qnwis.agent.processes import processes_in
from qnwis.continuity.detection import Finding
from qnwis.continuity.metrics import COUNTED, EXECUTIONS, FAILOVER, FAILURES, RUNS, SUCCESSES
from qnwis.continuity.orders import FencingEvidenceType, RejoinOrder
from qnwis.continuity.round_trips import RoundTripResult
from qnwis.continuity.run import DRY_RUN_MARK, FailoverRequest, RunOutcome, RunResult
from qnwis.lab.acks import analyse
from qnwis.lab.cluster import Lab
from qnwis.lab.control_plane import WORKER, ControlPlane, scraped_at, start_worker
from qnwis.lab.layout import Folder
from qnwis.lab.maintenance_demo import move
from qnwis.lab.postgres import SUPERUSER
from qnwis.lab.shape import VANTAGES
from qnwis.lab.temporal_server import ADDRESS_VARIABLE
from qnwis.lab.temporal_server import PROCESS_NAME as TEMPORAL
from qnwis.providers.audit_store import SqliteAuditStore
from qnwis.providers.dns import Rfc2136Dns
from qnwis.providers.nodes import HttpNodes
from qnwis.readiness_runs import start_readiness
from qnwis.starting import start_failover
from tests.looking import Looks
from workflows.primary_failure import PrimaryFailure

from .real import (
    PAUSE_MS,
    WITHIN_S,
    Run,
    Said,
    Scene,
    command,
    healed,
    lab_directory,
    latest_run_id,
    left_behind,
    restart_temporal,
    running_lab,
    settings_of,
    start_command,
    until,
    until_each_client_writes,
)
from .scraping import needs_prometheus, prometheus

CONNECTED = 'qnwis_continuity_quorum_reached{vantage=~"vantage-.*"}'
"""Of each worker that watches, a series."""


@pytest.fixture(scope="module", autouse=True)
def own_server() -> Iterator[None]:
    """These tests kill the Temporal server: never somebody else's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(ADDRESS_VARIABLE, raising=False)
        yield


@pytest.fixture(scope="module")
async def control(own_server: None) -> AsyncIterator[ControlPlane]:
    with lab_directory() as root:
        async with running_lab(root) as control:
            yield control


@pytest.fixture
def root() -> Iterator[Path]:
    with lab_directory() as root:
        yield root


@pytest.fixture
async def scene(control: ControlPlane) -> AsyncIterator[Scene]:
    async with HttpNodes(control.lab.certificates.transport) as nodes:
        yield await healed(control, nodes)
        await control.lab.stop_clients()


@pytest.fixture(scope="module")
async def qnwis(control: ControlPlane) -> Command:
    """The command as a user types it, in the environment that `lab env` prints."""
    settings = await settings_of(control.lab)
    return partial(command, env=settings)


Command = Callable[..., Coroutine[None, None, Said]]


# As a user types it


async def test_a_dry_run_changes_nothing(scene: Scene, qnwis: Command, tmp_path: Path) -> None:
    await scene.lab.start_clients(2, pause_ms=PAUSE_MS)
    before = await everything(scene)
    plan = await live_plan(scene, qnwis, tmp_path)

    previewed = await qnwis("execute", "--plan", str(plan), "--dry-run")

    assert previewed.code == 0, previewed
    assert f"{DRY_RUN_MARK} previewed: every effect was previewed, none was made" in previewed.out
    assert f"{DRY_RUN_MARK} note: would be refused: The primary {scene.primary} answers" in previewed.out
    assert await everything(scene) == before
    written = len(scene.lab.ack_log().acks)
    await until_each_client_writes(scene.lab, 2, after=written)
    assert {ack.server for ack in scene.lab.ack_log().acks} == {scene.primary}


async def test_an_operator_alone_does_not_fail_over_from_a_primary_that_is_well(
    scene: Scene, qnwis: Command, tmp_path: Path
) -> None:
    before, plan = await everything(scene), await live_plan(scene, qnwis, tmp_path)
    bob = ("--key", str(scene.lab.folder.key("bob")))
    refused = await qnwis("execute", "--plan", str(plan), "--even-if-healthy", "--reason", "now", *bob)
    assert refused.code == 3 and "continuity:override_constraints" in refused.err, refused
    assert await everything(scene) == before


async def test_a_plan_is_executed_once_and_leaves_its_record(
    scene: Scene, qnwis: Command, tmp_path: Path
) -> None:
    plan, cluster_id = await live_plan(scene, qnwis, tmp_path), scene.lab.cluster.cluster_id
    ann, carl = (("--key", str(scene.lab.folder.key(name))) for name in ("ann", "carl"))
    execute = ("execute", "--plan", str(plan), "--even-if-healthy", "--reason", "maintenance", *ann)
    with scene.stalled("flip"):
        first = asyncio.create_task(qnwis(*execute, "--json"))
        run = await scene.next_run()
        await until_asked(run)
        own = await qnwis("approve", cluster_id, "--yes", *ann)
        assert own.code == 3 and "initiator_excluded" in own.err, own
        approved = await qnwis("approve", cluster_id, "--yes", "--reason", "agreed", *carl)
        assert approved.code == 0 and "predicted loss" in approved.out, approved
        await scene.until_waiting(run, "flip")
        second = await qnwis(*execute)
    assert second.code == 3, second
    assert f'run_id = "{run.result_run_id}"' in second.err

    executed = await first
    assert executed.code == 0, executed
    assert (executed.json["outcome"], executed.json["run_id"]) == ("completed", run.result_run_id)
    assert scene.effects(executed.json["run_id"]) == scene.one_failover(scene.target)

    cluster = str(scene.lab.folder.config / "cluster.yaml")
    status = await qnwis("status", "--cluster", cluster, "--json")
    assert (status.code, status.json["primary_node_id"]) == (0, scene.target), status
    audit_id = executed.json["audit_id"]
    record = await qnwis("audit", "--audit-id", audit_id, "--json")
    assert record.code == 0, record
    assert (record.json["audit_id"], record.json["initiated_by"]) == (audit_id, "ann")
    assert (record.json["role"], record.json["approval"]["approved_by"]) == ("continuity_admin", "carl")
    assert (record.json["source_node"], record.json["target_node"]) == (scene.primary, scene.target)
    verified = await qnwis("audit", "verify")
    assert (verified.code, verified.out) == (0, "the chain is unbroken\n")


# Failures


async def test_a_drill_fails_over_from_a_healthy_primary_and_ends_where_it_began(
    scene: Scene, qnwis: Command
) -> None:
    lab, cluster_id, dns = scene.lab, scene.lab.cluster.cluster_id, scene.lab.cluster.dns
    assert dns is not None
    bob, carl = (("--key", str(lab.folder.key(name))) for name in ("bob", "carl"))
    drill = asyncio.create_task(
        qnwis("execute", cluster_id, "--drill", "--reason", "quarterly", "--json", *bob)
    )
    there = await scene.next_run()
    await until_asked(there)
    assert (await qnwis("approve", cluster_id, "--yes", *carl)).code == 0
    ended = await drill

    assert ended.code == 0, ended
    result = RoundTripResult.model_validate(ended.json)
    assert result.there is not None and result.there.new_primary in (scene.target, scene.other)
    assert result.back is not None and result.back.new_primary == scene.primary
    for node_id in (scene.target, scene.other):
        await scene.until_state(node_id, lambda s: s.streaming and s.upstream == scene.primary)
    assert (await scene.state(scene.primary)).writable
    assert set((await Rfc2136Dns().read(dns)).values()) == {(lab.cluster.node(scene.primary).hostname,)}


async def test_a_killed_primary_is_replaced_and_comes_back_as_a_standby(scene: Scene) -> None:
    lab = scene.lab
    await lab.start_clients(4, pause_ms=2)
    await lab.kill_node(scene.primary)
    result = await result_of(await scene.next_run())

    assert result.verified and result.old_primary == scene.primary
    new = result.new_primary or ""
    assert scene.effects(result.run_id) == scene.one_failover(new)
    store = SqliteAuditStore(lab.folder.audit / "audit.sqlite", lab.folder.audit / "audit-signing-key.pem")
    (record,) = await store.by_run(result.run_id)
    assert record.audit_id == result.audit_id and record.result.success
    assert await store.verify() == ()

    await until_each_client_writes(lab, 4, to=new)
    await lab.stop_clients()
    log = lab.ack_log()
    assert analyse(log, await lab.rows(new)).lost == ()

    assert result.fencing is not None
    assert (result.fencing.type, result.fencing.holder) == (FencingEvidenceType.LEASE_EXPIRED, scene.primary)
    old = lab.machine(scene.primary)
    old.start()
    down = await scene.until_state(scene.primary, lambda s: "[another_held_since]" in (s.why_down or ""))
    assert (down.database_up, processes_in(old.data_dir)) == (False, [])

    order = RejoinOrder(
        effect_id=f"{result.run_id}/rejoin",
        run_id=result.run_id,
        epoch=result.epoch or 0,
        upstream=new,
    )
    await scene.nodes.order(lab.cluster.node(scene.primary), order, timeout_s=WITHIN_S)
    end = (await scene.state(new)).write_lsn or 0
    back = await scene.until_state(scene.primary, lambda s: s.streaming and (s.replay_lsn or 0) >= end)
    assert (back.upstream, back.writable) == (new, False)
    assert analyse(log, await lab.rows(scene.primary)).lost == ()


async def test_a_database_that_crashes_under_a_living_agent_is_failed_over_on_the_agents_word(
    scene: Scene,
) -> None:
    """The agent saw it end and released its lease: nobody counts misses, and nobody waits for the lease."""
    os.kill(postmaster(scene, scene.primary), signal.SIGKILL)

    result = await result_of(await scene.next_run())

    assert result.verified and result.old_primary == scene.primary
    assert result.fencing is not None and result.fencing.type is FencingEvidenceType.RELEASED
    store = SqliteAuditStore(
        scene.lab.folder.audit / "audit.sqlite", scene.lab.folder.audit / "audit-signing-key.pem"
    )
    record = await store.get(result.audit_id or "")
    assert record is not None and "its agent says that the database has ended" in record.reason
    assert ": 1 miss from " in record.reason


async def test_a_switchover_whose_promotion_is_lost_leaves_the_service_on_the_old_primary(
    scene: Scene,
) -> None:
    """The target was granted the lease, and its database ended for good before it was a primary."""
    lab, target = scene.lab, scene.lab.machine(scene.target)
    version, present = target.data_dir / "PG_VERSION", (await scene.state(scene.primary)).epoch
    log = target.agent.log if target.agent is not None else None
    assert log is not None

    def holds_the_lease() -> bool:
        lines = (json.loads(line) for line in log.read_text().splitlines() if '"lease_held"' in line)
        return any(line["epoch"] > present for line in lines)

    async with nobody_promotes(lab, scene.primary):
        moving = asyncio.create_task(move(scene.control, print, result_of, target=scene.target))
        await until(holds_the_lease)
        hidden = version.rename(version.with_name("hidden"))
        for pid in processes_in(target.data_dir):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        result = await moving
        hidden.rename(version)

    assert result.outcome is RunOutcome.ROLLED_BACK, result.reason
    assert "[promotion_lost]" in result.reason and "LEFT TO DO" not in result.reason
    assert (await scene.state(scene.primary)).writable
    await scene.until_state(scene.target, lambda s: s.streaming and s.upstream == scene.primary)


async def test_a_vantage_that_froze_abstains_and_says_nothing_false_when_it_thaws(scene: Scene) -> None:
    frozen = scene.lab.processes.find(VANTAGES[2])
    assert frozen is not None
    os.kill(frozen.pid, signal.SIGSTOP)
    try:
        view = await scene.until_guardian(lambda view: VANTAGES[2] in view.abstaining)
        assert {verdict.finding for verdict in view.verdicts.values()} == {Finding.HEALTHY}
    finally:
        os.kill(frozen.pid, signal.SIGCONT)

    view = await scene.until_guardian(lambda view: VANTAGES[2] in view.statements)

    assert {vote.detector.consecutive_misses for vote in view.statements[VANTAGES[2]].votes.values()} == {0}
    assert {verdict.finding for verdict in view.verdicts.values()} == {Finding.HEALTHY}
    assert await latest_run_id(scene.control) == scene.last_run_id, "nothing was started"


@pytest.mark.parametrize("place", ["promote", pytest.param("flip", marks=pytest.mark.matrix)])
async def test_a_killed_worker_leaves_the_run_to_the_next_one(scene: Scene, place: str) -> None:
    with scene.stalled(place):
        await scene.lab.kill_node(scene.primary)
        run = await scene.next_run()
        await scene.until_waiting(run, place)
        scene.lab.processes.kill(WORKER)
    # What the dead worker had asked for happens now, and nobody hears of it.
    start_worker(scene.lab, scene.control.server)

    result = await result_of(run)
    assert result.verified
    assert scene.effects(result.run_id) == scene.one_failover(scene.target)


@pytest.mark.parametrize("place", ["promote", pytest.param("flip", marks=pytest.mark.matrix)])
async def test_agents_upgraded_in_the_middle_of_a_run_neither_end_a_database_nor_repeat_an_effect(
    scene: Scene, place: str
) -> None:
    survivors = [scene.target, scene.other]
    before = [(node_id, started_agents(scene, node_id)) for node_id in survivors]
    databases = [postmaster(scene, node_id) for node_id in survivors]
    with scene.stalled(place):
        await scene.lab.kill_node(scene.primary)
        run = await scene.next_run()
        await scene.until_waiting(run, place)
        for node_id in survivors:
            agent = scene.lab.machine(node_id).agent
            assert agent is not None
            os.kill(agent.pid, signal.SIGHUP)

    result = await result_of(run)
    assert result.verified
    assert scene.effects(result.run_id) == scene.one_failover(scene.target)
    async with asyncio.timeout(WITHIN_S):
        looks = Looks()
        while any(started_agents(scene, node_id) == count for node_id, count in before):
            await looks.again()
    assert [postmaster(scene, node_id) for node_id in survivors] == databases


@needs_prometheus
async def test_prometheus_has_data_for_every_query_of_a_failover_and_a_killed_worker_changes_no_count(
    scene: Scene, tmp_path: Path
) -> None:
    lab, client, cluster_id = scene.lab, scene.control.client, scene.lab.cluster.cluster_id
    workers = scraped_at(lab.block)
    with prometheus(tmp_path, [*workers]) as server:
        await server.until(lambda: len(server.ask(CONNECTED)) == len(workers), "not every worker is scraped")
        nobody = FailoverRequest(cluster_id=cluster_id, initiated_by="nobody", reason="without a token")
        refused = await (await start_failover(client, nobody)).result()
        assert refused.outcome is RunOutcome.REFUSED
        scene.last_run_id = refused.run_id
        with scene.stalled("promote"):
            await lab.kill_node(scene.primary)
            run = await scene.next_run()
            await scene.until_waiting(run, "promote")
            lab.processes.kill(WORKER)
        start_worker(lab, scene.control.server)
        assert (await result_of(run)).verified

        store = SqliteAuditStore(
            lab.folder.audit / "audit.sqlite", lab.folder.audit / "audit-signing-key.pem"
        )
        records = await store.latest(1000)
        operations = Counter(record.operation for record in records if record.operation in COUNTED)
        verified = sum(record.result.success for record in records if record.operation == FAILOVER)
        assert 1 <= verified < operations[FAILOVER]
        counted: dict[str, object] = {}

        def equal() -> bool:
            all_runs = server.ask(f"sum by (operation) (max by (operation, status) ({RUNS.name}))")
            counted.update((one["metric"]["operation"], float(one["value"][1])) for one in all_runs)
            counted["failovers"] = server.value(f"sum(max by (status) ({EXECUTIONS.name}))")
            counted["verified"] = server.value(f"max({SUCCESSES.name})")
            return counted == {**operations, "failovers": operations[FAILOVER], "verified": verified}

        await server.until(equal, {"recorded": operations, "counted": counted})
        await (await start_readiness(client, cluster_id, by="ann")).result()
        await server.until_the_dashboard_has_data(besides=FAILURES.name)  # what was refused did not fail


async def test_a_killed_temporal_server_goes_on_where_it_was(scene: Scene) -> None:
    with scene.stalled("promote"):
        await scene.lab.kill_node(scene.primary)
        run = await scene.next_run()
        await scene.until_waiting(run, "promote")
        scene.lab.processes.kill(TEMPORAL)
    # The worker is answered now, and has nobody to tell.
    await restart_temporal(scene.control)

    result = await result_of(run)
    assert result.verified
    assert scene.effects(result.run_id) == scene.one_failover(scene.target)


async def test_a_survivor_goes_on_alone_and_who_was_given_up_comes_back_as_nobody_before_it_is_added(
    scene: Scene, qnwis: Command, tmp_path: Path
) -> None:
    lab, lost = scene.lab, (scene.primary, scene.other)
    cluster_id, files = lab.cluster.cluster_id, topology_files(scene)
    ann, dora, fay = (("--key", str(lab.folder.key(name))) for name in ("ann", "dora", "fay"))
    given_up = ("--override", *(word for node_id in lost for word in ("--lost", node_id)), "--attest-off")
    paused = await qnwis("guardian", "pause", cluster_id, "--reason", "people decide", *ann)
    assert paused.code == 0, paused
    await lab.start_clients(2, pause_ms=PAUSE_MS)
    for node_id in lost:
        await lab.kill_node(node_id)

    plan = ("--plan", str(tmp_path / "plan.json"))
    planned = await qnwis("plan", *files, "--live", *given_up, *ann, "--output", plan[1])
    assert (planned.code, "GUARANTEE SUSPENDED" in planned.out) == (0, True), planned
    executed = asyncio.create_task(qnwis("execute", *plan, *given_up, *ann, "--reason", "fire", "--json"))
    run = await scene.next_run()
    await until_asked(run)
    for person in (dora, fay):
        approved = await qnwis("approve", cluster_id, "--yes", *person)
        assert (approved.code, "GUARANTEE SUSPENDED" in approved.out) == (0, True), approved
    done = await executed
    assert (done.code, done.json["outcome"]) == (0, "completed"), done
    assert done.json["suspension"]["lost"] == list(lost)
    written = len(lab.ack_log().acks)
    await until_each_client_writes(lab, 2, to=scene.target, after=written)

    for node_id in lost:
        lab.machine(node_id).start()
    for node_id in lost:
        back = await scene.until_state(node_id, lambda state: not state.member)
        assert not back.writable
    closed = await qnwis("review", "close", cluster_id, "--reason", "both have given way", *dora)
    assert (closed.code, "is no member of it" in closed.out) == (0, True), closed

    for node_id in lost:
        added = await qnwis("member", "add", node_id, *files[:2])
        assert added.code == 0, added
        await scene.until_state(node_id, lambda state: state.streaming and state.member)
    await qnwis("guardian", "resume", cluster_id, "--reason", "all are back", *ann)


# The demonstration


async def test_no_secret_is_in_logs_histories_records_or_arguments(scene: Scene) -> None:
    """After all of the above: what the lab's secret files hold is looked for wherever else it could lie."""
    lab, folder = scene.lab, scene.lab.folder
    canaries = {secret: file for file in secret_files(folder) for secret in secrets_in(file)}
    assert len(canaries) >= 10
    arguments = [Path(f"/proc/{started.pid}/cmdline") for started in lab.processes.all() if started.alive]
    for node in lab.data_nodes:
        arguments += [Path(f"/proc/{pid}/cmdline") for pid in processes_in(lab.machine(node.node_id).home)]
    written = [path for place in (folder.logs, folder.run, folder.config) for path in place.rglob("*")]
    written += [path for n in lab.cluster.nodes for path in lab.machine(n.node_id).state_dir.rglob("*")]
    searched = 0
    for path in (*arguments, *(path for path in written if path.is_file())):
        if path.name == "pgpass":
            assert path.stat().st_mode & 0o077 == 0
            continue  # what PostgreSQL's programs read passwords from
        text = path.read_bytes()
        searched += len(text)
        found = [str(file) for secret, file in canaries.items() if secret.encode() in text]
        assert not found, f"{path} has what only {found} may have"
    assert searched > 1_000_000, "the server's database alone is larger"


def secret_files(folder: Folder) -> list[Path]:
    return [path for path in (*folder.secrets.iterdir(), *folder.pki.rglob("*.pem")) if path.name != "ca.pem"]


def secrets_in(file: Path) -> list[str]:
    """The words of a password or key file that nobody else may know."""
    text = file.read_text()
    if "PRIVATE KEY" in text:
        key = text.partition("PRIVATE KEY-----")[2].partition("-----END")[0]
        return [line for line in key.split() if len(line) > 20]
    return re.findall(r"[A-Za-z0-9+/=_-]{24,}", text)


async def test_the_maintenance_demonstration_is_verified_and_loses_nothing(root: Path) -> None:
    shown = await command("lab", "demo-maintenance", "--directory", str(root), "--json")
    assert shown.code == 0, shown
    assert shown.json["verified"] is True
    assert shown.json["writes"]["lost"] == [] and len(shown.json["writes"]["per_server"]) == 2
    result = shown.json["result"]
    assert result["fencing"]["type"] == FencingEvidenceType.RELEASED
    assert [vote["person"] for vote in result["approval"]["votes"]] == ["ann"]
    assert result["initiator_roles"] == ["continuity_operator"]
    assert left_behind(root) == []


@pytest.mark.parametrize("when", ["starting three PostgreSQL nodes", "node-1 is killed"])
async def test_ctrl_c_leaves_nothing_of_the_demonstration_behind(root: Path, when: str) -> None:
    demo = await start_command("lab", "demo", "--directory", str(root), new_session=True)
    assert demo.stderr is not None
    try:
        async with asyncio.timeout(WITHIN_S):
            while when not in (line := (await demo.stderr.readline()).decode()):
                assert line, "the demonstration has ended by itself"
            await until(lambda: len(left_behind(root)) > 1)
            os.killpg(demo.pid, signal.SIGINT)  # as a terminal does: all that run in the foreground get it
            _, said = await demo.communicate()
    finally:
        if demo.returncode is None:
            demo.kill()
    assert demo.returncode == 130, said
    assert said.decode().splitlines()[-1] == "interrupted; the lab is stopped"
    assert left_behind(root) == []


async def everything(scene: Scene) -> dict[str, object]:
    """All that a failover would change: what nodes say, what journals hold, where the name points."""
    lab = scene.lab
    assert lab.cluster.dns is not None
    states = [await scene.state(node.node_id) for node in lab.cluster.nodes]
    journals = [lab.folder.power_journal, lab.folder.dns_journal]
    journals += [lab.machine(node.node_id).state_dir / "journal.jsonl" for node in lab.cluster.nodes]
    return {
        "nodes": [(s.node_id, s.writable, s.upstream, s.timeline, s.epoch, s.streaming) for s in states],
        "journals": [path.read_text() if path.exists() else "" for path in journals],
        "dns": await Rfc2136Dns().read(lab.cluster.dns),
    }


@contextlib.asynccontextmanager
async def nobody_promotes(lab: Lab, primary: str) -> AsyncIterator[None]:
    """No database of the cluster knows how it is asked to be promoted. The primary is the same at the end."""
    listens = lab.cluster.node(primary).database
    assert listens is not None

    async def rename(name: LiteralString, other: LiteralString) -> None:
        async with await psycopg.AsyncConnection.connect(
            host=listens.host,
            port=listens.port,
            user=SUPERUSER,
            password=lab.folder.password(SUPERUSER).read_text().strip(),
            dbname="postgres",
        ) as connection:
            await connection.execute("SET allow_system_table_mods = on")
            await connection.execute(f"ALTER FUNCTION pg_catalog.{name}(boolean, integer) RENAME TO {other}")

    await rename("pg_promote", "no_promote")
    try:
        yield
    finally:
        await rename("no_promote", "pg_promote")


async def until_asked(run: Run) -> None:
    """Return once the run waits for people's votes."""
    async with asyncio.timeout(WITHIN_S):
        looks = Looks()
        while (await run.query(PrimaryFailure.progress_view)).approval is None:
            await looks.again()


async def live_plan(scene: Scene, qnwis: Command, folder: Path) -> Path:
    """A plan from the world as it is."""
    plan = folder / "plan.json"
    planned = await qnwis("plan", *topology_files(scene), "--live", "--output", str(plan))
    assert planned.code == 0, planned
    assert f"{scene.primary} → {scene.target}" in planned.out
    return plan


def topology_files(scene: Scene) -> tuple[str, ...]:
    config = scene.lab.folder.config
    return ("--cluster", str(config / "cluster.yaml"), "--policy", str(config / "policy.yaml"))


def postmaster(scene: Scene, node_id: str) -> int:
    return int((scene.lab.machine(node_id).data_dir / "postmaster.pid").read_text().splitlines()[0])


def started_agents(scene: Scene, node_id: str) -> int:
    """How often the node's agent has begun, by its log."""
    agent = scene.lab.machine(node_id).agent
    assert agent is not None
    return agent.log.read_text().count('"agent_started"')


async def result_of(run: Run) -> RunResult:
    async with asyncio.timeout(WITHIN_S):
        return await run.result()
