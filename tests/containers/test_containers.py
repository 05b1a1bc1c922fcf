"""Failovers in containers that are killed and cut off, as `make test-containers` runs them."""

from __future__ import annotations

import json

import pytest
from testcontainers.core.docker_client import DockerClient

from qnwis.cli.watching import follow
from qnwis.lab.compose import Compose, docker
from qnwis.lab.container_demo import PAUSE_MS, KillsWorker
from qnwis.lab.container_lab import ContainerControl
from qnwis.lab.demo import START_WITHIN_S, DemoReport, play

from .conftest import PROJECT

pytestmark = [pytest.mark.containers, pytest.mark.timeout(1200)]

PARTS = {
    *("node-1", "node-2", "node-3", "dns", "temporal", "worker-2", "worker-3", "vantage-1", "api"),
    *("prometheus", "setup", "guardian"),
}


def test_no_part_is_root_or_may_write_to_its_image_or_has_a_capability(
    compose: Compose, control: ContainerControl
) -> None:
    found = {name: json.loads(docker("inspect", compose.container(name)))[0] for name in PARTS}
    for name, container in found.items():
        assert container["Config"]["User"] not in ("", "0", "root"), name
        assert container["HostConfig"]["ReadonlyRootfs"], name
        assert container["HostConfig"]["CapDrop"] == ["ALL"], name
        assert "no-new-privileges:true" in container["HostConfig"]["SecurityOpt"], name
        for published in (container["HostConfig"]["PortBindings"] or {}).values():
            assert [one["HostIp"] for one in published] == ["127.0.0.1"], name


def test_each_part_is_healthy(compose: Compose, control: ContainerControl) -> None:
    parts = PARTS - {"setup", "guardian"}
    assert {name: compose.health(name) for name in parts} == dict.fromkeys(parts, "healthy")


async def test_the_kill_of_the_primarys_container_ends_in_a_verified_failover_without_loss(
    whole: ContainerControl,
) -> None:
    report = await _played(whole)
    assert report.verified, report
    assert report.result.new_primary != report.killed_node
    await whole.bring_back(report.killed_node)


async def test_a_failover_goes_on_where_the_container_of_its_worker_is_killed(
    whole: ContainerControl,
) -> None:
    kills = KillsWorker(whole.lab, follow, print)
    report = await _played(whole, kills)
    assert report.verified, report
    assert await kills.went_on()
    await whole.lab.start(kills.worker)
    await whole.bring_back(report.killed_node)


async def test_a_primary_that_is_cut_off_ends_its_database_and_comes_back_as_a_standby(
    whole: ContainerControl,
) -> None:
    lab, primary = whole.lab, await whole.primary()
    network = DockerClient().client.networks.get(f"{PROJECT}_lab")
    container = lab.compose.container(primary)
    network.disconnect(container)
    try:
        result = await follow(await whole.next_run(within_s=START_WITHIN_S))
        assert result.verified, result
        assert result.new_primary != primary
        # Nobody could tell it anything: its own guards did this, before the other was promoted.
        running = docker("top", container)
        assert "qnwis.agent" in running
        assert "/bin/postgres " not in running
        assert "postgres: " not in running
    finally:
        network.connect(container, ipv4_address=lab.cluster.node(primary).hostname)
    await whole.bring_back(primary)


async def _played(control: ContainerControl, kills: KillsWorker | None = None) -> DemoReport:
    """Kill the container of the present primary under a write load."""
    primary = await control.primary()
    return await play(
        control, clients=2, say=print, follow=kills or follow, primary=primary, pause_ms=PAUSE_MS
    )
