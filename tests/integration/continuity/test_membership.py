"""Members come, go and are replaced on real nodes, while the primary serves.

All but the last test share one cluster; each starts from one that is whole, whose primary is n1.
"""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from qnwis.agent.lease import GRANTOR
from qnwis.agent.two_copies import TwoCopies
from qnwis.cli.qnwis_continuity import app
from qnwis.continuity.lease_messages import LeaseTerms
from qnwis.continuity.membership import MembershipView
from qnwis.providers.nodes import HttpNodes
from qnwis.transport import Transport

from .pg import TestCluster, TestNode, running_cluster


@pytest.fixture(scope="module")
async def shared() -> AsyncIterator[TestCluster]:
    async with HttpNodes(Transport()) as nodes, running_cluster(nodes, synchronous=True) as made:
        await made["n1"].sql("CREATE TABLE rows (name text)")
        yield made


@pytest.fixture
async def cluster(shared: TestCluster) -> TestCluster:
    """All three are members and run, and two stream from n1."""
    for node in shared.members.values():
        if not node.agent_runs:
            await node.start_agent()
    await shared["n1"].until(writable=True)
    for node_id in set(shared.members) - set((await view(shared, shared["n1"])).membership.members):
        status, output = await member(shared, "add", node_id)
        assert status == 0, output
    for node_id in ("n2", "n3"):
        await shared[node_id].until(streaming=True, upstream="n1")
    return shared


def topology(cluster: TestCluster) -> Path:
    """The cluster's cluster.yaml."""
    data = {
        "cluster_id": "test",
        "name": "test",
        "regions": ["here"],
        "replication": {"mode": "synchronous"},
        "nodes": [m.node.model_dump(mode="json", exclude_none=True) for m in cluster.members.values()],
    }
    path = cluster.root / "cluster.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


async def member(cluster: TestCluster, *arguments: str) -> tuple[int, str]:
    """Run `member …` as a person does; exit status and output."""
    path = str(topology(cluster))
    result = await asyncio.to_thread(CliRunner().invoke, app, ["member", *arguments, "--cluster", path])
    return result.exit_code, result.output


async def view(cluster: TestCluster, node: TestNode) -> MembershipView:
    return await cluster.nodes.membership(node.node, timeout_s=5)


async def version_of(cluster: TestCluster) -> int:
    return (await view(cluster, cluster["n1"])).membership.version


async def test_a_node_that_lost_everything_is_replaced_while_the_primary_serves(cluster: TestCluster) -> None:
    lost, version = cluster["n3"], await version_of(cluster)
    before = await view(cluster, lost)
    await lost.power_off()
    for path in (lost.folder / "state").iterdir():
        path.unlink()
    for path in lost.data_dir.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    await lost.start_agent()
    postmaster = cluster["n1"].postmaster_pid()

    status, output = await member(cluster, "replace", "n3")

    assert (status, output) == (0, f"membership {version + 2}: n1, n2, n3\n")
    assert cluster["n1"].postmaster_pid() == postmaster
    for node in cluster.members.values():
        seen = await view(cluster, node)
        assert set(seen.membership.members) == {"n1", "n2", "n3"}
        assert dict(seen.membership.disks) == {"n3": (await view(cluster, lost)).disk_id}
    assert (await view(cluster, lost)).disk_id != before.disk_id
    await lost.until(streaming=True, upstream="n1")
    # Its grants count again: without the other standby the primary goes on.
    await cluster["n2"].power_off()
    await cluster["n1"].sql("INSERT INTO rows VALUES ('with n3 alone')")


async def test_a_removed_node_takes_no_part_and_comes_back(cluster: TestCluster) -> None:
    version = await version_of(cluster)
    status, output = await member(cluster, "remove", "n3")
    assert (status, output) == (0, f"membership {version + 1}: n1, n2\n")
    names = (await cluster["n1"].sql("SHOW synchronous_standby_names"))[0][0]
    assert names == 'ANY 1 ("n2")'
    assert "n3" not in (await view(cluster, cluster["n2"])).membership.members
    status, output = await member(cluster, "remove", "n3")
    assert (status, output) == (0, f"membership {version + 1}: n1, n2\n"), "asked again it is no change"

    status, output = await member(cluster, "add", "n3")
    assert (status, output) == (0, f"membership {version + 2}: n1, n2, n3\n")
    await cluster["n3"].until(streaming=True)


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [(("remove", "n1"), "holder_stays"), (("add", "n2"), "member_already")],
)
async def test_a_change_that_would_harm_is_refused(
    cluster: TestCluster, arguments: tuple[str, str], rule: str
) -> None:
    version = await version_of(cluster)
    status, output = await member(cluster, *arguments)
    assert status == 3
    assert f"[{rule}]" in output
    assert await version_of(cluster) == version


async def test_the_last_standby_is_not_removed_and_a_missing_majority_not_made(cluster: TestCluster) -> None:
    await member(cluster, "remove", "n3")
    status, output = await member(cluster, "remove", "n2")
    assert (status, "[too_few_standbys]" in output) == (3, True)
    await cluster["n3"].power_off()
    status, output = await member(cluster, "add", "n3")
    assert status == 4, "its agent does not answer"
    await cluster["n1"].sql("INSERT INTO rows VALUES ('still served')")


async def test_a_node_that_still_keeps_a_grant_for_another_is_waited_for() -> None:
    """With two members both must grant: without the wait the primary's lease would end before the other's."""
    async with HttpNodes(Transport()) as nodes, running_cluster(nodes, synchronous=False) as cluster:
        for node_id in ("n3", "n2"):
            assert (await member(cluster, "remove", node_id))[0] == 0
        await cluster["n2"].power_off()
        record = TwoCopies(cluster["n2"].folder / "state" / GRANTOR)
        assert record.text
        data = json.loads(record.text)
        data["granted"] |= {"holder": "n2", "epoch": 0, "duration_s": 2 * LeaseTerms().duration_s}
        record.write(json.dumps(data))
        await cluster["n2"].start_agent()
        bound = (await view(cluster, cluster["n2"])).bound
        assert bound is not None and bound.remaining_s > LeaseTerms().duration_s
        postmaster = cluster["n1"].postmaster_pid()

        assert await member(cluster, "add", "n2") == (0, "membership 4: n1, n2\n")
        assert cluster["n1"].postmaster_pid() == postmaster
