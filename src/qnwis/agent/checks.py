"""Health checks: what `/health/ready` and `/health/deep` look at, each named, with its finding."""

from __future__ import annotations

import asyncio
import os
import shutil

from qnwis.continuity.model import Model
from qnwis.continuity.topology import ReplicationMode

from .config import AgentConfig, Hook
from .postgres import Postgres
from .reporter import Report, Reporter

STREAM_SILENT_S = 10.0
"""A stream without a message for this long is broken: the receiver asks for one every 2 s."""


class Check(Model):
    name: str
    ok: bool
    detail: str


class Health(Model):
    """The answer of a health question; ok if every check is."""

    node_id: str
    status: str
    checks: tuple[Check, ...] = ()

    @property
    def ok(self) -> bool:
        return all(check.ok for check in self.checks)


class Checks:
    """Runs the checks."""

    def __init__(self, config: AgentConfig, reporter: Reporter, postgres: Postgres | None) -> None:
        """`postgres` is None for a witness."""
        self._config = config
        self._postgres = postgres
        self._reporter = reporter

    def live(self) -> Health:
        """The agent runs. Says nothing of the database."""
        return Health(node_id=self._config.node_id, status="alive")

    async def ready(self) -> Health:
        """Traffic can be served: the database answers and has room for clients."""
        report = await self._reporter.look()
        return self._health("ready", connection_check(self._config, report))

    async def deep(self) -> Health:
        """Everything a failover would depend on: replication, disk, error budget, backups."""
        report, slo_budget, backup = await asyncio.gather(
            self._reporter.look(),
            self._hook("slo_budget", self._config.slo_budget),
            self._hook("backup_freshness", self._config.backup_freshness),
        )
        return self._health(
            "healthy",
            connection_check(self._config, report),
            replication_check(self._config, report, len(self._postgres.standbys) if self._postgres else 0),
            self._disk(),
            slo_budget,
            backup,
        )

    def _health(self, good: str, *checks: Check) -> Health:
        ok = all(check.ok for check in checks)
        return Health(node_id=self._config.node_id, status=good if ok else f"not {good}", checks=checks)

    def _disk(self) -> Check:
        database = self._config.database
        folder = self._config.state_dir if database is None else database.data_dir
        try:
            free = shutil.disk_usage(folder).free
        except OSError as error:
            return Check(name="disk", ok=False, detail=f"{folder}: {error.strerror}")
        needed = self._config.min_disk_free_bytes
        return Check(name="disk", ok=free >= needed, detail=f"{free} bytes free, {needed} needed")

    async def _hook(self, name: str, hook: Hook | None) -> Check:
        if hook is None:
            return Check(name=name, ok=True, detail="not checked: no command is configured")
        try:
            process = await asyncio.create_subprocess_exec(
                *hook.command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            return Check(name=name, ok=False, detail=f"{hook.command[0]} cannot be run: {error.strerror}")
        try:
            output, _ = await asyncio.wait_for(process.communicate(), hook.timeout_s)
        except TimeoutError:
            return Check(name=name, ok=False, detail=f"no answer within {hook.timeout_s:g} s")
        finally:
            if process.returncode is None:
                os.killpg(process.pid, 9)
        first_line = output.decode(errors="replace").strip().partition("\n")[0]
        return Check(
            name=name,
            ok=process.returncode == 0,
            detail=first_line or f"exit status {process.returncode}",
        )


def connection_check(config: AgentConfig, report: Report) -> Check:
    """Whether the database answers and clients can still connect."""
    if config.database is None:
        return Check(name="database", ok=True, detail="a witness holds no data")
    facts = report.facts
    if facts is None:
        return Check(name="database", ok=False, detail=report.state.why_down or "no answer")
    kind = "standby" if facts.in_recovery else "primary"
    used = f"{kind}; {facts.clients} of {facts.client_limit} connections in use"
    return Check(name="database", ok=facts.clients < facts.client_limit, detail=used)


def replication_check(config: AgentConfig, report: Report, standbys: int) -> Check:
    """A standby streams; a primary has the standbys it needs, of the `standbys` there are."""
    if config.database is None:
        return Check(name="replication", ok=True, detail="a witness holds no data")
    state = report.state
    if state.in_recovery is None:
        return Check(name="replication", ok=False, detail="not known: the database does not answer")
    if state.in_recovery:
        age = state.last_message_age_s
        ok = state.streaming and age is not None and age < STREAM_SILENT_S
        silence = "no message yet" if age is None else f"last message {age:.1f} s ago"
        verb = "streams" if state.streaming else "does not stream"
        return Check(name="replication", ok=ok, detail=f"{verb} from {state.upstream or 'nobody'}; {silence}")
    synchronous = config.replication.mode is ReplicationMode.SYNCHRONOUS
    needed = config.replication.required_acks if synchronous else 1
    needed = min(needed, standbys)
    streaming = sorted(s.application_name for s in state.standbys if s.state == "streaming")
    return Check(
        name="replication",
        ok=len(streaming) >= needed,
        detail=f"{len(streaming)} standbys stream ({', '.join(streaming) or 'none'}), {needed} needed",
    )
