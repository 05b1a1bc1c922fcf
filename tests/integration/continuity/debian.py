"""A cluster as a Debian administrator has it before any agent: made by pg_createcluster, its configuration in
a folder apart from its data, its standbys by pg_basebackup, all of it run by pg_ctlcluster, which is what
systemd's unit calls.

Every node has the two folders below its own, instead of /etc/postgresql and /var/lib/postgresql.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import yaml

from qnwis.agent.config import load_config
from qnwis.agent.lease import found_cluster
from qnwis.continuity.lease_messages import LeaseTerms
from qnwis.providers.nodes import HttpNodes

from .pg import PASSWORD, TestCluster, TestNode

NAME = "main"
INSTALLED = Path("/usr/lib/postgresql")
USER = "postgres"


def why_not_here() -> str | None:
    """Why such a cluster cannot be made on this machine; None where it can."""
    if shutil.which("pg_createcluster") is None or newest() is None:
        return "Debian's postgresql is not installed (make install-system)"
    if os.getuid() != 0:
        return "pg_createcluster gives its files to another user, which takes root"
    return None


def newest() -> str | None:
    """The newest major version of Debian's that is installed; rewinding needs 15."""
    found = [int(path.parents[1].name) for path in INSTALLED.glob("*/bin/postgres")]
    return str(max(found)) if found and max(found) >= 15 else None


class DebianCluster(TestCluster):
    """Three nodes; their databases run, and no agent was ever started."""

    __test__ = False

    def __init__(self, root: Path, nodes: HttpNodes, *, settings: str = "") -> None:
        """`settings`: lines of the administrator's own, in conf.d."""
        super().__init__(root, nodes, synchronous=False, lease=LeaseTerms())
        version = newest()
        assert version is not None, why_not_here()
        self.version = version
        self._own = settings
        self.backup = root / "backup.json"
        """What the agents find when they ask for the newest backup."""

    def etc(self, member: TestNode) -> Path:
        """The folder that is /etc/postgresql/15/main elsewhere."""
        return member.folder / "etc" / self.version / NAME

    def sockets(self, member: TestNode) -> Path:
        return member.folder / "run"

    async def make(self) -> None:
        """Make the primary and its standbys, and start them."""
        for name in ("super", "replicator"):
            (self.root / f"{name}.password").write_text(PASSWORD + "\n")
            (self.root / f"{name}.password").chmod(0o644)
        for member in self.members.values():
            for folder in (member.folder, member.folder / "state", self.sockets(member)):
                folder.mkdir()
            shutil.chown(self.sockets(member), USER)
        primary = self["n1"]
        await self.control(primary, "pg_createcluster", *self._made_as(primary))
        self._write_own_settings(primary)
        await self.ctl(primary, "start")
        roles = (
            f"CREATE ROLE super SUPERUSER LOGIN PASSWORD {_quoted(PASSWORD)};"
            f"CREATE ROLE replicator LOGIN REPLICATION PASSWORD {_quoted(PASSWORD)}"
        )
        await self.run_as_postgres("psql", "-h", self.sockets(primary), *self._port(), "-c", roles)
        for member in self.members.values():
            if member is not primary:
                await self._configure_as(primary, member)
                await self._copy(primary, member)
                await self.ctl(member, "start")
        for member in self.members.values():
            member.config.write_text(yaml.safe_dump(self._agent_yaml(member)))
            found_cluster(load_config(member.config))

    async def ctl(self, member: TestNode, action: str) -> None:
        """What the unit postgresql@15-main does."""
        mode = ("-m", "fast") if action == "stop" else ()
        command = ("pg_ctlcluster", "--skip-systemctl-redirect", *mode, self.version, NAME, action)
        await self.control(member, *command)

    async def control(self, member: TestNode, *command: object) -> None:
        environment = {"PG_CLUSTER_CONF_ROOT": str(member.folder / "etc")}
        await _run(command, environment=environment)

    async def run_as_postgres(self, *command: object) -> None:
        await _run(("setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", *command))

    def _made_as(self, member: TestNode) -> tuple[object, ...]:
        log = member.folder / "postgresql.log"
        return (
            *(self.version, NAME, "--user", USER, "--datadir", member.data_dir, "--logfile", log),
            *("--socketdir", self.sockets(member), *self._port(), "--", "--no-sync", "--encoding", "UTF8"),
        )

    async def _configure_as(self, primary: TestNode, member: TestNode) -> None:
        """The same files, for other folders."""
        await _run(("cp", "-a", primary.folder / "etc", member.folder / "etc"))
        (self.etc(member) / "log").unlink()
        (self.etc(member) / "log").symlink_to(member.folder / "postgresql.log")
        conf = self.etc(member) / "postgresql.conf"
        conf.write_text(conf.read_text().replace(f"{primary.folder}/", f"{member.folder}/"))
        self._write_own_settings(member)

    def _write_own_settings(self, member: TestNode) -> None:
        database = member.node.database
        assert database is not None
        (self.etc(member) / "conf.d" / "own.conf").write_text(
            f"listen_addresses = '{database.host}'\n"
            # The default is one for all clusters of that name on the machine.
            f"external_pid_file = '{self.sockets(member)}/{self.version}-{NAME}.pid'\n"
            "shared_buffers = '16MB'\nfsync = off\nmax_connections = 20\n" + self._own
        )

    async def _copy(self, primary: TestNode, member: TestNode) -> None:
        database = primary.node.database
        assert database is not None
        passfile = self.root / "pgpass"
        escaped = PASSWORD.replace("\\", "\\\\").replace(":", "\\:")
        passfile.write_text(f"*:*:*:replicator:{escaped}\n")
        shutil.chown(passfile, USER)
        passfile.chmod(0o600)
        conninfo = f"host={database.host} port={database.port} user=replicator passfile={passfile}"
        shutil.chown(member.folder, USER)  # as /var/lib/postgresql/15 is
        await self.run_as_postgres(
            *("pg_basebackup", "--dbname", conninfo, "--pgdata", member.data_dir, "--checkpoint", "fast"),
            *("--write-recovery-conf", "--no-sync"),
        )

    def _port(self) -> tuple[str, str]:
        database = self["n1"].node.database
        assert database is not None
        return ("--port", str(database.port))

    def _agent_yaml(self, member: TestNode) -> dict[str, Any]:
        config = self._config(member, INSTALLED / self.version / "bin")
        more = {
            "os_user": USER,
            "config_file": str(self.etc(member) / "postgresql.conf"),
            "socket_dirs": [str(self.sockets(member))],
        }
        backup = {"command": ["/bin/cat", str(self.backup)], "answer": "time"}
        return {**config, "backup": backup, "database": {**config["database"], **more}}


async def _run(command: tuple[object, ...], *, environment: dict[str, str] | None = None) -> None:
    done = await asyncio.to_thread(
        subprocess.run,
        [str(word) for word in command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd="/",
        env={"PATH": os.environ["PATH"], "LC_ALL": "C", **(environment or {})},
        text=True,
    )
    assert done.returncode == 0, f"{command}: status {done.returncode}\n{done.stdout}"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
