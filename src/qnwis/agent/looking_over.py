"""Whether an agent would start: all that a start reads is read, its address is tried, and nothing is written.

When an agent executes itself anew its old program is gone before the new one reads anything, and a database
whose agent ends is ended by its guards. So what is wrong has to be found by another process before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from qnwis.tls.files import TlsError, TlsFiles

from .callers import Callers
from .config import AgentConfig, ConfigError, Tls
from .deadline import HANDED_OVER, QUIESCED
from .files import Owner, StateError
from .journal import JOURNAL, read_journal
from .lease import records_of
from .members import adoption_of
from .peers import Peers
from .receiving import HELD_UPSTREAM
from .two_copies import read_copies


def look_over(config: AgentConfig, listens_on: int | None) -> None:
    """Raises ConfigError with every fault, each with its file. `listens_on`: the port of the agent that would
    go on, in whose folder this process works; None where nobody would."""
    faults: dict[str, None] = {}
    for read in _readings(config, listens_on):
        try:
            read()
        except (ConfigError, StateError, TlsError) as error:
            faults[str(error)] = None  # some files are read more than once
    if faults:
        raise ConfigError("\n".join(faults))


def _readings(config: AgentConfig, listens_on: int | None) -> Iterator[Callable[[], object]]:
    """What the agent's start reads of its machine, each read in the same way."""
    yield partial(_listen, config, listens_on)
    if listens_on is not None:
        yield partial(_remember, config)
    yield partial(Peers, config)
    yield partial(records_of, config)
    yield partial(adoption_of, config)
    yield partial(read_journal, config.state_dir / JOURNAL)
    if config.tls is not None:
        yield partial(_secured, config, config.tls)
    if config.database is not None:
        for name in (QUIESCED, HANDED_OVER, HELD_UPSTREAM):
            yield partial(read_copies, config.state_dir / name)
        yield partial(Owner.named, config.database.os_user)
        yield config.database.superuser.password
        yield config.database.replication.password


def _secured(config: AgentConfig, tls: Tls) -> None:
    Callers(TlsFiles(tls.identity_dir, tls.allowlist), Peers(config)).context()


def _listen(config: AgentConfig, listens_on: int | None) -> None:
    """Try the address; the port only where nobody is known to listen on it: the agent itself may."""
    port = 0 if listens_on in (None, config.listen_port) else config.listen_port
    try:
        asyncio.run(_bind(config.listen_host, port))
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {config.listen_host}:{config.listen_port} ({error.strerror});"
            " check listen_host and listen_port"
        ) from error


async def _bind(host: str, port: int) -> None:
    """As a start does, without the last step."""
    loop = asyncio.get_running_loop()
    (await loop.create_server(asyncio.Protocol, host, port, start_serving=False)).close()


def _remember(config: AgentConfig) -> None:
    """What the agent has promised and granted, its next program has to know."""
    there = config.state_dir.exists() and config.state_dir.samefile(Path())
    if not there or records_of(config)[0] is None:
        raise ConfigError(
            f"state_dir is {config.state_dir}, which is not where the agent that runs has its records; to"
            " move them, stop the agent, move the whole folder, and start it again"
        )
