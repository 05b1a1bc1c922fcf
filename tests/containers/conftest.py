"""One set of containers for all tests of this folder: docker-compose.yml, brought up by testcontainers."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from functools import cached_property
from pathlib import Path

import pytest
from testcontainers.compose import DockerCompose

from qnwis.lab.compose import Compose
from qnwis.lab.container_lab import ContainerControl, ContainerLab
from qnwis.lab.errors import LabError

FILE = Path(__file__).parents[2] / "docker-compose.yml"
PROJECT = f"qnwis-test-{os.getpid()}"


class Stack(DockerCompose):
    """testcontainers' compose, by the command that is there: it knows the plugin alone."""

    def __init__(self, compose: Compose, settings: Path) -> None:
        super().__init__(FILE.parent, build=True, wait=False, env_file=str(settings), profiles=["tools"])
        self._compose = compose

    @cached_property
    def compose_command_property(self) -> list[str]:
        assert isinstance(self.env_file, list)
        options = ["-f", str(FILE), "-p", PROJECT, "--env-file", *self.env_file]
        return [*self._compose.command, *options]

    def stop(self, down: bool = True) -> None:
        self._run_command([*self.compose_command_property, "--profile", "tools", "down", "--volumes"])


@pytest.fixture(scope="session")
def compose(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Compose]:
    try:
        found = Compose.found(FILE, PROJECT)
    except LabError as error:
        pytest.skip(f"needs a Docker engine with compose: {error}")
    settings = tmp_path_factory.mktemp("compose") / "settings.env"
    settings.write_text("".join(f"{name}={value}\n" for name, value in found.environment.items()))
    with Stack(found, settings):
        yield found


@pytest.fixture(scope="session")
async def control(compose: Compose) -> ContainerControl:
    return await ContainerControl.reached(ContainerLab(compose))


@pytest.fixture
async def whole(control: ContainerControl) -> AsyncIterator[ContainerControl]:
    """Every node is healthy, and the guardian may start a failover."""
    await control.all_healthy()
    await control.cooldown_over()
    yield control
