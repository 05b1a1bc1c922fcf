"""`python -m qnwis.agent --config agent.yaml`: run a node agent until SIGTERM.

On SIGHUP it executes itself anew, with the program and the file that are on disk then.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from functools import partial
from pathlib import Path

from aiohttp import web

from qnwis.logs import log, log_as, log_to_stderr
from qnwis.tls.files import TlsError, TlsFiles
from qnwis.transport import Transport

from .callers import Callers
from .checks import Checks
from .config import AgentConfig, ConfigError, load_config
from .database import Connection
from .deadline import HANDED_OVER, QUIESCED, Deadline
from .effects import Node
from .files import StateError
from .going_on import HandedOn, accept_signals, checked_for, go_on_at
from .guarding import Guarding
from .journal import JOURNAL, Journal
from .keeper import Keeper
from .lease import Leases, found_cluster
from .looking_over import look_over
from .members import Members
from .orders import Orders
from .peers import Peers
from .postgres import Postgres
from .priority import prefer
from .quiescing import Quiescing
from .receiving import Receiving
from .reporter import Reporter
from .server import make_app
from .speaking import Speaker

CLOSE_WITHIN_S = 0.5
"""Watchers never hang up by themselves; an order cut off here is carried out when it is sent again."""

EXIT_CONFIG = 78
"""EX_CONFIG of sysexits.h: a supervisor need not try again."""
EXIT_AGAIN = 1
"""What may be over in a moment: a supervisor tries again."""


class ListenError(Exception):
    """The address cannot be listened on now: after a power cut a machine may get it later than the agent is
    started, and a port may be taken for a moment."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m qnwis.agent", description="Run the agent of one node.")
    parser.add_argument("--config", type=Path, required=True, help="the agent's YAML file")
    parser.add_argument("--new-cluster", action="store_true", help="make it a first member, and end")
    parser.add_argument("--check", action="store_true", help="read all that a start reads, and end")
    arguments = parser.parse_args()
    return run_from(arguments.config, new_cluster=arguments.new_cluster, check=arguments.check)


def run_from(path: Path, *, new_cluster: bool = False, check: bool = False) -> int:
    """Run the agent that the file configures, or make it a first member, or only see whether it would
    start; the exit status of its process."""
    path = path.absolute()
    try:
        config = load_config(path)
        if new_cluster:
            found_cluster(config)
        elif check:
            look_over(config, checked_for())
        else:
            asyncio.run(run(config, path))
    except (ConfigError, StateError, TlsError) as error:
        print(error, file=sys.stderr)
        return EXIT_CONFIG
    except ListenError as error:
        print(error, file=sys.stderr)
        return EXIT_AGAIN
    return 0


async def run(config: AgentConfig, path: Path) -> None:
    """Wire the parts, serve until SIGTERM or SIGINT, then stop the database. `path`: the file of `config`."""
    handed_on, started_in = HandedOn.taken(), Path.cwd()
    log_to_stderr()
    log_as(cluster_id=config.cluster_id, node_id=config.node_id)
    prefer()
    config.state_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
    # Every process of a node works below the node's folder; a power switch finds them by that.
    os.chdir(config.state_dir)
    state_dir = config.state_dir
    tls = None if config.tls is None else TlsFiles(config.tls.identity_dir, config.tls.allowlist)
    peers, speaker = Peers(config), Speaker(Transport(tls=tls))
    callers = None if tls is None else Callers(tls, peers)
    leases, journal = Leases(config, peers, speaker), Journal(state_dir / JOURNAL)
    members = Members(config, leases, peers, speaker)

    node = keeper = None
    if config.database is not None:
        connection = Connection(config.database, config.database.superuser)
        postgres = Postgres(config, config.database, peers)
        quiescing = Quiescing(postgres, state_dir / QUIESCED)
        postgres.replicate_to(members.standbys, members.required_acks)
        guarding = Guarding(postgres.data_dir, state_dir / "guard.log")
        leases.on_until = guarding.tell
        receiving = Receiving(postgres, connection, state_dir, config.lease.reserve_s)
        handed_over = Deadline(state_dir / HANDED_OVER)
        node = Node(config.node_id, postgres, connection, leases, guarding, receiving, quiescing, handed_over)
        postgres.on_start = node.starting
    reporter = Reporter(config, leases, node)
    leases.on_epoch = reporter.epoch_changed
    orders = Orders(config, peers, leases, journal, node)
    checks = Checks(config, reporter, node.postgres if node is not None else None)
    app = make_app(config, checks, reporter, orders, journal, leases, members, node, callers)
    if node is not None:
        members.on_change = lambda: node.postgres.replicate_to(members.standbys, members.required_acks)
        node.postgres.on_change = reporter.database_changed
        keeper = Keeper(config, node, journal, orders.lock)

    if handed_on is not None:
        leases.go_on(handed_on.lease_until_s)
        if node is not None:
            node.guarding.go_on(handed_on.guards)

    stop, again = asyncio.Event(), asyncio.Event()
    for number, event in ((signal.SIGTERM, stop), (signal.SIGINT, stop), (signal.SIGHUP, again)):
        asyncio.get_running_loop().add_signal_handler(number, event.set)
    accept_signals()
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=CLOSE_WITHIN_S)
    await runner.setup()
    try:
        adopted = node is not None and node.postgres.adopt()
        if handed_on is None:
            # Before it grants or serves: nodes that were given up must not make a majority among themselves.
            await members.catch_up(peers.all)
        await _listen(runner, config, callers)
        log("agent_started", epoch=leases.epoch, adopted=adopted, goes_on=handed_on is not None)
        hand_on = partial(_hand_on, leases, node)
        going_on = go_on_at(again, path, started_in, config.listen_port, orders.lock, hand_on)
        running, lasting = [reporter.keep_looking(), members.keep_together(), going_on], [leases.renew()]
        if keeper is not None:
            running.append(keeper.run())
            lasting.append(keeper.enforce())
        work = [asyncio.ensure_future(one) for one in running]
        # A database that is stopped may need longer for its last checkpoint than a lease lasts.
        until_stopped = [asyncio.ensure_future(one) for one in lasting]
        stopped = asyncio.ensure_future(stop.wait())
        await asyncio.wait([stopped, *work, *until_stopped], return_when=asyncio.FIRST_COMPLETED)
        for task in (*work, *until_stopped):
            if task.done() and not stop.is_set():
                task.result()  # a fault of the agent itself: let it be seen
        for task in work:
            task.cancel()
    finally:
        await runner.cleanup()
    if node is not None and node.postgres.refuse_foreign() is None:
        await node.postgres.stop()
    for task in until_stopped:
        task.cancel()
    if node is not None:
        node.give_up()
        await leases.told()
        await node.connection.close()
    leases.close()
    await speaker.aclose()
    log("agent_stopped")


async def _hand_on(leases: Leases, node: Node | None) -> HandedOn:
    until_s = await leases.hand_on()
    guards = () if node is None else node.guarding.hand_on()
    return HandedOn(pid=os.getpid(), lease_until_s=until_s, guards=guards)


async def _listen(runner: web.AppRunner, config: AgentConfig, callers: Callers | None) -> None:
    context = None if callers is None else callers.context()
    try:
        await web.TCPSite(runner, config.listen_host, config.listen_port, ssl_context=context).start()
    except OSError as error:
        raise ListenError(
            f"cannot listen on {config.listen_host}:{config.listen_port} ({error.strerror});"
            " check listen_host and listen_port, and that no other agent of this node runs"
        ) from error


if __name__ == "__main__":
    sys.exit(main())
