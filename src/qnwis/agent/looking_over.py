"""Whether an agent would start: all that a start reads is read, and nothing is written.

When an agent executes itself anew its old program is gone before the new one reads anything, and a database
whose agent ends is ended by its guards. So what is wrong has to be found by another process before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from qnwis.tls.files import TlsError, TlsFiles

from .callers import Callers
from .config import AgentConfig, ConfigError, Tls
from .files import Owner, StateError
from .journal import JOURNAL, read_journal
from .lease import records_of
from .members import adoption_of
from .peers import Peers


def look_over(config: AgentConfig) -> None:
    """Raises ConfigError with every fault, each with its file."""
    faults: dict[str, None] = {}
    for read in _readings(config):
        try:
            read()
        except (ConfigError, StateError, TlsError) as error:
            faults[str(error)] = None  # some files are read more than once
    if faults:
        raise ConfigError("\n".join(faults))


def _readings(config: AgentConfig) -> Iterator[Callable[[], object]]:
    """The files of the agent's machine that its start reads, each read in the same way."""
    yield partial(Peers, config)
    yield partial(records_of, config)
    yield partial(adoption_of, config)
    yield partial(read_journal, config.state_dir / JOURNAL)
    if config.tls is not None:
        yield partial(_secured, config, config.tls)
    if config.database is not None:
        yield partial(Owner.named, config.database.os_user)
        yield config.database.superuser.password
        yield config.database.replication.password


def _secured(config: AgentConfig, tls: Tls) -> None:
    Callers(TlsFiles(tls.identity_dir, tls.allowlist), Peers(config)).context()
