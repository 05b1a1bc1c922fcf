"""Every action of the command line × every role: what the command sends is judged as a worker judges it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import click
import pytest
import typer
import yaml
from temporalio.service import RPCError, RPCStatusCode
from temporalio.testing import ActivityEnvironment
from typer.testing import CliRunner, Result

from activities.people import People, Proof, ProofRequest
from qnwis.cli.qnwis_continuity import app
from qnwis.config.access import AccessFiles
from qnwis.config.load import load_rbac
from qnwis.config.shipped import shipped
from qnwis.continuity.access import PERMISSIONS, Deed
from qnwis.continuity.tokens import Expected
from qnwis.providers.audit_store import SqliteAuditStore
from qnwis.providers.keys import new_key, public_key_of, write_key

CONFIG = shipped("config")
RBAC = load_rbac(CONFIG / "rbac" / "continuity.yaml")
ROLES = [*(role.name for role in RBAC.roles), "sre_oncall"]
RUN_ID = "00000000-0000-4000-8000-000000000000"
PLAN = "plan.json"


class Action(NamedTuple):
    typed: str
    deed: Deed
    about_run: bool = False
    """Whether the token names the run that goes on."""
    whose: str = "lab-1"
    """Cluster or region."""


ACTIONS = [
    Action("abort lab-1", Deed.ABORT, about_run=True),
    Action("skip lab-1 notification", Deed.SKIP, about_run=True),
    Action("run pause lab-1", Deed.PAUSE, about_run=True),
    Action("run resume lab-1", Deed.RESUME, about_run=True),
    Action("run extend lab-1 --for 10m", Deed.EXTEND, about_run=True),
    Action("run confirm lab-1 stop-jobs", Deed.CONFIRM, about_run=True),
    Action(f"execute --plan {PLAN}", Deed.START, whose="prod-cluster"),
    Action(f"execute --plan {PLAN} --override", Deed.OVERRIDE, whose="prod-cluster"),
    Action("execute lab-1 --drill", Deed.START),
    Action("finish lab-1", Deed.START),
    Action("maintenance run lab-1", Deed.START),
    Action("maintenance drill lab-1", Deed.START),
    Action("maintenance schedule lab-1 --cron 0_3_*_*_SUN", Deed.SCHEDULE),
    Action("guardian pause lab-1", Deed.PAUSE),
    Action("guardian resume lab-1", Deed.RESUME),
    Action(f"guardian acknowledge lab-1 --run-id {RUN_ID}", Deed.ACKNOWLEDGE),
    Action("region evacuate region-1", Deed.START, whose="region-1"),
    Action("region failback region-1", Deed.START, whose="region-1"),
    Action("region abort region-1", Deed.ABORT, about_run=True, whose="region-1"),
    Action("region pause region-1", Deed.PAUSE, about_run=True, whose="region-1"),
    Action("region resume region-1", Deed.RESUME, about_run=True, whose="region-1"),
]
ELSEWHERE = {
    "approve": "a vote's rules are the approval workflow's",
    "reject": "a vote's rules are the approval workflow's",
    "region approve": "a vote's rules are the approval workflow's",
    "region reject": "a vote's rules are the approval workflow's",
    "review close": "needs a review that is open: tests/integration/continuity/test_override.py",
}
WITHOUT_REASON = ("finish", "execute", "maintenance drill")


class Heard:
    """In place of a Temporal client: keeps what is sent, and answers nothing."""

    data_converter = SimpleNamespace(payload_codec=None)

    def __init__(self) -> None:
        self.sent: list[Any] = []

    def get_workflow_handle(self, *_: Any, **__: Any) -> Heard:
        return self

    async def describe(self) -> Any:
        return SimpleNamespace(run_id=RUN_ID)

    async def start_workflow(self, run: Any, request: Any, **_: Any) -> Any:
        await self._hear(request)

    async def execute_update(self, update: str, request: Any, **_: Any) -> Any:
        await self._hear(request)

    async def create_schedule(self, name: str, schedule: Any, **_: Any) -> Any:
        await self._hear(schedule.action.args[0])

    async def _hear(self, request: Any) -> None:
        self.sent.append(request)
        raise RPCError("heard", RPCStatusCode.UNAVAILABLE, b"")


class Unused:
    """Nonces of which none was used."""

    async def use(self, person: str, nonce: str, *, used_by: str, task_queue: str) -> str:
        return used_by

    async def used(self, person: str, nonce: str) -> str | None:
        return None


def typed(action: Action) -> list[str]:
    words = [word.replace("_", " ") if "*" in word else word for word in action.typed.split()]
    return words if action.typed.startswith(WITHOUT_REASON) else [*words, "--reason", "test"]


def commands(group: Any, before: str = "") -> Iterator[tuple[str, click.Command]]:
    for name in group.list_commands(click.Context(group)):
        found = group.get_command(click.Context(group), name)
        if isinstance(found, click.Group) or hasattr(found, "list_commands"):
            yield from commands(found, f"{before}{name} ")
        else:
            yield f"{before}{name}", found


def test_the_table_has_every_command_that_sends_what_a_person_signed() -> None:
    signed = {
        name
        for name, command in commands(typer.main.get_command(app))
        if any(parameter.name == "only_print" for parameter in command.params)
    }
    tabled = {name for name in signed if any(one.typed.startswith(f"{name} ") for one in ACTIONS)}
    assert tabled | ELSEWHERE.keys() == signed


@pytest.mark.parametrize("action", ACTIONS, ids=lambda action: action.typed)
def test_a_worker_does_what_a_role_may_and_nothing_else(
    action: Action, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    key, heard = new_key(), Heard()
    write_key(tmp_path / "key.pem", key, person="ann")
    _have_heard(heard, monkeypatch)
    if PLAN in action.typed:
        _run("plan", *_files(), "--output", PLAN)
    _run(*typed(action), "--key", "key.pem")
    (request,) = heard.sent
    expected = Expected(
        deed=action.deed,
        cluster_id=action.whose,
        run_id=RUN_ID if action.about_run else None,
        digest=request.digest,
    )
    let_in = {}
    for role in ROLES:
        people = [{"name": "ann", "roles": [role], "public_key": public_key_of(key)}]
        (tmp_path / "people.yaml").write_text(yaml.safe_dump({"people": people}))
        proof = _judged(request, expected, tmp_path)
        assert proof.person is not None or proof.refused.rule == "permission_missing"
        let_in[role] = proof.person is not None
    allowed = {role.name: role.allows(PERMISSIONS[action.deed]) for role in RBAC.roles}
    assert let_in == {**allowed, "sre_oncall": False}
    assert any(let_in.values()) and not all(let_in.values())


@pytest.mark.parametrize("action", ACTIONS, ids=lambda action: action.typed)
def test_what_temporal_does_not_take_is_one_clear_line(
    action: Action, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    heard = Heard()
    _have_heard(heard, monkeypatch)
    if PLAN in action.typed:
        _run("plan", *_files(), "--output", PLAN)
    done = _run(*typed(action))
    assert (done.exit_code, len(heard.sent)) == (4, 1), done.output
    assert done.stderr.endswith(": heard\n") and len(done.stderr.splitlines()) == 1


def _judged(request: Any, expected: Expected, folder: Path) -> Proof:
    audit = SqliteAuditStore(folder / "audit.sqlite", folder / "signing.pem")
    worker = People(AccessFiles(folder), Unused(), audit)
    asked = ProofRequest(token=request.token, expected=expected, claimed="ann", used_by=RUN_ID)
    proof: Proof = asyncio.run(ActivityEnvironment().run(worker.prove, asked))
    return proof


def _have_heard(heard: Heard, monkeypatch: pytest.MonkeyPatch) -> None:
    async def connect(address: str | None) -> Heard:
        return heard

    for module in ("drilling", "execute", "guardian", "maintenance", "region", "steering"):
        monkeypatch.setattr(f"qnwis.cli.{module}.connect", connect)


def _files() -> list[str]:
    return [
        *("--cluster", str(CONFIG / "continuity" / "cluster.yaml")),
        *("--policy", str(CONFIG / "continuity" / "policy.yaml")),
    ]


def _run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments), env={"NO_COLOR": "1"})
