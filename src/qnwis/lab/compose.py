"""docker compose, by the command that is there: the plugin (v2), or docker-compose 1.29."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from .errors import LabError

PORTS = ("TEMPORAL_PORT", "TEMPORAL_UI_PORT", "API_PORT", "PROMETHEUS_PORT")
"""Variables of docker-compose.yml: where the parts are published on 127.0.0.1."""
NETWORK = "QNWIS_NETWORK"
"""The same: the first three numbers of the containers' addresses."""
QUICK_S = 120.0
SLOW_S = 1800.0
"""A first build brings packages from afar."""


@dataclass(frozen=True)
class Compose:
    """One project. Its methods block, and raise LabError with the last words of a command that failed."""

    command: tuple[str, ...]
    file: Path
    project: str
    environment: Mapping[str, str]

    @classmethod
    def found(cls, file: Path, project: str) -> Self:
        """On ports and a network that are free; what the environment says of these counts first."""
        if not file.exists():
            raise LabError(f"{file}: no such file; run this in the project's own folder, or give --file")
        command = compose_command()
        given = {name: os.environ[name] for name in (*PORTS, NETWORK) if name in os.environ}
        free = {**dict(zip(PORTS, map(str, _free_ports(len(PORTS))), strict=True)), NETWORK: _free_network()}
        return cls(command, file.absolute(), project, {**free, **given})

    def do(self, *arguments: str, settings: Mapping[str, str] = {}, within_s: float = QUICK_S) -> str:
        """What the command wrote. `settings`: variables of the file, for this command."""
        command = [*self.command, "-f", str(self.file), "-p", self.project, *arguments]
        return _output(command, {**os.environ, **self.environment, **settings}, within_s=within_s)

    def container(self, service: str) -> str:
        """Its id, running or not."""
        # By the labels that either compose gives it: this is asked often.
        labels = {"project": self.project, "service": service, "oneoff": "False"}
        filters = [f"--filter=label=com.docker.compose.{name}={value}" for name, value in labels.items()]
        found = docker("ps", "--all", "--quiet", *filters).split()
        if not found:
            raise LabError(f"{service} of {self.project} has no container")
        return found[0]

    def kill(self, service: str) -> None:
        """SIGKILL its container and everything in it."""
        docker("kill", self.container(service))

    def processes(self, service: str) -> int:
        """How many its container has."""
        return len(docker("top", self.container(service)).splitlines()) - 1

    def execute(self, service: str, *command: str) -> str:
        return docker("exec", self.container(service), *command)

    def copy(self, service: str, path: str) -> bytes:
        """A file of the container, running or not."""
        with tempfile.TemporaryDirectory() as folder:
            here = Path(folder) / "file"
            docker("cp", f"{self.container(service)}:{path}", str(here))
            return here.read_bytes()

    def health(self, service: str) -> str:
        """As its health check says it: starting, healthy or unhealthy."""
        return docker("inspect", "--format", "{{.State.Health.Status}}", self.container(service)).strip()


def compose_command() -> tuple[str, ...]:
    """Raises LabError where no engine answers or no compose is there."""
    if shutil.which("docker") is None:
        raise LabError("no docker command; install Docker Engine (on Debian: apt-get install docker.io)")
    docker("version", "--format", "{{.Server.Version}}")
    for command in (("docker", "compose"), ("docker-compose",)):
        try:
            _output([*command, "version"], os.environ, within_s=QUICK_S)
        except LabError:
            continue
        return command
    raise LabError(
        "neither `docker compose` nor docker-compose runs; on Debian: apt-get install docker-compose"
    )


def docker(*arguments: str) -> str:
    """What the command wrote. Raises LabError."""
    return _output(["docker", *arguments], os.environ, within_s=QUICK_S)


def _output(command: Sequence[str], environment: Mapping[str, str], *, within_s: float) -> str:
    said = " ".join(command)
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=within_s)
    except OSError as error:
        raise LabError(f"{command[0]} cannot be run: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise LabError(f"`{said}` is not done after {within_s:g} s") from error
    if done.returncode != 0:
        last = "\n".join((done.stdout + done.stderr).strip().splitlines()[-15:])
        raise LabError(f"`{said}` ended with status {done.returncode}:\n{last}")
    return done.stdout


def _free_ports(count: int) -> list[int]:
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]


def _free_network() -> str:
    """Of 10.77.0 to 10.77.255 the first that no network of the engine has."""
    networks = docker("network", "ls", "--quiet").split()
    taken = set(re.findall(r"\b(10\.77\.\d+)\.0/24", docker("network", "inspect", *networks)))
    return next(f"10.77.{n}" for n in range(256) if f"10.77.{n}" not in taken)
