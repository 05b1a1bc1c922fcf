"""Where the Temporal server comes from, and that ours loses nothing by a SIGKILL."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from temporalio.client import Client
from temporalio.common import SearchAttributeKey, SearchAttributePair, TypedSearchAttributes
from temporalio.testing import WorkflowEnvironment

from qnwis.lab.errors import LabError
from qnwis.lab.layout import claimed_block, default_directory
from qnwis.lab.processes import Processes
from qnwis.lab.procfs import kill_inside
from qnwis.lab.temporal_server import (
    TemporalServer,
    external_server,
    obtain_cli,
    obtain_server,
    register_search_attributes,
    start_server,
)
from qnwis.temporal import connect

KEY = SearchAttributeKey.for_keyword("QnwisCluster")


@dataclass
class Ways:
    """The ways to a server, each closed unless the test opens it; and what was said."""

    home: Path
    monkeypatch: pytest.MonkeyPatch
    said: list[str] = field(default_factory=list)

    @property
    def cache(self) -> Path:
        return self.home / "cache"

    def program(
        self, folder: str, name: str = "temporal", script: str = "echo 'temporal (Server 1.29.1)'"
    ) -> Path:
        path = self.home / folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return path

    async def cli(self) -> Path:
        return await obtain_cli(self.cache, self.said.append)


@pytest.fixture
def ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ways:
    for name in ("TEMPORAL_ADDRESS", "QNWIS_TEMPORAL_CLI", "GOPATH"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "path").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    monkeypatch.setenv("GOBIN", str(tmp_path / "gobin"))

    async def no_download(**_: object) -> None:
        raise RuntimeError("Failed starting dev server: cannot resolve temporal.download")

    # The one part that is not real: tests stay off the network.
    monkeypatch.setattr(WorkflowEnvironment, "start_local", no_download)
    return Ways(tmp_path, monkeypatch)


async def test_the_setting_comes_before_path_and_path_before_gos_folder(ways: Ways) -> None:
    built = ways.program("gobin")
    assert await ways.cli() == built
    on_path = ways.program("path")
    assert await ways.cli() == on_path
    named = ways.program("named")
    ways.monkeypatch.setenv("QNWIS_TEMPORAL_CLI", str(named))
    assert await ways.cli() == named


async def test_gos_folder_is_found_by_gos_own_rules(ways: Ways) -> None:
    built = ways.program("bin")
    ways.monkeypatch.delenv("GOBIN")
    ways.monkeypatch.setenv("GOPATH", f"{ways.home}:/elsewhere")
    assert await ways.cli() == built
    ways.monkeypatch.delenv("GOPATH")
    ways.monkeypatch.setenv("HOME", str(ways.home))
    (ways.home / "go").mkdir()
    built.parent.rename(ways.home / "go" / "bin")
    assert await ways.cli() == ways.home / "go" / "bin" / "temporal"


async def test_a_program_that_is_no_cli_is_passed_over_with_a_line(ways: Ways) -> None:
    broken = ways.program("path", script="echo 'wrong architecture' >&2; exit 126")
    built = ways.program("gobin")
    ways.monkeypatch.setenv("QNWIS_TEMPORAL_CLI", "/nonexistent/temporal")
    assert await ways.cli() == built
    assert ways.said == [
        "/nonexistent/temporal (by QNWIS_TEMPORAL_CLI) is not a Temporal CLI that runs: "
        "cannot be started: No such file or directory",
        f"{broken} (by PATH) is not a Temporal CLI that runs: wrong architecture",
    ]


async def test_a_downloaded_server_is_used_again(ways: Ways) -> None:
    downloads = 0

    async def download(*, download_dest_dir: str, **_: object) -> Environment:
        nonlocal downloads
        downloads += 1
        ways.program("cache/temporal", name="temporal-sdk-python-1.35.0")
        assert Path(download_dest_dir) == ways.cache / "temporal"
        return Environment()

    class Environment:
        async def shutdown(self) -> None:
            pass

    ways.monkeypatch.setattr(WorkflowEnvironment, "start_local", download)
    found = await ways.cli()
    assert found == ways.cache / "temporal" / "temporal-sdk-python-1.35.0"
    assert (await ways.cli(), downloads) == (found, 1)


async def test_go_builds_the_pinned_version_at_last_and_says_how_long_it_takes(ways: Ways) -> None:
    cp, chmod = shutil.which("cp", path=os.defpath), shutil.which("chmod", path=os.defpath)
    built = ways.program("prepared")
    (ways.home / "gobin").mkdir()
    ways.program(
        "path",
        name="go",
        script=f'[ "$*" = "install github.com/temporalio/cli/cmd/temporal@v1.5.1" ] || exit 9\n'
        f"{cp} {built} $GOBIN/temporal && {chmod} 755 $GOBIN/temporal",
    )
    assert await ways.cli() == ways.home / "gobin" / "temporal"
    assert any("the SDK's download failed: Failed starting dev server" in line for line in ways.said)
    assert "about 4 minutes" in ways.said[-1]


async def test_when_every_way_fails_each_has_said_so_and_the_error_names_what_to_install(ways: Ways) -> None:
    ways.program("path", name="go", script="echo 'go: proxy says no' >&2; exit 1")
    with pytest.raises(
        LabError, match=r"Install the Temporal CLI .*QNWIS_TEMPORAL_CLI.*Go.*TEMPORAL_ADDRESS"
    ):
        await ways.cli()
    told = "\n".join(ways.said)
    for way in (
        "by QNWIS_TEMPORAL_CLI",
        "by PATH",
        "by Go's bin folder",
        "SDK's download failed",
        "proxy says no",
    ):
        assert way in told


@pytest.fixture
async def processes(tmp_path: Path) -> AsyncIterator[Processes]:
    yield Processes(tmp_path / "processes", tmp_path / "logs")
    kill_inside(tmp_path)


async def start_a_run(client: Client, key: SearchAttributeKey[str], value: str) -> str:
    """Start a workflow that no worker takes; the server has acknowledged it."""
    handle = await client.start_workflow(
        "nobody-runs-this",
        id=f"run-{value}",
        task_queue="nobody",
        search_attributes=TypedSearchAttributes([SearchAttributePair(key, value)]),
    )
    return handle.id


async def test_our_server_is_killed_and_started_again_and_has_lost_nothing(
    processes: Processes, tmp_path: Path
) -> None:
    database = tmp_path / "temporal.sqlite"
    cache = default_directory().with_name(default_directory().name + "-cache")
    cli = await obtain_cli(cache, print)
    with claimed_block(0) as block:
        server = await start_server(processes, cli, block=block, database=database)
        await register_search_attributes(server, {"QnwisCluster": "Keyword"})
        await register_search_attributes(server, {"QnwisCluster": "Keyword", "QnwisEpoch": "Int"})
        run = await start_a_run(await connect(server.address), KEY, "c1")
        processes.kill("temporal")
        assert server.process is not None
        assert not server.process.alive
        again = await start_server(processes, cli, block=block, database=database)
        await register_search_attributes(again, {"QnwisCluster": "Keyword", "QnwisEpoch": "Int"})
        found = await (await connect(again.address)).get_workflow_handle(run).describe()
        assert found.typed_search_attributes[KEY] == "c1"
        with pytest.raises(LabError, match=r"QnwisEpoch has type .*INT; expected .*KEYWORD"):
            await register_search_attributes(again, {"QnwisEpoch": "Keyword"})
        with pytest.raises(LabError, match="type 'Number'; expected one of Text, Keyword"):
            await register_search_attributes(again, {"QnwisOther": "Number"})


async def test_a_server_that_ends_at_once_is_an_error_with_its_last_words(
    processes: Processes, tmp_path: Path, ways: Ways
) -> None:
    cli = ways.program("broken", script="echo 'port is in use' >&2; exit 1")
    with claimed_block(0) as block, pytest.raises(LabError, match=r"has ended;[\s\S]*port is in use"):
        await start_server(processes, cli, block=block, database=tmp_path / "temporal.sqlite")
    assert processes.all() == []


async def test_a_given_server_is_used_as_it_is_and_an_absent_one_is_passed_over(
    server: TemporalServer, ways: Ways, processes: Processes
) -> None:
    ways.monkeypatch.setenv("TEMPORAL_ADDRESS", server.address)
    with claimed_block(0) as block:
        found = await obtain_server(
            processes,
            block=block,
            database=ways.home / "unused.sqlite",
            search_attributes={"QnwisCluster": "Keyword"},
            cache=ways.cache,
            say=ways.said.append,
        )
    assert (found.address, found.process, found.ui_url) == (server.address, None, None)
    assert processes.all() == []
    ways.monkeypatch.setattr("qnwis.temporal.CONNECT_TIMEOUT_S", 0.2)
    ways.monkeypatch.setenv("TEMPORAL_ADDRESS", "127.0.0.1:1")
    assert await external_server(ways.said.append) is None
    assert ways.said == ["no Temporal server answers at TEMPORAL_ADDRESS=127.0.0.1:1"]
