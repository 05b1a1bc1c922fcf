"""The lab's power switch and its client, on real processes: an agent, and a family like PostgreSQL's."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from qnwis.agent.config import AgentConfig
from qnwis.continuity.topology import FencingHook, NodeRole
from qnwis.lab.layout import AGENT_PORT, POWER_PORT, Block, Folder, claimed_block
from qnwis.lab.nodes import NodeMachine, PoweredOffError
from qnwis.lab.processes import Processes, python_module
from qnwis.lab.procfs import kill_inside, living_inside
from qnwis.providers.errors import Refused, Unreachable
from qnwis.providers.fencing import PowerHook
from qnwis.transport import Transport

# Its child leaves its session, as PostgreSQL's backends do, and outlives it.
FAMILY = [
    sys.executable,
    "-c",
    "import subprocess, sys, time\n"
    "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'], start_new_session=True)\n"
    "time.sleep(60)",
]


@dataclass
class Switched:
    """A power switch and one node behind it."""

    block: Block
    folder: Folder
    processes: Processes

    @property
    def machine(self) -> NodeMachine:
        return NodeMachine(self.folder, self.processes, "n1")

    @property
    def hook(self) -> FencingHook:
        return FencingHook(url=f"http://{self.block.power_switch}:{POWER_PORT}/nodes/{{node_id}}/{{state}}")

    @property
    def journal(self) -> list[dict[str, object]]:
        if not self.folder.power_journal.exists():
            return []
        return [json.loads(line) for line in self.folder.power_journal.read_text().splitlines()]

    async def agent_listens(self) -> None:
        await listens(self.block.node(0), AGENT_PORT)


async def listens(host: str, port: int) -> None:
    """Return once somebody accepts connections there."""
    while True:
        try:
            _, writer = await asyncio.open_connection(host, port)
        except ConnectionRefusedError:
            await asyncio.sleep(0.02)
            continue
        writer.close()
        return


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Switched]:
    folder = Folder(tmp_path)
    with claimed_block(1) as block:
        made = Switched(block, folder, Processes(folder.processes, folder.logs))
        folder.run.mkdir()
        made.machine.state_dir.mkdir(parents=True)
        config = AgentConfig(
            cluster_id="c1",
            node_id="n1",
            role=NodeRole.WITNESS,
            listen_host=block.node(0),
            listen_port=AGENT_PORT,
            state_dir=made.machine.state_dir,
            peers=(),
        )
        made.machine.agent_config.write_text(
            yaml.safe_dump(config.model_dump(mode="json", exclude_none=True))
        )
        command = python_module(
            "qnwis.lab.power_switch",
            *("--lab", str(folder.root), "--listen", block.power_switch, "--port", str(POWER_PORT)),
        )
        made.processes.start("power-switch", command, cwd=folder.run)
        await listens(block.power_switch, POWER_PORT)
        yield made
        kill_inside(tmp_path)


@pytest.fixture
def power() -> PowerHook:
    return PowerHook(Transport())


async def test_off_kills_everything_of_the_node_and_keeps_it_down(lab: Switched, power: PowerHook) -> None:
    lab.machine.start()
    await lab.agent_listens()
    data = lab.machine.home / "data"
    data.mkdir()
    database = lab.processes.start("database", FAMILY, cwd=data)
    while len(living_inside(data)) < 2:
        await asyncio.sleep(0.01)
    answer = await power.switch(lab.hook, "n1", "off", "run-1/fence")
    assert (answer.changed, answer.detail) == (True, "n1 is off; 3 processes killed, none left")
    assert living_inside(lab.machine.home) == []
    assert not database.alive
    with pytest.raises(PoweredOffError, match="n1 is powered off"):
        lab.machine.start()
    assert living_inside(lab.machine.home) == []


async def test_a_repeated_switch_changes_nothing_and_the_journal_says_so(
    lab: Switched, power: PowerHook
) -> None:
    lab.machine.start()
    for _ in range(2):
        await power.switch(lab.hook, "n1", "off", "run-1/fence")
    for _ in range(2):
        await power.switch(lab.hook, "n1", "on", "run-1/undo")
    told = [(line["effect_id"], line["state"], line["changed"]) for line in lab.journal]
    assert told == [
        ("run-1/fence", "off", True),
        ("run-1/fence", "off", False),
        ("run-1/undo", "on", True),
        ("run-1/undo", "on", False),
    ]


async def test_on_starts_the_agent_again(lab: Switched, power: PowerHook) -> None:
    lab.machine.start()
    await power.switch(lab.hook, "n1", "off", "e1")
    assert (await power.switch(lab.hook, "n1", "on", "e2")).changed
    await lab.agent_listens()
    assert lab.machine.running


async def test_a_node_that_crashed_is_still_switched_off(lab: Switched, power: PowerHook) -> None:
    """Nothing is left to kill, but the power must be off for the node not to come back."""
    lab.machine.start()
    assert lab.machine.kill() == 1
    assert (await power.switch(lab.hook, "n1", "off", "e1")).changed
    with pytest.raises(PoweredOffError):
        lab.machine.start()


async def test_switching_at_the_same_time_ends_in_one_state(lab: Switched, power: PowerHook) -> None:
    lab.machine.start()
    states = ["off", "on"] * 4 + ["off"]
    await asyncio.gather(
        *(power.switch(lab.hook, "n1", "off" if s == "off" else "on", f"e{i}") for i, s in enumerate(states))
    )
    assert len(lab.journal) == len(states)
    assert (lab.journal[-1]["state"] == "off") is lab.machine.powered_off
    assert lab.machine.powered_off is not lab.machine.running


async def test_what_the_switch_does_not_know_is_refused(lab: Switched, power: PowerHook) -> None:
    with pytest.raises(Refused, match="no node 'n9'; expected one of n1") as caught:
        await power.switch(lab.hook, "n9", "off", "e1")
    assert caught.value.refusal.rule == "fencing_hook_refused"
    assert caught.value.refusal.values["status"] == 404
    with pytest.raises(Refused, match="effect_id"):
        await power.switch(lab.hook, "n1", "off", "")
    assert lab.journal == []


async def test_no_answer_is_unreachable_because_it_may_have_been_done(
    lab: Switched, power: PowerHook
) -> None:
    lab.processes.kill("power-switch")
    with pytest.raises(
        Unreachable, match=f"fencing hook POST http://{lab.block.power_switch}.*/nodes/n1/off"
    ):
        await power.switch(lab.hook, "n1", "off", "e1")
    with socket.create_server((lab.block.power_switch, POWER_PORT)):  # accepts, and says nothing
        slow = lab.hook.model_copy(update={"timeout_s": 0.2})
        with pytest.raises(Unreachable):
            await power.switch(slow, "n1", "off", "e1")


@pytest.mark.parametrize(
    ("status", "body"),
    [
        ("200 OK", b"<html>switched</html>"),
        ("200 OK", b'{"changed": true}'),
        ("500 Oops", b"failed half-way"),
    ],
)
async def test_an_answer_that_proves_nothing_counts_as_none(
    power: PowerHook, status: str, body: bytes
) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        hook = FencingHook(url=f"http://127.0.0.1:{port}/{{node_id}}/{{state}}")
        with pytest.raises(Unreachable, match=status.split()[0]):
            await power.switch(hook, "n1", "off", "e1")
