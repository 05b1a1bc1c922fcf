"""Planned maintenance from the Temporal UI alone, in a real browser on a real lab.

What is done here is what `docs/howto/maintenance-from-the-ui.md` says, in its order.
"""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path

import pytest

from qnwis.continuity.run import RunKind
from qnwis.lab.acks import analyse
from qnwis.lab.control_plane import ControlPlane
from qnwis.lab.temporal_server import ADDRESS_VARIABLE
from qnwis.providers.audit_store import SqliteAuditStore
from qnwis.providers.dns import Rfc2136Dns
from qnwis.providers.nodes import HttpNodes
from qnwis.runbook import load_runbook

from .browser import TemporalUI, temporal_ui
from .real import (
    PAUSE_MS,
    Scene,
    command,
    healed,
    lab_directory,
    latest_run_id,
    running_lab,
    settings_of,
    until_each_client_writes,
)

Settings = dict[str, str]
"""The environment of whoever types a command."""

STEPS = [step.title for step in load_runbook(RunKind.PLANNED_MAINTENANCE).steps]


@pytest.fixture(scope="module")
def chromium() -> str:
    found = shutil.which("chromium")
    if found is None:
        pytest.skip("no chromium on PATH; on Debian: apt-get install chromium")
    return found


@pytest.fixture(scope="module")
async def control(chromium: str) -> AsyncIterator[ControlPlane]:
    """A lab with a Temporal server of its own: somebody else's may have no UI."""
    with pytest.MonkeyPatch.context() as patch, lab_directory() as root:
        patch.delenv(ADDRESS_VARIABLE, raising=False)
        async with running_lab(root) as control:
            yield control


@pytest.fixture
async def scene(control: ControlPlane) -> AsyncIterator[Scene]:
    async with HttpNodes(control.lab.certificates.transport) as nodes:
        yield await healed(control, nodes)
        await control.lab.stop_clients()


@pytest.fixture(scope="module")
async def settings(control: ControlPlane) -> Settings:
    return await settings_of(control.lab)


Browser = Callable[[], AbstractAsyncContextManager[TemporalUI]]


@pytest.fixture
def browser(scene: Scene, chromium: str, tmp_path: Path) -> Browser:
    """Opens the lab's UI in a new browser."""
    address = scene.lab.state().temporal_ui
    assert address is not None
    return partial(temporal_ui, address, chromium=chromium, shots=tmp_path)


async def test_a_person_moves_the_service_from_the_temporal_ui_alone(
    scene: Scene, browser: Browser, settings: Settings
) -> None:
    lab = scene.lab
    await lab.start_clients(2, pause_ms=PAUSE_MS)
    async with browser() as ui:
        await start_as_bob(scene, ui, settings)
        await ui.until_checklist("▶ Approval", "0 of 1 approvals of manual_failover", "☐ Execution")
        assert scene.effects(await run_id(scene)) == [], "before people agree nothing is changed"

        await vote(scene, ui, settings, "carl")

        await ui.until_checklist("☑ Approval", "approved by carl")
        shown = await ui.until_checklist("☑ Audit", "completed")
        assert [step for step in STEPS if f"☑ {step}" not in shown] == []
        await ui.until_status("Completed")

    new = await primary_by_dns(scene)
    assert new != scene.primary
    assert (await scene.state(new)).writable
    await scene.until_state(scene.primary, lambda s: s.upstream == new and s.streaming and not s.writable)
    await until_each_client_writes(lab, 2, to=new)
    await lab.stop_clients()
    assert analyse(lab.ack_log(), await lab.rows(new)).lost == ()

    store = SqliteAuditStore(lab.folder.audit / "audit.sqlite", lab.folder.audit / "audit-signing-key.pem")
    (record,) = await store.by_run(await run_id(scene))
    assert record.initiated_by == "bob" and record.approval.approved_by == "carl"
    assert (record.source_node, record.target_node) == (scene.primary, new)


async def test_whoever_started_it_cannot_approve_it_in_the_ui_and_the_checklist_says_so(
    scene: Scene, browser: Browser, settings: Settings
) -> None:
    async with browser() as ui:
        await start_as_bob(scene, ui, settings)
        await ui.until_checklist("▶ Approval", "0 of 1 approvals")

        await vote(scene, ui, settings, "bob")

        shown = await ui.until_checklist("a vote was refused: bob started this run", "[initiator_excluded]")
        assert "0 of 1 approvals" in shown and "may vote: ann, carl, dora, fay" in shown

        await ui.request_cancellation()
        await ui.until_checklist("untouched", "– Execution", "☑ Audit")
        await ui.until_status("Completed")

    assert scene.effects(await run_id(scene)) == []
    assert await primary_by_dns(scene) == scene.primary and (await scene.state(scene.primary)).writable


async def start_as_bob(scene: Scene, ui: TemporalUI, settings: Settings) -> None:
    cluster_id = scene.lab.cluster.cluster_id
    printed = await printed_by(settings, "maintenance", "run", cluster_id, "--reason", "new kernel")
    await ui.start_workflow(
        workflow_id=f"failover-{cluster_id}",
        task_queue="qnwis-runbooks",
        kind="PlannedMaintenance",
        payload=printed,
    )


async def vote(scene: Scene, ui: TemporalUI, settings: Settings, person: str) -> None:
    key = str(scene.lab.folder.key(person))
    printed = await printed_by(settings, "approve", scene.lab.cluster.cluster_id, "--key", key)
    await ui.send_signal("approve", printed)


async def printed_by(settings: Settings, *arguments: str) -> str:
    """What the command prints to be pasted; bob types it unless a key says otherwise."""
    said = await command(*arguments, "--print", env=settings)
    assert said.code == 0, said
    return said.out


async def run_id(scene: Scene) -> str:
    found = await latest_run_id(scene.control)
    assert found is not None
    return found


async def primary_by_dns(scene: Scene) -> str:
    """The node that the service's name points to."""
    assert scene.lab.cluster.dns is not None
    ((address,),) = set((await Rfc2136Dns().read(scene.lab.cluster.dns)).values())
    (node_id,) = [node.node_id for node in scene.lab.cluster.nodes if node.hostname == address]
    return node_id
