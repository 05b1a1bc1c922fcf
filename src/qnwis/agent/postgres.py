"""The local PostgreSQL: its data directory, its settings and its processes. Decides nothing."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from qnwis.continuity.membership import Peer
from qnwis.continuity.refusal import Refusal

from . import settings
from .config import AgentConfig, LocalDatabase
from .files import Owner, as_user, remove_durably, write_durably, write_if_other
from .guard import now
from .peers import Peers
from .processes import processes_in
from .taken_over import TakenOver, postmaster_pid, stale_socket_locks
from .watched import ProcessesRemainError, Watched, kill_processes_in

FAST_STOP_S = 20.0
"""A fast shutdown that takes longer is made an immediate one: the log is replayed at the next start."""
IMMEDIATE_STOP_S = 5.0
HANDED_OVER_S = 1.0
"""From the end of somebody else's postmaster to the agent's first start. Whoever stopped it looks each tenth
of a second for its postmaster.pid, and with a new one there would go on waiting for the end."""


class Postgres:
    """One data directory and at most one postmaster, the agent's child or an adopted one."""

    def __init__(self, config: AgentConfig, database: LocalDatabase, peers: Peers) -> None:
        self.config = config
        self.database = database
        self.peers = peers
        self.standbys: tuple[str, ...] = ()
        self.required_acks = config.replication.required_acks
        """node_ids of the other members that hold data: whose confirmations a commit may count."""
        self.owner = Owner.named(database.os_user)
        self.data_dir = database.data_dir
        self.on_change: Callable[[], None] = lambda: None
        """Called at each start and end of the postmaster, and when it is let down."""
        self.on_end: Callable[[], None] = lambda: None
        """Called before that when the postmaster ended by itself, not stopped by the agent."""
        self.on_start: Callable[[], None] = lambda: None
        """Called before the postmaster is started."""
        self._postmaster: Watched | None = None
        self._stopping = False
        self.started_at = 0.0
        """When the postmaster was started or adopted, in the guard's clock."""
        self.started = asyncio.Event()
        """Set while the postmaster lives."""
        self.ended_by_itself = False
        """The agent did not stop it, and nothing was done about it yet."""
        self.not_started: Refusal | None = None
        """Why it is kept down, said by who keeps it; None once it is started."""
        self.let_down = False
        """It ended by itself and gave its lease up, or would if the disk took that, and is not started for
        now; said by who keeps it."""
        self.restarting = False
        """It is being started (again), and that is not taking too long; said by who keeps it."""
        self.quiesced = False
        """New transactions are read-only ones; said by who quiesces it, written with the next settings."""
        self.tries_seldom = False
        """A standby that hears nothing of its upstream; said by who sees how long, written with the next
        settings."""
        self._passfile = self._write_passfile()
        self._taken_over = TakenOver(config.state_dir / "database", database.data_dir)

    # Processes

    @property
    def running(self) -> bool:
        """Whether the postmaster lives; it may still be starting."""
        return self.started.is_set()

    async def wait_ended(self) -> None:
        """Returns when no postmaster lives."""
        if self._postmaster is not None:
            await self._postmaster.ended.wait()

    def adopt(self) -> bool:
        """Take over a postmaster that outlived an earlier agent. False where there is none."""
        pid = postmaster_pid(self.data_dir)
        if pid is None or self.refuse_foreign() is not None:
            return False
        try:
            watched = Watched(pid, self._on_end)
        except OSError:
            return False
        # Looked at after it is held by pidfd, so the pid cannot have passed to another process in between.
        if pid not in processes_in(self.data_dir):
            watched.forget()
            return False
        self._hold(watched)
        self.reload()  # an earlier agent may have written settings and ended before it said so
        return True

    def refuse_foreign(self) -> Refusal | None:
        """Why nothing may be done to the database: somebody else's postmaster runs, and no agent of this node
        ever ran one here. It is neither ended nor taken over, and its settings stay as they are."""
        return self._taken_over.refuse_foreign(self.config.node_id)

    async def foreign_ended(self) -> None:
        """Returns when nobody else's postmaster runs, and whoever ended it has seen that."""
        if (pid := self._taken_over.foreign_pid()) is not None:
            try:
                watched = Watched(pid, lambda: None)
            except OSError:
                return
            try:
                await watched.ended.wait()
                await asyncio.sleep(HANDED_OVER_S)
            finally:
                if not watched.ended.is_set():
                    watched.forget()

    async def start(self) -> None:
        """Start the postmaster. What an earlier one left running is ended first, for it may still write.

        Raises ProcessesRemainError also where somebody else's runs.
        """
        await self._clear()
        self._taken_over.now()
        self.on_start()
        self.set_upstream(self.upstream)
        log = self.config.state_dir / "postgres.log"
        with log.open("ab") as output:
            process = subprocess.Popen(  # noqa: ASYNC220 - returns once the program runs; waiting is done by pidfd
                [self.program("postgres"), *self.located()],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self.data_dir,
                env=self.environment(),
                **as_user(self.owner),
            )
        self._hold(Watched(process.pid, self._on_end, child=process))

    async def stop(self) -> None:
        """End every process of the database and see that none is left. Raises ProcessesRemainError."""
        self._stopping, self.ended_by_itself = True, False
        if (postmaster := self._postmaster) is not None:
            for number, patience_s in ((signal.SIGINT, FAST_STOP_S), (signal.SIGQUIT, IMMEDIATE_STOP_S)):
                postmaster.send(number)
                try:
                    await asyncio.wait_for(postmaster.ended.wait(), patience_s)
                    break
                except TimeoutError:
                    continue
        await self._clear()
        if postmaster is not None:
            await postmaster.ended.wait()

    async def _clear(self) -> None:
        """See that nothing of the database is left. Raises ProcessesRemainError."""
        if (refusal := self.refuse_foreign()) is not None:
            raise ProcessesRemainError(refusal.message)
        await kill_processes_in(self.data_dir)
        # PostgreSQL takes a postmaster that was killed, but that nobody waited for yet, for a running one.
        (self.data_dir / "postmaster.pid").unlink(missing_ok=True)
        for lock in stale_socket_locks(self.database):
            lock.unlink(missing_ok=True)

    def replicate_to(self, standbys: Iterable[str], required_acks: int) -> None:
        """Have commits wait for so many of these standbys, from now on."""
        self.standbys, self.required_acks = tuple(standbys), required_acks
        if self.initialised and self.set_settings({}):
            self.reload()

    def reload(self) -> None:
        """Let the running database read its settings again."""
        if self._postmaster is not None:
            self._postmaster.send(signal.SIGHUP)

    def _hold(self, postmaster: Watched) -> None:
        self._postmaster = postmaster
        self._stopping, self.ended_by_itself = False, False
        self.started_at = now()
        self.started.set()
        self.not_started, self.let_down = None, False
        self.on_change()

    def _on_end(self) -> None:
        self._postmaster = None
        self.started.clear()
        if not self._stopping:
            self.ended_by_itself = True
            self.on_end()
        self.on_change()

    # The data directory

    @property
    def initialised(self) -> bool:
        return (self.data_dir / "PG_VERSION").exists()

    @property
    def standby(self) -> bool:
        """Whether the data directory comes up as a standby and nothing else."""
        return (self.data_dir / "standby.signal").exists()

    @property
    def upstream(self) -> Peer | None:
        """The peer that a standby follows, or would; None for a primary and for a standby cut off."""
        if not self.standby:
            return None
        conninfo = settings.read_settings(self._auto_conf()).get(settings.UPSTREAM, "")
        return settings.upstream_of(self.peers.all, conninfo)

    def set_upstream(self, upstream: Peer | None) -> bool:
        """Follow `upstream` from the next reload or start on; None cuts off. Whether anything changed."""
        if upstream is None:
            return self.set_settings({settings.UPSTREAM: None})
        user = self.database.replication.user
        conninfo = self.conninfo_of(upstream, user, application_name=self.config.node_id)
        return self.set_settings({settings.UPSTREAM: conninfo})

    def set_settings(self, changes: Mapping[str, str | None]) -> bool:
        """Write the agent's own settings and `changes`. Whether that changed anything; nothing does while
        somebody else's postmaster runs."""
        if self.refuse_foreign() is not None:
            return False
        before = self._auto_conf()
        owned = settings.owned_settings(self.config, self.database, self.standbys, self.required_acks)
        now = {settings.READ_ONLY: "on" if self.quiesced else None}
        if self.tries_seldom:
            now[settings.RETRY] = settings.SELDOM
        after = settings.merge_settings(before, {**owned, **now, **changes})
        if settings.read_settings(before) == settings.read_settings(after):
            return False
        write_durably(self.data_dir / "postgresql.auto.conf", after, self.owner)
        return True

    def keep_standby(self) -> None:
        """From the next start on, the data directory comes up as a standby and nothing else."""
        if not self.standby:
            write_durably(self.data_dir / "standby.signal", "", self.owner)

    def allow_recovery(self) -> None:
        """Take `keep_standby` back: pg_rewind's crash recovery refuses a data directory with the mark."""
        remove_durably(self.data_dir / "standby.signal")

    def _auto_conf(self) -> str:
        path = self.data_dir / "postgresql.auto.conf"
        return path.read_text() if path.exists() else ""

    # PostgreSQL's programs

    def located(self) -> list[str]:
        """With which arguments `postgres` finds its data and its configuration. Whatever data directory the
        configuration names, it is this one: what runs elsewhere, no guard would end."""
        if self.database.config_file is None:
            return ["-D", str(self.data_dir)]
        settings = {"config_file": self.database.config_file, "data_directory": self.data_dir}
        return ["-D", str(self.data_dir)] + [
            word for name, path in settings.items() for word in ("-c", f"{name}={path}")
        ]

    def program(self, name: str) -> Path:
        return self.database.pg_bin / name

    def environment(self) -> dict[str, str]:
        """Nothing of the agent's own environment but what programs need to be found and to load."""
        kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "TZ") if name in os.environ}
        return {**kept, "LC_ALL": "C"}

    def conninfo_of(self, peer: Peer, user: str, **more: str) -> str:
        """How PostgreSQL's programs reach a peer's database; the password stays in its file."""
        return settings.conninfo(peer, user, self._passfile, **more)

    def _write_passfile(self) -> Path | None:
        accounts = (self.database.replication, self.database.superuser)
        lines = [
            settings.passfile_line(account.user, password)
            for account in accounts
            if (password := account.password()) is not None
        ]
        if not lines:
            return None
        path = self.config.state_dir / "pgpass"
        write_if_other(path, "".join(lines), self.owner)
        return path
