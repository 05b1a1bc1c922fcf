"""docs/howto/install.md, typed on a machine: its user, its files and its units serve a running cluster."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml

from qnwis.lab.cluster import Lab
from qnwis.lab.control_plane import WORKER, ControlPlane, watched
from qnwis.lab.shape import VANTAGES
from tests.looking import WITHIN_S, Looks

from .machine import MACHINE, PROJECT, blocks, script
from .real import lab_directory, running_lab

PAGE = PROJECT / "docs" / "howto" / "install.md"

pytestmark = [
    pytest.mark.skipif(os.getuid() != 0, reason="who installs is root"),
    pytest.mark.skipif(shutil.which("unshare") is None, reason="unshare (util-linux) is not installed"),
    pytest.mark.timeout(3 * WITHIN_S),
]


@pytest.fixture
def root() -> Iterator[Path]:
    with lab_directory() as root:
        yield root


def carried_over(lab: Lab, here: Path) -> None:
    """What somebody brings to the machine before the page begins."""
    for name in ("policy.yaml", "people.yaml"):
        shutil.copy(lab.folder.config / name, here)
    cluster = yaml.safe_load((lab.folder.config / "cluster.yaml").read_text())
    shutil.copy(cluster["dns"]["tsig_key_file"], here / "tsig.key")
    cluster["dns"]["tsig_key_file"] = "/etc/qnwis-continuity/keys/tsig.key"
    (here / "cluster.yaml").write_text(yaml.safe_dump(cluster))
    shutil.copy(lab.folder.allowlist, here / "allowlist.yaml")
    shutil.copytree(lab.certificates.of_client(WORKER).identity, here / "worker-1")
    shutil.copytree(PROJECT / "deploy", here / "deploy")


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def adapted(control: ControlPlane, here: Path) -> tuple[list[str], str, str]:
    """The blocks, with the addresses of this cluster for those of the page; and where API and metrics are."""
    api, metrics = (f"127.0.0.1:{free_port()}" for _ in range(2))
    for unit in (here / "deploy" / "systemd").iterdir():
        text = unit.read_text().replace("--metrics 127.0.0.1:9464", f"--metrics {metrics}")
        unit.write_text(text.replace("--behind-tls", f"--behind-tls --port {api.rpartition(':')[2]}"))
    names = {
        "temporal.example.com:7233": control.server.address,
        "QNWIS_VANTAGE='vantage-1'": f"QNWIS_VANTAGE='{VANTAGES[0]}'",
        "127.0.0.1:8080": api,
        " orders": f" {control.lab.cluster.cluster_id}",
    }
    typed = blocks(PAGE)
    for of_page, of_this in names.items():
        assert any(of_page in block for block in typed), of_page
        typed = [block.replace(of_page, of_this) for block in typed]
    # The wheel has tests of its own (test_wheel.py).
    assert "pip install" in typed[0]
    typed[0] = "\n".join([f"ln -s {sys.prefix} /opt/qnwis-continuity", typed[0].splitlines()[-1]])
    return typed, api, metrics


async def test_a_machine_is_installed_as_the_page_says(root: Path, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    async with running_lab(root) as control, httpx.AsyncClient() as http:
        carried_over(control.lab, tmp_path)
        typed, api, metrics = adapted(control, tmp_path)
        control.lab.processes.kill(WORKER)  # the machine's worker takes its place
        typed += ["touch $HERE/done", "wait"]
        shell = await asyncio.create_subprocess_exec(
            *MACHINE,
            script(tmp_path, typed),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=(tmp_path / "said").open("wb"),
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            async with asyncio.timeout(2 * WITHIN_S):
                looks = Looks()
                while shell.returncode is None and not (tmp_path / "done").exists():
                    await looks.again()
            said = "\n".join(
                f"{log.name}:\n{log.read_text()}" for log in [tmp_path / "said", *tmp_path.glob("*.log")]
            )
            assert shell.returncode is None, said
            await watched(control.client, control.lab.cluster)
            alive = await http.get(f"http://{api}/health/live")
            counted = await http.get(f"http://{metrics}/metrics")
            assert alive.status_code == 200 and "qnwis" in counted.text, said
        finally:
            if shell.returncode is None:
                shell.kill()
            await shell.wait()
