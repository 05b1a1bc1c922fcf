"""Settings of a shell that are slightly wrong: one clear line, and `status` shows the nodes all the same."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import AsyncMock

import pytest
from temporalio.api.common.v1 import GrpcStatus
from temporalio.api.errordetails.v1 import NamespaceNotFoundFailure
from temporalio.client import Client, WorkflowQueryFailedError
from temporalio.service import GrpcCompression, RPCError, RPCStatusCode

from qnwis.access_reviews import unschedule_access_review
from qnwis.api import runs
from qnwis.builds import builds_of
from qnwis.cli import watching
from qnwis.continuity.tokens import PersonRequest
from qnwis.lab.errors import LabError
from qnwis.lab.processes import Processes
from qnwis.lab.temporal_server import external_server, start_server
from qnwis.providers.errors import Refused
from qnwis.readiness_runs import unschedule_readiness
from qnwis.starting import say_to_guardian, say_to_run
from qnwis.temporal import UnusableSettings, connect, not_there
from tests.unit.cli.test_break_glass import nowhere
from tests.unit.cli.test_commands import call

WRONG = [
    ({"TEMPORAL_TLS_CLIENT_CERT_PATH": "none.pem"}, "No such file or directory: 'none.pem'"),
    ({"TEMPORAL_TLS_CLIENT_CERT_PATH": "half.pem"}, "client cert"),
    ({"TEMPORAL_PROFILE": "nobody's"}, "Profile 'nobody's' not found"),
    ({"TEMPORAL_CONFIG_FILE": "broken.toml"}, "TOML parse error"),
    ({"TEMPORAL_ADDRESS": "no address"}, "invalid target URL"),
]
SAID = PersonRequest(by="ann", reason="test")


def no_namespace() -> RPCError:
    """As a server says it."""
    status = GrpcStatus(code=RPCStatusCode.NOT_FOUND, message="Namespace typo is not found.")
    status.details.add().Pack(NamespaceNotFoundFailure(namespace="typo"))
    return RPCError(status.message, RPCStatusCode.NOT_FOUND, status.SerializeToString())


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "half.pem").write_text("a certificate without its key")
    (tmp_path / "broken.toml").write_text("[profile.\n")


@pytest.mark.parametrize(
    ("target", "near"),
    [
        ("localhost:7233", True),
        ("127.0.0.1:7233", True),
        ("[::1]:7233", True),
        ("10.7.0.2:7233", True),
        ("192.0.43.8:7233", False),
        ("[2600::1]:7233", False),
        ("temporal.example.com:7233", False),
        ("no address", False),
    ],
)
async def test_what_is_said_is_compressed_where_the_server_is_not_near(
    target: str, near: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = AsyncMock()
    monkeypatch.setattr(Client, "connect", asked)
    await connect(target)
    assert asked.await_args is not None
    expected = GrpcCompression.NONE if near else GrpcCompression.GZIP
    assert asked.await_args.kwargs["grpc_compression"] == expected


@pytest.mark.parametrize(("settings", "why"), WRONG)
async def test_settings_that_cannot_be_used_are_told_of(
    settings: dict[str, str], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UnusableSettings) as caught:
        await connect()
    assert why in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(("settings", "why"), WRONG)
@pytest.mark.parametrize("typed", ["abort lab-1 --reason x", "guardian view lab-1", "builds list"])
def test_a_command_ends_with_one_line_as_for_a_file_that_cannot_be_used(
    typed: str, settings: dict[str, str], why: str
) -> None:
    done = call(*typed.split(), env=settings)
    assert done.exit_code == 2, done.output
    assert why in done.stderr and len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("settings", "why"), [*WRONG, ({"QNWIS_KEY_STORE": "vault"}, "QNWIS_KEY_STORE"), ({}, "no Temporal")]
)
def test_a_status_shows_the_nodes_whatever_is_wrong_with_temporal(
    tmp_path: Path, settings: dict[str, str], why: str
) -> None:
    elsewhere = {"TEMPORAL_ADDRESS": "127.0.0.1:1", **settings}
    done = call("status", "--cluster", str(nowhere(tmp_path)), env=elsewhere)
    assert done.exit_code == 1, done.output
    (note,) = (line for line in done.stdout.splitlines() if line.startswith("guardian:"))
    assert why in note
    assert all(f"node-{number}" in done.stdout for number in (1, 2, 3))


async def test_a_lab_says_so_too_and_starts_no_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEMPORAL_PROFILE", "nobody's")
    processes = Processes(tmp_path / "processes", tmp_path / "logs")
    with pytest.raises(LabError, match="Profile 'nobody's' not found"):
        await start_server(processes, Path("temporal"), block=cast(Any, None), database=tmp_path / "none")
    monkeypatch.setenv("TEMPORAL_ADDRESS", "127.0.0.1:1")
    with pytest.raises(LabError, match="Profile 'nobody's' not found"):
        await external_server(print)


class Nowhere:
    """A client of a namespace that its server does not know, or of one where nothing goes on."""

    namespace = "typo"

    def __init__(self, says: Exception) -> None:
        self._says = says
        self.workflow_service = SimpleNamespace(describe_worker_deployment=self._say)
        self.describe = self.delete = self.query = self.execute_update = self._say

    def get_workflow_handle(self, *_: object, **__: object) -> Nowhere:
        return self

    def get_schedule_handle(self, *_: object) -> Nowhere:
        return self

    async def _say(self, *_: object, **__: object) -> None:
        raise self._says


async def test_a_namespace_that_is_not_known_is_no_word_about_runs_and_guardians() -> None:
    gone = RPCError("workflow not found", RPCStatusCode.NOT_FOUND, b"")
    assert not_there(gone) and not not_there(no_namespace())
    assert not not_there(RPCError("", RPCStatusCode.UNAVAILABLE, b""))
    assert await builds_of(cast(Any, Nowhere(gone))) == ()
    with pytest.raises(RPCError, match="Namespace typo"):
        await builds_of(cast(Any, Nowhere(no_namespace())))
    for say in (
        lambda client: say_to_run(client, "failover-lab-1", "abort", SAID),
        lambda client: say_to_guardian(client, "lab-1", "pause", SAID),
        lambda client: unschedule_readiness(client, "lab-1"),
        unschedule_access_review,
    ):
        with pytest.raises(Refused):
            await say(cast(Any, Nowhere(gone)))
        with pytest.raises(RPCError, match="Namespace typo"):
            await say(cast(Any, Nowhere(no_namespace())))


async def test_a_run_that_cannot_say_where_it_stands_ends_nobody_who_follows_it() -> None:
    for says in (WorkflowQueryFailedError("no such query"), RPCError("", RPCStatusCode.UNAVAILABLE, b"")):
        run = cast(Any, Nowhere(says))
        assert await watching.progress_of(run) is None and await runs.progress_of(run) is None


def test_an_abort_in_the_wrong_namespace_does_not_say_that_there_is_nothing_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def connect(address: str | None) -> Nowhere:
        return Nowhere(no_namespace())

    monkeypatch.setattr("qnwis.cli.steering.connect", connect)
    done = call("abort", "lab-1", "--reason", "x")
    assert done.exit_code == 4, done.output
    assert "Namespace typo is not found" in done.stderr and "Nothing to do" not in done.output
