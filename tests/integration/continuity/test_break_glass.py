"""The printed steps, carried out with bash as they stand, on a lab that has no control plane at all.

The first two share one lab; each starts from a cluster whose three nodes stream, whoever is the primary by
then. What is UNFENCED is carried out on databases alone.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from qnwis.agent.config import load_config
from qnwis.agent.files import Owner, as_user
from qnwis.continuity.assessment import assess
from qnwis.continuity.break_glass import break_glass, markdown
from qnwis.continuity.break_glass_shell import TOOLS
from qnwis.continuity.evidence import NodeState
from qnwis.continuity.lease_messages import Membership
from qnwis.continuity.run import FailoverRequest
from qnwis.continuity.topology import Cluster
from qnwis.lab.acks import analyse
from qnwis.lab.cluster import Lab
from qnwis.lab.postgres import SUPERUSER
from qnwis.providers.dns import Rfc2136Dns
from qnwis.providers.evidence import collect_evidence
from qnwis.providers.nodes import HttpNodes
from qnwis.transport import Transport
from tests.looking import Looks
from tests.unit.continuity.scenes import policy

from .pg import PASSWORD, TestNode, os_user, running_cluster
from .real import PAUSE_MS, WITHIN_S, Said, command, kill, lab_directory, until, until_state

MISSING = [tool for tool in TOOLS if shutil.which(tool) is None]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"no {', '.join(MISSING)}: make install-system")

CLIENTS = 3


@dataclass(frozen=True)
class Hands:
    """A person with a shell: a lab, the steps that were printed for it, and a directory to stand in."""

    lab: Lab
    nodes: HttpNodes
    here: Path

    async def states(self) -> dict[str, NodeState]:
        return {
            node.node_id: await until_state(self.lab, self.nodes, node.node_id, lambda _: True)
            for node in self.lab.cluster.nodes
        }

    @property
    def files(self) -> tuple[str, ...]:
        config = self.lab.folder.config
        return ("--cluster", str(config / "cluster.yaml"), "--policy", str(config / "policy.yaml"))

    async def say(self, *arguments: str) -> Said:
        """What a command answers to whoever uses the lab."""
        return await command(*arguments, env=self.lab.certificates.environment())

    async def print(self, *options: str) -> str:
        """The steps, as Markdown; the JSON lies beside it."""
        steps = self.here / "steps.md"
        said = await self.say("break-glass", "plan", *self.files, *options, "--output", str(steps))
        assert said.code == 0, said
        return steps.read_text()

    async def paste(self, block: str) -> str:
        """What bash prints for one block, which goes on."""
        process = await asyncio.create_subprocess_exec(
            *("bash", "-c", block),
            cwd=self.here,
            env={
                **os.environ,
                **self.lab.certificates.environment(),
                "PGUSER": SUPERUSER,
                "PGPASSWORD": self.lab.folder.password(SUPERUSER).read_text().strip(),
            },
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        async with asyncio.timeout(WITHIN_S):
            out, _ = await process.communicate()
        printed = out.decode()
        assert process.returncode == 0 and printed.endswith("==> go on\n"), f"{block}\n{printed}"
        return printed

    async def print_region(self, region: str) -> str:
        """The one sheet of those by which the region is left; the JSON lies beside it."""
        config, sheets = str(self.lab.folder.config), self.here / "sheets"
        said = await self.say(
            "break-glass", "region", region, "--config-dir", config, "--output", str(sheets)
        )
        assert said.code == 0, said
        sheet = sheets / f"01-{self.lab.cluster.cluster_id}.md"
        assert f"`{sheet.name}`" in (sheets / "00-index.md").read_text()
        shutil.copy(sheet.with_suffix(".json"), self.here / "steps.json")
        return sheet.read_text()

    async def record(self, *options: str) -> Said:
        folder = self.lab.folder
        return await self.say(
            *(
                "break-glass",
                "record",
                "--plan",
                str(self.here / "steps.json"),
                "--reason",
                "Temporal is gone",
            ),
            *("--answers", str(next(self.here.glob("break-glass-*/"))), "--config-dir", str(folder.config)),
            *("--key", str(folder.key("bob")), "--state-dir", str(folder.audit), "--json", *options),
        )

    async def addresses(self) -> set[tuple[str, ...]]:
        assert self.lab.cluster.dns is not None
        return set((await Rfc2136Dns().read(self.lab.cluster.dns)).values())

    async def writing_to(self, node_id: str) -> None:
        """Return once every client has had a write acknowledged by this node."""

        def writes() -> bool:
            acks = [ack for ack in self.lab.ack_log().acks if ack.server == node_id]
            return len({ack.client for ack in acks}) == CLIENTS

        await until(writes)


@pytest.fixture(scope="module")
async def lab() -> AsyncIterator[Lab]:
    with lab_directory() as root:
        lab = await Lab.create(root)
        try:
            yield lab
        finally:
            await kill(lab)


@pytest.fixture
async def hands(lab: Lab, tmp_path: Path) -> AsyncIterator[Hands]:
    async with HttpNodes(lab.certificates.transport) as nodes:
        yield Hands(lab, nodes, tmp_path)
        await lab.stop_clients()


async def test_the_printed_steps_fail_over_by_hand_and_are_recorded_afterwards(hands: Hands) -> None:
    lab = hands.lab
    await lab.start_clients(CLIENTS, pause_ms=PAUSE_MS)
    (primary,) = [node_id for node_id, state in (await hands.states()).items() if state.writable]
    await lab.kill_node(primary)

    plan = hands.here / "plan.json"
    planned = await hands.say("plan", *hands.files, "--live", "--output", str(plan), "--json")
    assert f"digest `{planned.json['digest']}`" in await hands.print("--plan", str(plan))
    region = lab.cluster.node(primary).region
    steps = await hands.print_region(region)
    assert lab.cluster.node(names(steps)["target"]).region != region
    for block in blocks(steps):
        await hands.paste(block)

    target, other = names(steps)["target"], names(steps)["other"]
    assert names(steps)["primary"] == primary
    new = await until_state(lab, hands.nodes, target, lambda state: state.writable)
    follower = await until_state(lab, hands.nodes, other, lambda state: state.streaming)
    assert (follower.upstream, follower.writable, new.timeline) == (target, False, follower.timeline)
    assert await hands.addresses() == {(lab.cluster.node(target).hostname,)}
    await hands.writing_to(target)
    await lab.stop_clients()
    assert analyse(lab.ack_log(), await lab.rows(target)).lost == ()

    recorded = await hands.record()
    assert recorded.code == 0, recorded
    assert (recorded.json["operation"], recorded.json["initiated_by"]) == ("break_glass", "bob")
    assert recorded.json["role"] == "continuity_operator" and recorded.json["result"]["success"]
    assert "recorded afterwards by bob" in recorded.json["reason"]
    assert {"plan", "evidence_before", "evidence_after", "fencing", "verification", "answers"} < set(
        recorded.json["manifest"]
    )
    verified = await command("audit", "verify", env={"QNWIS_STATE_DIR": str(lab.folder.audit)})
    assert (verified.code, verified.out) == (0, "the chain is unbroken\n")

    await lab.start_node(primary)
    await until_state(
        lab, hands.nodes, primary, lambda state: "[another_held_since]" in (state.why_down or "")
    )
    (rejoin,) = [block for block in blocks(steps, "console") if "tell rejoin-" in block]
    await hands.paste(rejoin)
    back = await until_state(lab, hands.nodes, primary, lambda state: state.streaming)
    assert (back.upstream, back.writable) == (target, False)


async def test_the_printed_switchover_loses_nothing_and_can_turn_back_before_the_promotion(
    hands: Hands,
) -> None:
    lab = hands.lab
    await lab.start_clients(CLIENTS, pause_ms=PAUSE_MS)
    (primary,) = [node_id for node_id, state in (await hands.states()).items() if state.writable]
    healthy = await hands.say("break-glass", "plan", *hands.files)
    assert healthy.code == 3 and "Refused [primary_is_healthy]" in healthy.err, healthy
    steps = await hands.print("--maintenance")
    assert names(steps)["primary"] == primary
    pasted = blocks(steps)
    (promotion,) = [place for place, block in enumerate(pasted) if "tell promote" in block]
    for block in pasted[:promotion]:
        await hands.paste(block)
    down = await until_state(lab, hands.nodes, primary, lambda state: state.handed_over)
    assert not down.writable

    (back,) = [block for block in blocks(steps, "console") if "tell resume" in block]
    await hands.paste(back)
    await until_state(lab, hands.nodes, primary, lambda state: state.writable)
    for node in lab.cluster.nodes:
        if node.node_id != primary:
            await until_state(lab, hands.nodes, node.node_id, lambda state: state.streaming)

    again = Hands(lab, hands.nodes, hands.here / "again")
    again.here.mkdir()
    steps = await again.print("--maintenance")
    for block in blocks(steps):
        await again.paste(block)

    target = names(steps)["target"]
    states = await again.states()
    assert [node_id for node_id, state in states.items() if state.writable] == [target]
    assert {state.upstream for node_id, state in states.items() if node_id != target} == {target}
    assert await again.addresses() == {(lab.cluster.node(target).hostname,)}
    await again.writing_to(target)
    await lab.stop_clients()
    assert analyse(lab.ack_log(), await lab.rows(target)).lost == ()
    recorded = await again.record()
    assert recorded.code == 0 and recorded.json["result"]["success"], recorded


async def test_the_unfenced_steps_promote_and_repoint_databases_that_have_no_agent_left(
    tmp_path: Path,
) -> None:
    async with HttpNodes(Transport()) as nodes, running_cluster(nodes, synchronous=False) as cluster:
        topology = Cluster.model_validate(
            {
                "cluster_id": "test",
                "name": "test",
                "regions": ["here"],
                "nodes": [member.node for member in cluster.members.values()],
                "replication": {"mode": "asynchronous"},
            }
        )
        await cluster["n1"].sql("CREATE TABLE kept AS SELECT 1 AS n")
        await cluster["n1"].power_off()
        found = await collect_evidence(nodes, topology)
        request = FailoverRequest(cluster_id="test", initiated_by="bob", reason="test")
        rules = policy(min_healthy_nodes=1)
        made = assess(request, topology, rules, found)
        assert made.plan is not None, made.refusal
        paper = break_glass(
            made, topology, rules, found, Membership(version=1, members=tuple(cluster.members))
        )
        target, other = (cluster[names(markdown(paper, record=""))[who]] for who in ("target", "other"))
        promote, repoint = (
            one.commands for step in paper.steps for one in step.otherwise if "UNFENCED" in one.when
        )

        for member in (target, other):
            await member.power_off()
            # A postmaster that was killed, and that nobody waited for yet, counts as one that runs.
            (member.data_dir / "postmaster.pid").unlink(missing_ok=True)
            # What a person knows by PGPASSWORD the server itself does not.
            start = 'env -u PGPASSWORD pg_ctl start --wait --pgdata "$PGDATA" --log "$PGDATA/by-hand.log"'
            await by_hand(member, start)
        assert (await by_hand(target, promote)).endswith("f\n")
        for name, value in (("REPLICATION_USER", "replicator"), ("STATE_DIR", str(other.folder / "state"))):
            assert name in repoint
            repoint = repoint.replace(name, value)
        await by_hand(other, repoint)

        await target.sql("INSERT INTO kept VALUES (2)")
        async with asyncio.timeout(WITHIN_S):
            looks = Looks()
            while await other.sql("SELECT n FROM kept ORDER BY n") != [(1,), (2,)]:
                await looks.again()
        assert await other.sql("SELECT pg_is_in_recovery()") == [(True,)]


async def by_hand(member: TestNode, block: str) -> str:
    """What bash prints for one block that PostgreSQL's user pastes on this node."""
    pg_bin = load_config(member.config).database
    assert pg_bin is not None
    process = await asyncio.create_subprocess_exec(
        *("bash", "-c", f"set -e\n{block}"),
        cwd=member.data_dir,
        env={
            "PATH": f"{pg_bin.pg_bin}:{os.environ['PATH']}",
            "LC_ALL": "C",
            "PGDATA": str(member.data_dir),
            "PGUSER": "super",
            "PGPASSWORD": PASSWORD,
        },
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        **as_user(Owner.named(os_user())),
    )
    async with asyncio.timeout(WITHIN_S):
        out, _ = await process.communicate()
    assert process.returncode == 0, f"{block}\n{out.decode()}"
    return out.decode()


def blocks(steps: str, kind: str = "bash") -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", steps, re.MULTILINE | re.DOTALL)


def names(steps: str) -> dict[str, str]:
    """Who is who, by the title and the step that repoints."""
    title = re.search(r"^# Break glass: \S+, (\S+) → (\S+)$", steps, re.MULTILINE)
    other = re.search(r"^## \d+\. Let (\S+) follow", steps, re.MULTILINE)
    assert title is not None and other is not None
    return {"primary": title[1], "target": title[2], "other": other[1]}
