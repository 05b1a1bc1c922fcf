"""What an agent asks its database is understood by every PostgreSQL that Debian's packages brought here.

Every other test has the newest of the wheel.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from qnwis.agent.config import Account
from qnwis.agent.database import Connection
from qnwis.continuity.topology import Database
from qnwis.lab.postgres import APP, REPLICATOR, SUPERUSER, find_installation, make_primary

from .pg import PASSWORD, free_port

HOST = "127.0.7.77"
VERSIONS = sorted(path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/postgres"))
NONE = pytest.param(
    None, marks=pytest.mark.skip(reason="Debian's packages brought no PostgreSQL here"), id="none"
)
HISTORY = "1\t0/3000000\tno recovery target specified\n"


@pytest.fixture(params=[pytest.param(path, id=path.parent.name) for path in VERSIONS] or [NONE])
def database(request: pytest.FixtureRequest) -> Iterator[tuple[Database, Account]]:
    """A primary that runs, with the history of a second timeline."""
    root = Path(tempfile.mkdtemp(prefix="qnwis-version-", dir="/var/tmp"))
    root.chmod(0o755)
    installation = find_installation(request.param, cache=root / "cache")
    data = root / "own" / "data"
    data.mkdir(parents=True, mode=0o700)
    if installation.user is not None:
        os.chown(data, installation.user.uid, installation.user.gid)
        os.chown(data.parent, installation.user.uid, installation.user.gid)
    passwords = dict.fromkeys((SUPERUSER, REPLICATOR, APP), PASSWORD)
    make_primary(installation, data, passwords=passwords, network=IPv4Network("127.0.0.0/8"), segment_mb=16)
    (data / "pg_wal" / "00000002.history").write_text(HISTORY)
    (data / "pg_wal" / "00000002.history").chmod(0o644)
    (root / "password").write_text(PASSWORD)
    port = free_port(HOST, above=20_000 + 64 * os.getpid() % 10_000)
    with (data / "postgresql.conf").open("a") as conf:
        conf.write(f"listen_addresses = '{HOST}'\nport = {port}\nunix_socket_directories = ''\nfsync = off\n")
    control = [str(request.param / "pg_ctl"), "--pgdata", str(data), "--wait"]
    installation.run([*control, "--log", str(data.parent / "log"), "start"])
    try:
        yield Database(host=HOST, port=port), Account(user=SUPERUSER, password_file=root / "password")
    finally:
        installation.run([*control, "--mode", "immediate", "stop"])
        shutil.rmtree(root)


async def test_an_agent_hears_how_its_database_is_and_which_timelines_it_had(
    database: tuple[Database, Account],
) -> None:
    connection = Connection(*database)
    try:
        assert (await connection.facts()).timeline == 1
        assert await connection.history(2) == HISTORY
        assert await connection.history(1) == ""
    finally:
        await connection.close()
