"""The package of `docs/howto/write-a-provider.md` is built and installed, and a command and a run use it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from temporalio.client import WorkflowFailureError
from typer.testing import CliRunner

from qnwis.cli.qnwis_continuity import app
from qnwis.continuity.readiness_facts import UpdateAnswer
from qnwis.continuity.run import RunOutcome
from qnwis.lab.processes import import_path
from qnwis.providers import third_party
from qnwis.providers.audit_place import log_of
from qnwis.providers.dns_by_holder import DnsByHolder
from qnwis.providers.errors import Refused
from qnwis.providers.fencing import HookByMaker
from qnwis.providers.key_store import KeyStoreError, key_store_of

from .conftest import Setting
from .world import three_nodes

PROJECT = Path(__file__).parents[3]
PAGE = (PROJECT / "docs/howto/write-a-provider.md").read_text()


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the page's package was installed into, by pip, from a wheel."""
    home = tmp_path_factory.mktemp("package")
    for name in ("pyproject.toml", "our_continuity.py"):
        (text,) = re.findall(rf"```\w+\n# {name}\n(.*?)```", PAGE, flags=re.DOTALL)
        (home / name).write_text(text)
    with (home / "pyproject.toml").open("a") as project:  # two more, for what the environment chooses
        project.write('\n[project.entry-points."qnwis.continuity.providers.audit"]\nours = "builtins:list"\n')
        project.write('\n[project.entry-points."qnwis.continuity.providers.keys"]\nours = "builtins:list"\n')
    python([sys.executable, "-m", "hatchling", "build", "-t", "wheel"], home)
    (wheel,) = (home / "dist").glob("*.whl")
    where = ["--no-deps", "--no-index", "--target", str(home / "installed"), str(wheel)]
    python([sys.executable, "-m", "pip", "-q", "--disable-pip-version-check", "install", *where], home)
    return home / "installed"


def python(command: list[str], cwd: Path, *path: Path, status: int = 0) -> str:
    """What a command says, with these folders before what this process imports."""
    search = os.pathsep.join([*map(str, path), import_path()["PYTHONPATH"]])
    environment = {**os.environ, "PYTHONPATH": search, "COLUMNS": "1000"}
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def imported(installed: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(installed)
    yield
    sys.modules.pop("our_continuity", None)
    third_party._of_topology.cache_clear()


def chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """The page's choice of both, and the world that they change."""
    (block,) = re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)
    choice: dict[str, dict[str, object]] = yaml.safe_load(block)
    (tmp_path / "db").write_text("10.0.1.10 db.shop.example\n")
    program = tmp_path / "power"
    program.write_text(f'#!/bin/sh\necho "$1 $2" >>{tmp_path}/switched\n')
    program.chmod(0o755)
    monkeypatch.setenv("OUR_HOSTS", str(tmp_path))
    monkeypatch.setenv("OUR_POWER_PROGRAM", str(program))
    return dict(choice)


async def test_a_run_moves_the_name_and_switches_off_by_an_installed_package(
    stage: Setting, imported: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = await stage(cluster=chosen(tmp_path, monkeypatch), serve=False)
    ours = replace(built.providers, dns=DnsByHolder(), hook=HookByMaker(built.world))
    on = replace(built, providers=ours)
    on.world.kill("node-1")
    async with AsyncExitStack() as running:
        for worker in on.workers():
            await running.enter_async_context(worker)
        result = await (await on.start()).result()
    assert result.outcome is RunOutcome.COMPLETED and result.verified, result
    assert (tmp_path / "db").read_text() == "10.0.1.11 db.shop.example\n"
    assert (tmp_path / "switched").read_text() == "node-1 off\n"
    assert result.fencing is not None and result.fencing.source == "provider:program/node-1/off"
    assert "power_off" not in dict(on.world.journal) and "dns" not in dict(on.world.journal)


async def test_a_run_that_would_miss_a_provider_is_refused_before_it_begins(
    stage: Setting, imported: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    choice = {**chosen(tmp_path, monkeypatch), "fencing": {"provider": {"name": "elsewhere"}}}
    on = await stage(cluster=choice)
    on.world.kill("node-1")
    with pytest.raises(WorkflowFailureError) as failed:
        await (await on.start()).result()
    told = str(failed.value.__cause__) + str(failed.value.__cause__ and failed.value.__cause__.__cause__)
    assert "no provider 'elsewhere' for fencing is installed here; installed are program" in told
    assert on.world.journal == []


def test_validate_says_where_an_unknown_provider_is_named_and_what_there_is(
    installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "cluster.yaml"
    topology = three_nodes("shop", **chosen(tmp_path, monkeypatch)).model_dump(mode="json", exclude_none=True)
    file.write_text(yaml.safe_dump(topology))
    command = [sys.executable, "-m", "qnwis.cli.qnwis_continuity", "validate", "--cluster", str(file)]
    assert "valid" in python(command, tmp_path, installed)
    line = 1 + file.read_text().splitlines().index("    name: hosts-file")
    said = " ".join(CliRunner().invoke(app, command[3:]).output.split())
    assert f"{file}:{line}:11: dns.provider.name: found hosts-file; expected" in said
    assert "no provider 'hosts-file' for dns is installed here; none is installed" in said
    monkeypatch.syspath_prepend(installed)
    file.write_text(file.read_text().replace("hosts-file", "hosts-fiel"))
    said = " ".join(CliRunner().invoke(app, command[3:]).output.split())
    assert "no provider 'hosts-fiel' for dns is installed here; installed are hosts-file" in said
    assert "fencing" not in said


async def test_what_cannot_be_made_and_what_is_not_there_are_told_by_name(
    imported: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    choice = chosen(tmp_path, monkeypatch)
    choice["dns"] = {**dict(choice["dns"]), "provider": {"name": "hosts-file"}}  # type: ignore[call-overload]
    service = three_nodes("shop", **choice).dns
    assert service is not None
    with pytest.raises(Refused, match=r"'hosts-file' \(our_continuity:HostsFile\) cannot be made: KeyError"):
        await DnsByHolder().read(service)
    (answer,) = await DnsByHolder().try_update(service)
    assert isinstance(answer, UpdateAnswer) and not answer.accepted and "cannot be made" in answer.reason
    (held,) = await DnsByHolder().record(service)
    assert held.addresses is None and "cannot be made" in held.reason


def test_the_environment_chooses_where_records_and_keys_are_by_name(imported: None, tmp_path: Path) -> None:
    assert list(log_of(tmp_path, {"QNWIS_AUDIT_STORE": "ours:abc"})) == ["a", "b", "c"]  # type: ignore[call-overload]
    assert key_store_of({"QNWIS_KEY_STORE": "ours:abc"}) == ["a", "b", "c"]
    with pytest.raises(Refused, match="or a provider's name: installed are ours"):
        log_of(tmp_path, {"QNWIS_AUDIT_STORE": "other:abc"})
    with pytest.raises(KeyStoreError, match="or a provider's name: installed are ours"):
        key_store_of({"QNWIS_KEY_STORE": "other:abc"})
