"""Finding or getting a Temporal server, starting it, and having the search attributes it needs.

The ways are tried in order, and each that fails says so in one line:

1. a server at TEMPORAL_ADDRESS, if that is set and answers (it is used as it is, and never stopped);
2. a `temporal` command: the one QNWIS_TEMPORAL_CLI names, then PATH, then Go's bin folder;
3. the download that Temporal's Python SDK brings;
4. where Go is present, building the pinned version.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest, ListSearchAttributesRequest
from temporalio.service import RPCError
from temporalio.testing import WorkflowEnvironment

from qnwis.temporal import NoServer, UnusableSettings, connect, settings

from .errors import LabError
from .layout import Block
from .places import CONTROL
from .processes import Processes, Started, last_lines

CLI_VERSION = "v1.5.1"
CLI_MODULE = f"github.com/temporalio/cli/cmd/temporal@{CLI_VERSION}"
ADDRESS_VARIABLE = "TEMPORAL_ADDRESS"
CLI_VARIABLE = "QNWIS_TEMPORAL_CLI"
PROCESS_NAME = "temporal"

_TYPES = {
    "Text": IndexedValueType.INDEXED_VALUE_TYPE_TEXT,
    "Keyword": IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD,
    "Int": IndexedValueType.INDEXED_VALUE_TYPE_INT,
    "Double": IndexedValueType.INDEXED_VALUE_TYPE_DOUBLE,
    "Bool": IndexedValueType.INDEXED_VALUE_TYPE_BOOL,
    "Datetime": IndexedValueType.INDEXED_VALUE_TYPE_DATETIME,
    "KeywordList": IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD_LIST,
}

Say = Callable[[str], None]
"""Takes one line for the person who waits."""


@dataclass(frozen=True)
class TemporalServer:
    """A Temporal server that has answered."""

    address: str
    """host:port of its gRPC service."""
    namespace: str
    ui_url: str | None
    """None for a server that is not ours: where its web UI is cannot be asked."""
    process: Started | None
    """None for a server that is not ours."""


async def obtain_server(
    processes: Processes,
    *,
    block: Block,
    database: Path,
    search_attributes: Mapping[str, str],
    cache: Path,
    say: Say,
) -> TemporalServer:
    """A server that answers and knows the search attributes (name to type): somebody else's, or our own.

    Our own listens on the ports of `block` and keeps its state in `database`. `cache` holds a downloaded
    server.
    Raises LabError that names what to install when every way fails.
    """
    server = await external_server(say)
    if server is None:
        cli = await obtain_cli(cache, say)
        server = await start_server(processes, cli, block=block, database=database)
    await register_search_attributes(server, search_attributes)
    return server


async def external_server(say: Say) -> TemporalServer | None:
    """The server that the environment names (TEMPORAL_ADDRESS, with namespace, TLS and key as Temporal's
    tools read them), if it answers. Raises LabError where they cannot be used."""
    address = os.environ.get(ADDRESS_VARIABLE)
    if not address:
        say(f"{ADDRESS_VARIABLE} is not set: no Temporal server is given")
        return None
    try:
        client = await connect()
    except UnusableSettings as error:
        raise LabError(str(error)) from error
    except NoServer:
        say(f"no Temporal server answers at {ADDRESS_VARIABLE}={address}")
        return None
    return TemporalServer(address=address, namespace=client.namespace, ui_url=None, process=None)


async def obtain_cli(cache: Path, say: Say) -> Path:
    """A `temporal` program that runs: found, downloaded or built. Raises LabError when every way fails."""
    for where, candidate in _candidates():
        if candidate is None:
            say(f"no temporal command by {where}")
        elif await _runs(candidate, where, say):
            return candidate
    cli = await _download(cache / "temporal", say)
    if cli is None:
        cli = await _build(say)
    if cli is None:
        raise LabError(
            "no Temporal server: every way has failed (see the lines above). Install the Temporal CLI "
            f"(https://docs.temporal.io/cli) so that `temporal` is on PATH, or set {CLI_VARIABLE} to it, or "
            f"install Go 1.23+, or set {ADDRESS_VARIABLE} to a server that is running"
        )
    return cli


def _candidates() -> list[tuple[str, Path | None]]:
    named = os.environ.get(CLI_VARIABLE)
    on_path = shutil.which("temporal")
    built = _go_bin() / "temporal"
    return [
        (CLI_VARIABLE, Path(named) if named else None),
        ("PATH", Path(on_path) if on_path else None),
        (f"Go's bin folder ({built.parent})", built if built.exists() else None),
    ]


def _go_bin() -> Path:
    """Where `go install` puts programs, by Go's own rules."""
    if bin_folder := os.environ.get("GOBIN"):
        return Path(bin_folder)
    paths = os.environ.get("GOPATH", "").split(os.pathsep)
    return (Path(paths[0]) if paths[0] else Path.home() / "go") / "bin"


async def _runs(cli: Path, where: str, say: Say) -> bool:
    status, output = await _output([str(cli), "--version"], timeout_s=20.0)
    if status == 0 and "Server" in output:
        return True
    said = output.strip().splitlines()
    reason = said[-1] if said else f"exit status {status}"
    say(f"{cli} (by {where}) is not a Temporal CLI that runs: {reason}")
    return False


async def _download(folder: Path, say: Say, *, timeout_s: float = 180.0) -> Path | None:
    """The server that the SDK downloads for itself. It can only be had by letting the SDK start it once."""
    if found := _downloaded(folder):
        return found
    os.makedirs(folder, exist_ok=True)  # noqa: PTH103 - one folder, no need of a thread
    say(f"downloading a Temporal server with the SDK's own means (at most {timeout_s:g} s)")
    try:
        async with asyncio.timeout(timeout_s):
            environment = await WorkflowEnvironment.start_local(
                download_dest_dir=str(folder), dev_server_startup_timeout=timedelta(seconds=30)
            )
        await environment.shutdown()
    except (RuntimeError, TimeoutError) as error:
        say(f"the SDK's download failed: {_first_line(error) or f'not done within {timeout_s:g} s'}")
        return None
    found = _downloaded(folder)
    if found is None:
        say(f"the SDK's download left no program in {folder}")
    return found


def _downloaded(folder: Path) -> Path | None:
    programs = (p for p in sorted(folder.glob("temporal*")) if p.is_file() and os.access(p, os.X_OK))
    return next(programs, None)


async def _build(say: Say, *, timeout_s: float = 1800.0) -> Path | None:
    go = shutil.which("go")
    if go is None:
        say("no Go on PATH: the Temporal CLI cannot be built")
        return None
    say(f"building the Temporal CLI {CLI_VERSION} with Go; this takes about 4 minutes, once")
    status, output = await _output([go, "install", CLI_MODULE], timeout_s=timeout_s)
    built = _go_bin() / "temporal"
    if status != 0 or not built.exists():
        said = output.strip().splitlines()
        say(f"`go install {CLI_MODULE}` failed: {said[-1] if said else f'exit status {status}'}")
        return None
    return built if await _runs(built, "go install", say) else None


async def _output(command: Sequence[str], *, timeout_s: float) -> tuple[int | None, str]:
    """Exit status (None if it could not run, or not in time) and what the command wrote."""
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
    except OSError as error:
        return None, f"cannot be started: {error.strerror}"
    try:
        output, _ = await asyncio.wait_for(process.communicate(), timeout_s)
    except TimeoutError:
        return None, f"not done within {timeout_s:g} s"
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode, output.decode(errors="replace")


async def start_server(
    processes: Processes,
    cli: Path,
    *,
    block: Block,
    database: Path,
    timeout_s: float = 30.0,
) -> TemporalServer:
    """Start our own server, on a new database file or on that of one that was stopped or killed.

    Returns when it answers. Raises LabError with the end of its log when it ends or does not answer, and
    where the settings of Temporal's clients cannot be used.
    """
    try:
        namespace = settings().get("namespace", "default")
    except UnusableSettings as error:
        raise LabError(str(error)) from error
    command = [
        str(cli),
        *("server", "start-dev", "--log-level", "warn", "--namespace", namespace),
        *("--ip", block.temporal_listen, "--port", str(block.temporal_port)),
        *("--ui-port", str(block.temporal_ui_port)),
        # With write-ahead logging a SIGKILL loses nothing that was acknowledged, though no commit waits for
        # the disk: only a machine that loses its power may lose the last steps of its lab.
        *("--db-filename", str(database), "--sqlite-pragma", "journal_mode=wal"),
        *("--sqlite-pragma", "synchronous=normal"),
        # The default of 20 polls a second makes each step of a workflow wait for up to 50 ms.
        *("--dynamic-config-value", "history.transferProcessorMaxPollRPS=1000"),
        # Whoever decides on a step begins it, with no task in between: a fifth less work for the server.
        *("--dynamic-config-value", "system.enableActivityEagerExecution=true"),
        # By default it keeps each run in memory until it needs the place, however long ago it ended.
        *("--dynamic-config-value", 'history.cacheTTL="5m"'),
        *("--dynamic-config-value", 'history.cacheBackgroundEvict={"Enabled": true}'),
    ]
    started = processes.start(PROCESS_NAME, command, cwd=database.parent, place=block.place(CONTROL))
    target = f"{block.temporal_host}:{block.temporal_port}"
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            client = await connect(target)
            await client.count_workflows()
            break
        except (NoServer, RPCError) as error:
            alive = started.alive
            if alive and time.monotonic() < deadline:
                await asyncio.sleep(0.02)
                continue
            processes.stop([PROCESS_NAME], grace_s=0.0)
            what = f"not ready within {timeout_s:g} s" if alive else "has ended"
            raise LabError(
                f"Temporal server at {target}: {what}; its log {started.log} ends:\n{last_lines(started.log)}"
            ) from error
    ui_url = f"http://{block.temporal_host}:{block.temporal_ui_port}"
    return TemporalServer(address=target, namespace=namespace, ui_url=ui_url, process=started)


def stop_server(processes: Processes) -> None:
    """Stop our own server by SIGKILL: its own way takes over 5 s, and its database loses nothing."""
    processes.stop([PROCESS_NAME], grace_s=0.0)


async def register_search_attributes(
    server: TemporalServer, attributes: Mapping[str, str], *, timeout_s: float = 20.0
) -> None:
    """Have these search attributes (name to type, such as `Keyword`) on the server; those there stay.

    Raises LabError when one exists with another type, or when the server refuses.
    """
    wanted = {name: _indexed_type(name, kind) for name, kind in attributes.items()}
    client = await connect(server.address)
    deadline = time.monotonic() + timeout_s
    asked = False
    try:
        while True:
            listed = await client.operator_service.list_search_attributes(
                ListSearchAttributesRequest(namespace=server.namespace)
            )
            known = listed.custom_attributes
            missing = {name: kind for name, kind in wanted.items() if name not in known}
            if not missing:
                break
            if time.monotonic() > deadline:
                raise LabError(
                    f"Temporal server {server.address}: search attributes {sorted(missing)} did not appear "
                    f"within {timeout_s:g} s"
                )
            if not asked:
                await client.operator_service.add_search_attributes(
                    AddSearchAttributesRequest(namespace=server.namespace, search_attributes=missing)
                )
                asked = True
            else:
                await asyncio.sleep(0.02)
    except RPCError as error:
        raise LabError(
            f"Temporal server {server.address}: search attributes {sorted(wanted)} cannot be registered: "
            f"{error.message}; add them with `temporal operator search-attribute create`"
        ) from error
    for name, kind in wanted.items():
        if known[name] != kind:
            raise LabError(
                f"Temporal server {server.address}: search attribute {name} has type "
                f"{IndexedValueType.Name(known[name])}; expected {IndexedValueType.Name(kind)}"
            )


def _indexed_type(name: str, kind: str) -> IndexedValueType.ValueType:
    if kind not in _TYPES:
        raise LabError(f"search attribute {name}: type {kind!r}; expected one of {', '.join(_TYPES)}")
    return _TYPES[kind]


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), "")
