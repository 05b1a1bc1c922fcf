"""A guardian is asked what it holds when its history has grown, or when it may be unable to go on."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import cast

import pytest
from temporalio.api.workflowservice.v1 import DescribeWorkflowExecutionResponse
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.service import RPCError, RPCStatusCode

from activities.guardian_views import GuardianEnded, GuardianViews
from activities.regions import LOOK_EVERY_S, rest_s
from qnwis.continuity.policy import Policy
from qnwis.continuity.region_sight import HeldByGuardian


@dataclass
class Played:
    """A guardian; `primary` is what it holds."""

    primary: str = "node-1"
    run_id: str = "run-1"
    events: int = 10
    task: bool = False
    gone: bool = False
    status: WorkflowExecutionStatus = WorkflowExecutionStatus.RUNNING
    asked: int = 0

    def get_workflow_handle(self, workflow_id: str) -> Played:
        assert workflow_id == "guardian-a"
        return self

    async def describe(self, *, rpc_timeout: object) -> SimpleNamespace:
        raw = DescribeWorkflowExecutionResponse()
        if self.task:
            raw.pending_workflow_task.attempt = 7
        return SimpleNamespace(
            run_id=self.run_id, history_length=self.events, raw_description=raw, status=self.status
        )

    async def query(self, name: str, **_: object) -> HeldByGuardian:
        self.asked += 1
        if self.gone:
            raise RPCError("no worker", RPCStatusCode.DEADLINE_EXCEEDED, b"")
        return HeldByGuardian(primary_node_id=self.primary, verdicts={})

    async def held_by(self, views: GuardianViews) -> str | None:
        return (await views.of("guardian-a")).primary_node_id


def of(guardian: Played) -> GuardianViews:
    return GuardianViews(cast(Client, guardian))


async def test_one_that_nothing_has_happened_to_is_asked_once() -> None:
    guardian = Played()
    views = of(guardian)
    assert [await guardian.held_by(views) for _ in range(3)] == ["node-1"] * 3
    assert guardian.asked == 1


@pytest.mark.parametrize("change", [{"events": 11}, {"run_id": "run-2"}])
async def test_one_whose_history_has_grown_or_that_went_on_as_new_is_asked_again(
    change: dict[str, object],
) -> None:
    guardian = Played()
    views = of(guardian)
    await guardian.held_by(views)
    guardian.primary = "node-2"
    for name, value in change.items():
        setattr(guardian, name, value)
    assert await guardian.held_by(views) == "node-2"
    assert guardian.asked == 2


async def test_one_that_cannot_go_on_is_asked_although_its_history_does_not_grow() -> None:
    guardian = Played()
    views = of(guardian)
    await guardian.held_by(views)
    guardian.task = guardian.gone = True
    with pytest.raises(RPCError):
        await guardian.held_by(views)


async def test_one_that_was_ended_counts_for_nothing_although_it_would_still_answer() -> None:
    guardian = Played()
    views = of(guardian)
    await guardian.held_by(views)
    guardian.status = WorkflowExecutionStatus.TERMINATED
    with pytest.raises(GuardianEnded, match=r"guardian-a has ended \(terminated\)"):
        await guardian.held_by(views)
    guardian.status, guardian.primary = WorkflowExecutionStatus.RUNNING, "node-2"
    assert await guardian.held_by(views) == "node-2"


LISTENS_S = Policy.model_fields["region_listen_s"].default


@pytest.mark.parametrize("look_s", [0.0, 0.3, 2.0, 60.0])
def test_however_long_a_look_takes_the_next_begins_while_clusters_still_listen(look_s: float) -> None:
    assert LOOK_EVERY_S <= rest_s(look_s) < LISTENS_S / 2
