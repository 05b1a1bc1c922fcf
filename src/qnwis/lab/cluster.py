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
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, LiteralString, Self

import psycopg
import yaml

from qnwis.config.registry import Registry
from qnwis.continuity.topology import Cluster, FencingHook, Node, NodeRole
from qnwis.providers.dns import Rfc2136Dns, key_file_text
from qnwis.providers.errors import Unreachable
from qnwis.providers.nodes import HttpNodes
from qnwis.providers.region_services import services

from .acks import AckLog, Row, read_log
from .active import ITEMS, RENEW_S, ActiveRegions
from .certificates import Certificates
from .clearing import NAMESERVER, POWER_SWITCH, clear, stop_processes
from .errors import LabError
from .history import History, read_history
from .layout import (
    DATABASE_PORT,
    DNS_PORT,
    POWER_PORT,
    Block,
    Folder,
    Ground,
    claimed_block,
    default_directory,
    new_password,
    prepare_directory,
    write_secret,
)
from .making import Making
from .nodes import NodeMachine, machine_of
from .people import make_people
from .places import CLIENTS, DNS, POWER, Place
from .postgres import APP, APP_DATABASE, REPLICATOR, SUPERUSER, Installation, find_installation
from .processes import Processes, Started, python_module
from .procfs import identity
from .shape import (
    SERVICE,
    SERVICE_NAME,
    SRV,
    THREE_NODES,
    TTL_S,
    VANTAGES,
    ZONE,
    Shape,
    lab_cluster,
    lab_policy,
)
from .state import LabState, read_state, write_state
from .waiting import not_streaming, silent, until_none

ASKING = ("worker", *VANTAGES[1:])
"""The parts of a control plane that ask agents."""


@dataclass(frozen=True)
class Lab:
    """A lab that runs. Blocking work is done in threads; every method may be called from an event loop."""

    folder: Folder
    block: Block
    cluster: Cluster
    processes: Processes
    certificates: Certificates

    @classmethod
    async def create(
        cls,
        directory: Path | None = None,
        *,
        shape: Shape = THREE_NODES,
        pg_bin: Path | None = None,
        cluster_id: str | None = None,
        cache: Path | None = None,
        ground: Ground = claimed_block,
        certificates: Certificates | None = None,
    ) -> Self:
        """Make a lab on the addresses that `ground` gives and start it; returns when every standby streams.
        `certificates`: of a lab that it shares its control plane with.

        An earlier lab in the directory that nobody owns any more is stopped and removed. Raises LabError,
        having stopped what was started.
        """
        root = await asyncio.to_thread(prepare_directory, (directory or default_directory()).absolute())
        folder = Folder(root)
        await asyncio.to_thread(clear, folder)
        installation = await asyncio.to_thread(find_installation, pg_bin, cache=cache or folder.cache)
        with ground(shape.members) as block:
            cluster_id = cluster_id or f"lab-{block.number}"
            cluster = lab_cluster(shape, folder, block, cluster_id=cluster_id)
            processes = Processes(folder.processes, folder.logs)
            lab = cls(folder, block, cluster, processes, certificates or Certificates(folder))
            try:
                await lab._start(shape, installation)
            except BaseException:
                await lab.stop()
                raise
        return lab

    @classmethod
    def open(cls, directory: Path | None = None) -> Self:
        """The lab that is in the directory, made by another process. Raises LabError when there is none."""
        folder = Folder((directory or default_directory()).absolute())
        state = read_state(folder)
        if state is None:
            raise LabError(f"no lab in {folder.root}; start one with `qnwis-continuity lab start`")
        cluster = Registry(folder.config).load(state.cluster_id).cluster
        certificates = Certificates(Folder(state.certificates_of or folder.root))
        return cls(folder, state.block, cluster, Processes(folder.processes, folder.logs), certificates)

    @property
    def stopped(self) -> bool:
        """Whether nothing of it runs any more."""
        return not any(started.alive for started in self.processes.all())

    @property
    def power_hook(self) -> FencingHook:
        """The power switch as a fencing hook; leases fence without it."""
        return FencingHook(url=f"http://{self.block.power_switch}:{POWER_PORT}/nodes/{{node_id}}/{{state}}")

    @property
    def active(self) -> ActiveRegions:
        """The databases of an active/active lab's regions."""
        return ActiveRegions(self.cluster, self.folder)

    @property
    def primary(self) -> Node:
        """The node that was made as the primary, of several the first; a failover does not change that."""
        return next(n for n in self.cluster.nodes if n.role is NodeRole.PRIMARY)

    def machine(self, node_id: str) -> NodeMachine:
        """The node as a machine. Raises KeyError for an unknown id."""
        return machine_of(self.folder, self.processes, self.cluster.node(node_id).node_id)

    async def kill_node(self, node_id: str) -> int:
        """SIGKILL the agent and every process of the database together; how many they were."""
        return await asyncio.to_thread(self.machine(node_id).kill)

    async def start_node(self, node_id: str) -> None:
        """Start a node's agent, and with it its database. Raises PoweredOffError while its power is off."""
        await asyncio.to_thread(self.machine(node_id).start)

    async def restore_node(self, node_id: str) -> bool:
        """Give a node its power back and start its agent, if that does not run; returns when it answers.
        Whether that changed anything. Raises LabError where it does not."""
        machine, node = self.machine(node_id), self.cluster.node(node_id)
        changed = await asyncio.to_thread(machine.power_on)
        agents = [] if machine.agent is None else [machine.agent]
        async with HttpNodes(self.certificates.transport) as nodes:
            await until_none(lambda: silent(nodes, node), f"the agent of {node_id}", agents)
        return changed

    async def start_clients(self, count: int = 4, *, pause_ms: float = 2.0) -> None:
        """Start the clients of the service's name; returns when each has had a write acknowledged."""
        self.folder.history.unlink(missing_ok=True)
        started = self._start_writers(
            CLIENTS,
            *("--name", SERVICE_NAME, "--clients", str(count), "--pause-ms", str(pause_ms)),
            *self._as_of_several_regions(),
            *("--nameserver", self.block.nameserver, "--nameserver-port", str(DNS_PORT)),
            nodes=self.data_nodes,
            log=self.folder.history,
            place=self.block.place(CLIENTS),
        )

        async def writing() -> str | None:
            log = self.ack_log()
            silent = {str(number) for number in range(count)} - {ack.client for ack in log.acks}
            return f"clients {sorted(silent)} have written nothing; {log.errors[:3]}" if silent else None

        await until_none(writing, "the clients", [started])

    def _as_of_several_regions(self) -> tuple[str, ...]:
        """What tells the clients of an active/active lab from those that one primary serves."""
        if not self.cluster.is_active_active:
            return ()
        return ("--service", SRV, "--items", str(ITEMS), "--renew-s", str(RENEW_S))

    def start_pinned_clients(self, *, pause_ms: float = 50.0) -> None:
        """On each node's own machine, start a client that writes to that node's database and no other."""
        for node in self.data_nodes:
            self._start_writers(
                _pinned(node),
                *("--pinned", "--pause-ms", str(pause_ms)),
                nodes=[node],
                log=self.folder.pinned_history(node.node_id),
                place=self.block.place(node.node_id),
            )

    def _start_writers(
        self, name: str, *arguments: str, nodes: Sequence[Node], log: Path, place: Place
    ) -> Started:
        command = python_module(
            "qnwis.lab.clients",
            *arguments,
            *(f"--server={node.node_id}={node.hostname}" for node in nodes),
            *("--port", str(DATABASE_PORT), "--user", APP, "--database", APP_DATABASE),
            *("--password-file", str(self.folder.password(APP)), "--log", str(log)),
        )
        return self.processes.start(name, command, cwd=self.folder.run, place=place)

    async def stop_clients(self) -> None:
        """Stop every client; of the pinned ones as well."""
        names = [CLIENTS, *(_pinned(node) for node in self.data_nodes)]
        await asyncio.to_thread(self.processes.stop, names)

    def history(self) -> History:
        """Every write that clients have attempted since they were started."""
        pinned = [self.folder.pinned_history(node.node_id) for node in self.data_nodes]
        return read_history(self.folder.history, *pinned)

    @property
    def data_nodes(self) -> list[Node]:
        return [node for node in self.cluster.nodes if node.holds_data]

    def ack_log(self) -> AckLog:
        """What the clients have seen so far."""
        return read_log(self.folder.history)

    async def begin_log_file(self, node_id: str) -> None:
        """Have the node's database, a primary, begin the next file of its write-ahead log, as it would after
        more writes. Raises LabError."""
        await self._ask(node_id, SUPERUSER, "postgres", "SELECT pg_switch_wal()")

    async def rows(self, node_id: str) -> set[Row]:
        """The clients' rows in a node's database. Raises LabError."""
        found = await self._ask(node_id, APP, APP_DATABASE, "SELECT client, n FROM rows")
        return {(str(client), int(n)) for client, n in found}

    async def _ask(self, node_id: str, user: str, database: str, query: LiteralString) -> list[Any]:
        """The rows of a query to a node's database. Raises LabError."""
        listens = self.cluster.node(node_id).database
        assert listens is not None
        try:
            async with await psycopg.AsyncConnection.connect(
                host=listens.host,
                port=listens.port,
                user=user,
                password=self.folder.password(user).read_text().strip(),
                dbname=database,
                connect_timeout=5,
            ) as connection:
                cursor = await connection.execute(query)
                return await cursor.fetchall()
        except psycopg.Error as error:
            raise LabError(f"{node_id} does not answer `{query}`: {str(error).strip()}") from error

    def keep(self) -> None:
        """Leave the lab running when this process ends: from now on only `stop` ends it."""
        self._note(kept=True)

    def note_server(self, address: str, ui_url: str | None) -> None:
        """Note which Temporal server this lab uses, for other commands."""
        self._note(temporal_address=address, temporal_ui=ui_url)

    def _note(self, **fields: object) -> None:
        write_state(self.folder, self.state().model_copy(update=fields))

    def state(self) -> LabState:
        """What lab.json says now."""
        state = read_state(self.folder)
        assert state is not None, f"{self.folder.state_file} is written before anything starts"
        return state

    async def stop(self) -> None:
        """End every process of the lab. Its files stay, to be looked at, until the next lab is made here."""
        await asyncio.to_thread(stop_processes, self.folder, self.processes)

    async def _start(self, shape: Shape, installation: Installation) -> None:
        await asyncio.to_thread(self._write_files, shape)
        helpers = [self.start_nameserver(), *([self._start_power_switch()] if shape.power_switch else [])]
        await asyncio.to_thread(self._make_certificates)
        making = Making(self.folder, self.block, self.cluster, shape, installation, self.certificates)
        await asyncio.to_thread(making.make, [self.machine(node.node_id) for node in self.cluster.nodes])
        agents = [self.machine(node.node_id).start() for node in self.cluster.nodes]
        await until_none(
            lambda: self._helpers_missing(power_switch=shape.power_switch),
            "the DNS server and the power switch",
            helpers,
        )
        nodes = HttpNodes(self.certificates.transport)
        try:
            await until_none(
                lambda: not_streaming(nodes, self.cluster),
                "the cluster",
                agents,
                more_logs=[self.machine(n.node_id).state_dir / "postgres.log" for n in self.cluster.nodes],
            )
        finally:
            await nodes.aclose()
        if self.cluster.is_active_active:
            await self.active.found()

    def _make_certificates(self) -> None:
        if self.certificates.folder == self.folder:
            self.certificates.begin(ASKING)
        self.certificates.enroll(self.cluster)

    def _write_files(self, shape: Shape) -> None:
        folder = self.folder
        state = LabState(
            block=self.block,
            cluster_id=self.cluster.cluster_id,
            owner_pid=os.getpid(),
            owner_identity=identity(os.getpid()) or "",
            agent_module=shape.agent_module,
            certificates_of=self.certificates.folder.root,
        )
        write_state(folder, state)
        for path in (folder.config, folder.run, folder.logs, folder.processes):
            path.mkdir()
        folder.nodes.mkdir(mode=0o711)
        folder.secrets.mkdir(mode=0o700)
        for role in (SUPERUSER, REPLICATOR, APP):
            write_secret(folder.password(role), new_password() + "\n")
        password = folder.password(SUPERUSER).read_text().strip()
        write_secret(folder.passfile, f"*:*:*:{SUPERUSER}:{password}\n")
        secret = base64.b64encode(secrets.token_bytes(32)).decode()
        write_secret(folder.tsig_key_file, key_file_text("qnwis-lab.", secret))
        for name, model in (("cluster", self.cluster), ("policy", lab_policy(shape))):
            data = model.model_dump(mode="json", exclude_none=True)
            (folder.config / f"{name}.yaml").write_text(yaml.safe_dump(data, sort_keys=False))
        make_people(folder)

    def start_nameserver(self) -> Started:
        command = python_module(
            "qnwis.lab.nameserver",
            *("--zone", ZONE, "--ttl", str(TTL_S), *self._records()),
            *("--listen", self.block.nameserver, "--port", str(DNS_PORT)),
            *("--key-file", str(self.folder.tsig_key_file), "--journal", str(self.folder.dns_journal)),
            *("--refusing", str(self.folder.dns_refusing)),
        )
        return self.processes.start(NAMESERVER, command, cwd=self.folder.run, place=self.block.place(DNS))

    def _records(self) -> list[str]:
        """The service's records as the zone begins with them."""
        service = self.cluster.dns
        if service is None or service.srv is None:
            return ["--record", f"{SERVICE}={self.primary.hostname}"]
        weights = {share.region: share.weight for share in self.cluster.shares}
        records = [f"--service={SRV}.{SERVICE}={text}" for text in services(self.cluster, service, weights)]
        return [*records, *(f"--record={n.region}.{SERVICE}={n.hostname}" for n in self.cluster.primaries)]

    def _start_power_switch(self) -> Started:
        command = python_module(
            "qnwis.lab.power_switch",
            *("--lab", str(self.folder.root)),
            *("--listen", self.block.power_switch, "--port", str(POWER_PORT)),
        )
        return self.processes.start(POWER_SWITCH, command, cwd=self.folder.run, place=self.block.place(POWER))

    async def _helpers_missing(self, *, power_switch: bool) -> str | None:
        assert self.cluster.dns is not None
        try:
            await Rfc2136Dns(timeout_s=0.2).read(self.cluster.dns)
            if power_switch:
                _, writer = await asyncio.open_connection(self.block.power_switch, POWER_PORT)
                writer.close()
        except (Unreachable, OSError) as error:
            return str(error)
        return None


def _pinned(node: Node) -> str:
    """Name of the process of a node's pinned client."""
    return f"pinned-{node.node_id}"
