"""What an agent is told about itself and its peers: one YAML file, read once at start."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

import yaml
from pydantic import (
    AfterValidator,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails

from qnwis.continuity.addresses import is_loopback
from qnwis.continuity.backups import BackupAnswer
from qnwis.continuity.lease_messages import LeaseTerms
from qnwis.continuity.membership import Peer
from qnwis.continuity.model import Identifier, Model
from qnwis.continuity.topology import Database, NodeRole, Replication, ReplicationMode


class ConfigError(Exception):
    """The configuration cannot be used; the text names file, field, value and what was expected."""


def _absolute(path: Path) -> Path:
    if not path.is_absolute():
        raise ValueError("expected an absolute path")
    return path


AbsolutePath = Annotated[Path, AfterValidator(_absolute)]


class Account(Model):
    """A PostgreSQL role that the agent uses."""

    user: str
    password_file: AbsolutePath | None = None
    """A file holding nothing but the password; None where pg_hba.conf asks for none."""

    def password(self) -> str | None:
        """Raises ConfigError for a file that cannot be read."""
        if self.password_file is None:
            return None
        try:
            return self.password_file.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"{self.password_file}: cannot be read ({_why(error)}); expected a file with nothing but the"
                f" password of {self.user}, which the agent's user may read"
            ) from error


class Hook(Model):
    """A command that answers a deep check: exit status 0 is ok, the first line of output is the detail."""

    command: tuple[str, ...] = Field(min_length=1)
    """Program and arguments; no shell."""
    timeout_s: float = Field(default=0.4, gt=0)


class BackupSource(Model):
    """A program that knows of the backups. It runs as the agent does, without a shell."""

    command: tuple[str, ...] = Field(min_length=1)
    answer: BackupAnswer
    """The form of what it writes on standard output."""
    timeout_s: float = Field(default=10, gt=0, le=60)


class LocalDatabase(Database):
    """The PostgreSQL that this agent runs. `data_dir` exists already (initdb or `pg_basebackup -R`).

    It listens on `host` and `port`, where peers reach it, and where else it is told to.
    """

    data_dir: AbsolutePath
    """A folder of its own below the node's folder: a rejoin may put fresh copies beside it."""
    pg_bin: AbsolutePath
    """Folder of PostgreSQL's programs (postgres, pg_rewind, pg_basebackup)."""
    config_file: AbsolutePath | None = None
    """postgresql.conf where it is not in `data_dir`, as on Debian. From PostgreSQL 15 on: an older pg_rewind
    cannot be told."""
    also_listen_on: tuple[str, ...] = ()
    """Further addresses, on the same port; 127.0.0.1 for a pooler beside it."""
    socket_dirs: tuple[AbsolutePath, ...] = ()
    """Folders for Unix sockets, for clients on this machine; none by default."""
    os_user: str | None = None
    """Operating-system user for PostgreSQL's processes; needed where the agent runs as root."""
    wal_keep_mb: int = Field(default=256, ge=0)
    """MiB of log that are kept for a standby that lags, and for an old primary, to be rewound instead of
    copied anew. So much of the disk it takes, too."""
    superuser: Account
    """For the agent's own queries and, on a rejoin, for pg_rewind against the upstream."""
    replication: Account
    """For streaming and pg_basebackup."""


class Tls(Model):
    """Mutual TLS: the agent answers nobody, and asks nobody, whom the allowlist does not name."""

    identity_dir: AbsolutePath
    """Folder with identity.pem and ca.pem, as `qnwis-continuity pki` makes it."""
    allowlist: AbsolutePath


class AgentConfig(Model):
    cluster_id: Identifier
    node_id: Identifier
    role: NodeRole
    """Role in the topology; a witness has no `database`."""
    listen_host: str
    listen_port: int = Field(default=8443, ge=1, le=65535)
    plain_http: bool = False
    """Without `tls`, let others than this machine reach it: whoever does can order a promotion."""
    tls: Tls | None = Field(default=None, validate_default=True)
    """Without it the agent speaks plain HTTP: on loopback, or where `plain_http` says so."""
    state_dir: AbsolutePath
    """The agent's own folder: epoch, journal, logs. `os_user` must be able to enter it."""
    database: LocalDatabase | None = None
    peers: tuple[Peer, ...]
    """The other nodes of the cluster, witnesses included. Those of a new cluster are its first members; later
    ones, and where they are, an agent learns from its peers."""
    replication: Replication = Replication()
    lease: LeaseTerms = LeaseTerms()
    """The same on every member."""
    local_restart_s: float = Field(default=0, ge=0)
    """For so long a database that ended by itself is restarted under the lease it has; then the lease is
    released. 0 releases it at once: failover first."""
    return_after_s: float = Field(default=5, ge=0)
    """After that release, how long a run has to take over before the agent takes the lease up again."""
    min_disk_free_bytes: int = Field(default=256 * 1024 * 1024, ge=0)
    """Deep check: less free space than this below `data_dir` is not ok."""
    backup_freshness: Hook | None = None
    backup: BackupSource | None = None
    """Asked for readiness, where the policy has a `max_backup_age_s`."""
    slo_budget: Hook | None = None

    @field_validator("tls")
    @classmethod
    def _answers_not_whoever_asks(cls, tls: Tls | None, info: ValidationInfo) -> Tls | None:
        host = info.data.get("listen_host")
        if tls is None and host is not None and not is_loopback(host) and not info.data.get("plain_http"):
            raise ValueError(
                f"is absent, and listen_host is {host}, where whoever reaches it could order a promotion;"
                " expected identity_dir and allowlist (`qnwis-continuity pki` makes them; an agent that spoke"
                " plain HTTP goes over with its whole cluster), or plain_http: true where the network is the"
                " nodes' own"
            )
        return tls

    @model_validator(mode="after")
    def _coherent(self) -> Self:
        if (self.role is NodeRole.WITNESS) is not (self.database is None):
            found = "absent" if self.database is None else "present"
            raise ValueError(
                f"role is {self.role.value} and database is {found};"
                " expected a database on every node but a witness"
            )
        ids = [self.node_id, *(p.node_id for p in self.peers)]
        if len(set(ids)) != len(ids):
            raise ValueError(
                f"node ids are {ids}; expected distinct ids, and the node itself not among its peers"
            )
        data_peers = sum(1 for p in self.peers if p.database is not None)
        acks = self.replication.required_acks
        if (
            self.replication.mode is ReplicationMode.SYNCHRONOUS
            and self.database is not None
            and acks > data_peers
        ):
            raise ValueError(
                f"replication.required_acks is {acks}; expected at most {data_peers}, the peers that hold"
                " data (with more, no commit would ever return)"
            )
        return self


def load_config(path: Path) -> AgentConfig:
    """The configuration in `path`. Raises ConfigError, one line a fault."""
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path}: cannot be read ({_why(error)}); expected the agent's YAML file"
        ) from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: is not YAML: {error}") from error
    except Exception as error:
        # PyYAML's own, of many kinds: a date that no calendar has, a file too deep.
        raise ConfigError(
            f"{path}: holds what is no value ({type(error).__name__}: {error}); put texts in quotes"
        ) from error
    try:
        return AgentConfig.model_validate(data)
    except ValidationError as error:
        raise ConfigError("\n".join(_fault(path, fault) for fault in error.errors())) from error


def _why(error: OSError | UnicodeDecodeError) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else "it is no UTF-8 text"


def _fault(path: Path, fault: ErrorDetails) -> str:
    field = ".".join(map(str, fault["loc"])) or "file"
    value = "" if isinstance(fault["input"], dict) else f" (value: {fault['input']!r})"
    return f"{path}: {field}: {fault['msg']}{value}"
