"""The lab as a whole: made, started, broken, repaired and stopped.

    lab = await Lab.create()
    await lab.kill_node("node-1")
    await lab.stop()

The Temporal server, the worker and the guardian are not the lab's: whoever runs them starts them through
`lab.processes`, so that `stop` ends them as well.
"""

from __future__ import annotations

import asyncio
import base64
import os
import secrets
import shutil
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import psycopg
import yaml
from psycopg.conninfo import make_conninfo

from qnwis.agent.config import Account, AgentConfig, LocalDatabase
from qnwis.agent.lease import found_cluster
from qnwis.config.registry import Registry
from qnwis.continuity.heartbeat import HeartbeatConfig
from qnwis.continuity.lease_messages import LeaseTerms
from qnwis.continuity.membership import Peer
from qnwis.continuity.model import Model
from qnwis.continuity.policy import Policy, StepEstimates, Strategy
from qnwis.continuity.topology import (
    Cluster,
    Database,
    DnsService,
    FencingHook,
    Node,
    NodeRole,
    NodeStatus,
    Replication,
    ReplicationMode,
)
from qnwis.providers.dns import Rfc2136Dns, key_file_text
from qnwis.providers.errors import Refused, Unreachable
from qnwis.providers.nodes import HttpNodes
from qnwis.transport import Transport

from .acks import AckLog, Row, read_log
from .errors import LabError
from .layout import (
    AGENT_PORT,
    DATABASE_PORT,
    DNS_PORT,
    POWER_PORT,
    Block,
    Folder,
    claimed_block,
    default_directory,
    new_password,
    prepare_directory,
    write_secret,
)
from .nodes import NodeMachine
from .postgres import (
    APP,
    APP_DATABASE,
    REPLICATOR,
    SUPERUSER,
    Installation,
    find_installation,
    make_primary,
    make_standby,
)
from .processes import Processes, Started, last_lines, python_module
from .procfs import identity, kill_inside
from .temporal_server import PROCESS_NAME as TEMPORAL
from .temporal_server import stop_server

ZONE, SERVICE = "lab.test", "db"
SERVICE_NAME = f"{SERVICE}.{ZONE}"
TTL_S = 1
LEASE = LeaseTerms(duration_s=2.5, renew_every_s=0.5)
"""So that it runs out before a killed node's third missed beat is acted on."""
NAMESERVER, POWER_SWITCH, CLIENTS = "nameserver", "power-switch", "clients"
VANTAGES = ("vantage-1", "vantage-2", "vantage-3")
"""The first stands in the worker, each other in a process of its own and of that name."""


class LabState(Model):
    """lab.json: what another command needs to know of a lab in this directory."""

    block: int
    cluster_id: str
    owner_pid: int
    """The process that made the lab and will stop it, unless `kept`."""
    owner_identity: str
    kept: bool = False
    """Left running on purpose: only a command to stop it may end it."""
    temporal_address: str | None = None
    temporal_ui: str | None = None


def lab_cluster(folder: Folder, block: Block, *, cluster_id: str, asynchronous: bool) -> Cluster:
    """The lab's topology: three nodes in two regions."""
    placed = (
        ("node-1", NodeRole.PRIMARY, "region-1", "site-a", 100),
        ("node-2", NodeRole.SECONDARY, "region-1", "site-b", 90),
        ("node-3", NodeRole.SECONDARY, "region-2", "site-c", 80),
    )
    mode = ReplicationMode.ASYNCHRONOUS if asynchronous else ReplicationMode.SYNCHRONOUS
    return Cluster(
        cluster_id=cluster_id,
        name="Lab cluster",
        regions=("region-1", "region-2"),
        nodes=tuple(
            Node(
                node_id=node_id,
                hostname=block.node(index),
                role=role,
                region=region,
                site=site,
                status=NodeStatus.HEALTHY,
                priority=priority,
                endpoint=f"http://{block.node(index)}:{AGENT_PORT}",
                database=Database(host=block.node(index), port=DATABASE_PORT),
            )
            for index, (node_id, role, region, site, priority) in enumerate(placed)
        ),
        replication=Replication(mode=mode, required_acks=1),
        heartbeat=HeartbeatConfig(interval_sec=1.0, timeout_sec=0.8, failure_threshold=3),
        vantages=VANTAGES,
        dns=DnsService(
            zone=ZONE,
            name=SERVICE,
            ttl_s=TTL_S,
            servers=(f"{block.nameserver}:{DNS_PORT}",),
            tsig_key_file=str(folder.tsig_key_file),
        ),
    )


def lab_policy() -> Policy:
    """The lab's policy: automatic, with what a failover takes here."""
    return Policy(
        policy_id="lab-policy",
        name="Lab policy",
        strategy=Strategy.AUTOMATIC,
        max_failover_time_s=60,
        region_priority=("region-1", "region-2"),
        site_priority=("site-a", "site-b", "site-c"),
        min_healthy_nodes=2,
        cooldown_s=30,
        startup_grace_s=2,
        estimates_ms=StepEstimates(
            fence_primary=300, promote_target=500, repoint_standbys=500, flip_dns=200, verify_service=500
        ),
    )


@dataclass(frozen=True)
class Lab:
    """A lab that runs. Blocking work is done in threads; every method may be called from an event loop."""

    folder: Folder
    block: Block
    cluster: Cluster
    processes: Processes
    lease: LeaseTerms = LEASE

    @classmethod
    async def create(
        cls,
        directory: Path | None = None,
        *,
        asynchronous: bool = False,
        pg_bin: Path | None = None,
        cluster_id: str | None = None,
        lease: LeaseTerms = LEASE,
    ) -> Self:
        """Make a lab and start it; returns when both standbys stream.

        An earlier lab in the directory that nobody owns any more is stopped and removed. Raises LabError,
        having stopped what was started.
        """
        root = await asyncio.to_thread(prepare_directory, (directory or default_directory()).absolute())
        folder = Folder(root)
        await asyncio.to_thread(_clear, folder)
        installation = await asyncio.to_thread(find_installation, pg_bin, cache=folder.cache)
        with claimed_block(nodes=3) as block:
            cluster_id = cluster_id or f"lab-{block.number}"
            cluster = lab_cluster(folder, block, cluster_id=cluster_id, asynchronous=asynchronous)
            lab = cls(folder, block, cluster, Processes(folder.processes, folder.logs), lease)
            try:
                await lab._start(installation)
            except BaseException:
                await lab.stop()
                raise
        return lab

    @classmethod
    def open(cls, directory: Path | None = None) -> Self:
        """The lab that is in the directory, made by another process. Raises LabError when there is none."""
        folder = Folder((directory or default_directory()).absolute())
        state = _read_state(folder)
        if state is None:
            raise LabError(f"no lab in {folder.root}; start one with `qnwis-continuity lab start`")
        cluster = Registry(folder.config).load(state.cluster_id).cluster
        return cls(folder, Block(state.block), cluster, Processes(folder.processes, folder.logs))

    @property
    def power_hook(self) -> FencingHook:
        """The power switch as a fencing hook; leases fence without it."""
        return FencingHook(url=f"http://{self.block.power_switch}:{POWER_PORT}/nodes/{{node_id}}/{{state}}")

    @property
    def primary(self) -> Node:
        """The node that was made as the primary; a failover does not change that."""
        return next(n for n in self.cluster.nodes if n.role is NodeRole.PRIMARY)

    def machine(self, node_id: str) -> NodeMachine:
        """The node as a machine. Raises KeyError for an unknown id."""
        return NodeMachine(self.folder, self.processes, self.cluster.node(node_id).node_id)

    async def kill_node(self, node_id: str) -> int:
        """SIGKILL the agent and every process of the database together; how many they were."""
        return await asyncio.to_thread(self.machine(node_id).kill)

    async def start_node(self, node_id: str) -> None:
        """Start a node's agent, and with it its database. Raises PoweredOffError while its power is off."""
        await asyncio.to_thread(self.machine(node_id).start)

    async def start_clients(self, count: int = 4, *, pause_ms: float = 2.0) -> None:
        """Start the writing clients; returns when each has had a write acknowledged."""
        command = python_module(
            "qnwis.lab.clients",
            *("--name", SERVICE_NAME, "--port", str(DATABASE_PORT)),
            *("--nameserver", self.block.nameserver, "--nameserver-port", str(DNS_PORT)),
            *("--user", APP, "--database", APP_DATABASE, "--password-file", str(self.folder.password(APP))),
            *("--clients", str(count), "--pause-ms", str(pause_ms), "--log", str(self.folder.acks)),
        )
        self.folder.acks.unlink(missing_ok=True)
        started = self.processes.start(CLIENTS, command, cwd=self.folder.run)

        async def writing() -> str | None:
            log = self.ack_log()
            silent = set(range(count)) - {ack.client for ack in log.acks}
            return f"clients {sorted(silent)} have written nothing; {log.errors[:3]}" if silent else None

        await _until_none(writing, "the clients", [started])

    async def stop_clients(self) -> None:
        await asyncio.to_thread(self.processes.stop, [CLIENTS])

    def ack_log(self) -> AckLog:
        """What the clients have seen so far."""
        return read_log(self.folder.acks)

    async def rows(self, node_id: str) -> set[Row]:
        """The clients' rows in a node's database. Raises LabError."""
        database = self.cluster.node(node_id).database
        assert database is not None
        try:
            async with await psycopg.AsyncConnection.connect(
                host=database.host,
                port=database.port,
                user=APP,
                password=self.folder.password(APP).read_text().strip(),
                dbname=APP_DATABASE,
                connect_timeout=5,
            ) as connection:
                cursor = await connection.execute("SELECT client, n FROM rows")
                return {(client, n) for client, n in await cursor.fetchall()}
        except psycopg.Error as error:
            raise LabError(f"the rows on {node_id} cannot be read: {str(error).strip()}") from error

    def keep(self) -> None:
        """Leave the lab running when this process ends: from now on only `stop` ends it."""
        self._note(kept=True)

    def note_server(self, address: str, ui_url: str | None) -> None:
        """Note which Temporal server this lab uses, for other commands."""
        self._note(temporal_address=address, temporal_ui=ui_url)

    def _note(self, **fields: object) -> None:
        _write_state(self.folder, self.state().model_copy(update=fields))

    def state(self) -> LabState:
        """What lab.json says now."""
        state = _read_state(self.folder)
        assert state is not None, f"{self.folder.state_file} is written before anything starts"
        return state

    async def stop(self) -> None:
        """End every process of the lab. Its files stay, to be looked at, until the next lab is made here."""
        await asyncio.to_thread(_stop_processes, self.folder, self.processes)

    async def _start(self, installation: Installation) -> None:
        await asyncio.to_thread(self._write_files)
        helpers = [self._start_nameserver(), self._start_power_switch()]
        await asyncio.to_thread(self._make_databases, installation)
        agents = [self.machine(node.node_id).start() for node in self.cluster.nodes]
        await _until_none(self._helpers_missing, "the DNS server and the power switch", helpers)
        transport = Transport()
        nodes = HttpNodes(transport)
        try:
            await _until_none(
                lambda: _not_streaming(nodes, self.cluster),
                "the cluster",
                agents,
                more_logs=[self.machine(n.node_id).state_dir / "postgres.log" for n in self.cluster.nodes],
            )
        finally:
            await nodes.aclose()

    def _write_files(self) -> None:
        folder = self.folder
        state = LabState(
            block=self.block.number,
            cluster_id=self.cluster.cluster_id,
            owner_pid=os.getpid(),
            owner_identity=identity(os.getpid()) or "",
        )
        _write_state(folder, state)
        for path in (folder.config, folder.run, folder.logs, folder.processes):
            path.mkdir()
        folder.nodes.mkdir(mode=0o711)
        folder.secrets.mkdir(mode=0o700)
        for role in (SUPERUSER, REPLICATOR, APP):
            write_secret(folder.password(role), new_password() + "\n")
        secret = base64.b64encode(secrets.token_bytes(32)).decode()
        write_secret(folder.tsig_key_file, key_file_text("qnwis-lab.", secret))
        for name, model in (("cluster", self.cluster), ("policy", lab_policy())):
            data = model.model_dump(mode="json", exclude_none=True)
            (folder.config / f"{name}.yaml").write_text(yaml.safe_dump(data, sort_keys=False))

    def _start_nameserver(self) -> Started:
        command = python_module(
            "qnwis.lab.nameserver",
            *("--zone", ZONE, "--record", f"{SERVICE}={self.primary.hostname}", "--ttl", str(TTL_S)),
            *("--listen", self.block.nameserver, "--port", str(DNS_PORT)),
            *("--key-file", str(self.folder.tsig_key_file), "--journal", str(self.folder.dns_journal)),
        )
        return self.processes.start(NAMESERVER, command, cwd=self.folder.run)

    def _start_power_switch(self) -> Started:
        command = python_module(
            "qnwis.lab.power_switch",
            *("--lab", str(self.folder.root)),
            *("--listen", self.block.power_switch, "--port", str(POWER_PORT)),
        )
        return self.processes.start(POWER_SWITCH, command, cwd=self.folder.run)

    def _make_databases(self, installation: Installation) -> None:
        machines = [self.machine(node.node_id) for node in self.cluster.nodes]
        user = installation.user
        for machine in machines:
            machine.home.mkdir(mode=0o711)
            machine.state_dir.mkdir(mode=0o711)
            machine.data_dir.mkdir(mode=0o700, parents=True)
            if user is not None:
                os.chown(machine.data_dir, user.uid, user.gid)
                os.chown(machine.data_dir.parent, user.uid, user.gid)
            config = self._agent_config(machine, installation)
            machine.agent_config.write_text(yaml.safe_dump(config.model_dump(mode="json", exclude_none=True)))
            found_cluster(config)
        primary, *standbys = machines
        passwords = {
            role: self.folder.password(role).read_text().strip() for role in (SUPERUSER, REPLICATOR, APP)
        }
        make_primary(installation, primary.data_dir, passwords=passwords, network=self.block.network)
        upstream = self.cluster.node(primary.node_id).database
        assert upstream is not None
        for standby in standbys:
            make_standby(
                installation,
                primary.data_dir,
                standby.data_dir,
                primary_conninfo=make_conninfo(
                    host=upstream.host,
                    port=upstream.port,
                    user=REPLICATOR,
                    password=passwords[REPLICATOR],
                    application_name=standby.node_id,
                ),
            )

    def _agent_config(self, machine: NodeMachine, installation: Installation) -> AgentConfig:
        node = self.cluster.node(machine.node_id)
        assert node.database is not None
        return AgentConfig(
            cluster_id=self.cluster.cluster_id,
            node_id=node.node_id,
            role=node.role,
            listen_host=node.hostname,
            listen_port=AGENT_PORT,
            state_dir=machine.state_dir,
            database=LocalDatabase(
                host=node.database.host,
                port=node.database.port,
                data_dir=machine.data_dir,
                pg_bin=installation.bin,
                os_user=None if installation.user is None else installation.user.name,
                superuser=Account(user=SUPERUSER, password_file=self.folder.password(SUPERUSER)),
                replication=Account(user=REPLICATOR, password_file=self.folder.password(REPLICATOR)),
            ),
            peers=tuple(
                Peer(node_id=n.node_id, agent_url=n.agent_url, database=n.database)
                for n in self.cluster.nodes
                if n.node_id != node.node_id
            ),
            replication=self.cluster.replication,
            lease=self.lease,
        )

    async def _helpers_missing(self) -> str | None:
        assert self.cluster.dns is not None
        try:
            await Rfc2136Dns(timeout_s=0.2).read(self.cluster.dns)
            _, writer = await asyncio.open_connection(self.block.power_switch, POWER_PORT)
            writer.close()
        except (Unreachable, OSError) as error:
            return str(error)
        return None


async def _not_streaming(nodes: HttpNodes, cluster: Cluster) -> str | None:
    """What is missing until the primary takes writes and every standby streams; None when nothing is."""
    try:
        states = await asyncio.gather(*(nodes.state(node, timeout_s=1.0) for node in cluster.nodes))
    except (Unreachable, Refused) as error:
        return str(error)
    for state in states:
        if state.role is NodeRole.PRIMARY:
            streaming = {s.application_name for s in state.standbys if s.state == "streaming"}
            wanted = {n.node_id for n in cluster.nodes} - {state.node_id}
            if not state.writable or streaming < wanted:
                return f"{state.node_id}: writable {state.writable}, streaming to {sorted(streaming)}"
        elif not state.streaming:
            return f"{state.node_id}: not streaming"
    return None


async def _until_none(
    missing: Callable[[], Awaitable[str | None]],
    what: str,
    processes: list[Started],
    *,
    timeout_s: float = 60.0,
    more_logs: list[Path] | None = None,
) -> None:
    """Ask until nothing is missing. Raises LabError with the reason and the logs when one of the processes
    has ended or the time is up."""
    deadline = time.monotonic() + timeout_s
    while (reason := await missing()) is not None:
        ended = [p.name for p in processes if not p.alive]
        if ended or time.monotonic() > deadline:
            why = f"{', '.join(ended)} ended" if ended else f"not ready within {timeout_s:g} s"
            logs = [p.log for p in processes if not ended or p.name in ended] + (more_logs or [])
            ends = "\n".join(f"{log} ends:\n{last_lines(log)}" for log in logs)
            raise LabError(f"{what}: {why} ({reason})\n{ends}")
        await asyncio.sleep(0.02)


def _read_state(folder: Folder) -> LabState | None:
    try:
        return LabState.model_validate_json(folder.state_file.read_text())
    except FileNotFoundError:
        return None


def _write_state(folder: Folder, state: LabState) -> None:
    beside = folder.state_file.with_suffix(".new")
    beside.write_text(state.model_dump_json(indent=2))
    beside.replace(folder.state_file)


def _clear(folder: Folder) -> None:
    """Stop and remove an earlier lab that nobody owns. Raises LabError when it is somebody's, or no lab."""
    state = _read_state(folder)
    processes = Processes(folder.processes, folder.logs)
    if state is None:
        if any(folder.root.iterdir()):
            raise LabError(f"{folder.root} holds files and no lab; give an empty or new directory")
        return
    if state.kept and any(started.alive for started in processes.all()):
        raise LabError(
            f"a lab that was kept is running in {folder.root}; end it with `qnwis-continuity lab stop`, "
            "or give another directory"
        )
    if (
        state.owner_pid != os.getpid()
        and identity(state.owner_pid) == state.owner_identity
        and not state.kept
    ):
        raise LabError(
            f"the lab in {folder.root} belongs to process {state.owner_pid}, which is running; "
            "end that one, or give another directory"
        )
    _stop_processes(folder, processes)
    for path in (folder.config, folder.logs, folder.nodes, folder.processes, folder.run, folder.secrets):
        shutil.rmtree(path, ignore_errors=True)
    folder.state_file.unlink()


def _stop_processes(folder: Folder, processes: Processes) -> None:
    """In the order in which they need each other; at last whatever is left in the folder, recorded or not."""
    names = [started.name for started in processes.all()]
    base = {TEMPORAL, NAMESERVER, POWER_SWITCH, *(name for name in names if name.startswith("agent-"))}
    processes.stop([name for name in names if name not in base])
    stop_server(processes)
    processes.stop(base, grace_s=3.0)
    kill_inside(folder.root)
