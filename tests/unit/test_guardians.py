"""Asking guardians from outside: one that has ended watches nothing, though Temporal would still answer."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import pytest
from temporalio.client import (
    Client,
    WorkflowExecutionStatus,
    WorkflowFailureError,
    WorkflowQueryFailedError,
    WorkflowQueryRejectedError,
)
from temporalio.common import QueryRejectCondition
from temporalio.exceptions import ActivityError, ApplicationError
from temporalio.service import RPCError, RPCStatusCode

from qnwis.cluster_status import guardian_view
from qnwis.continuity.detection import Finding, Verdict
from qnwis.continuity.region_wait import RegionFinding
from qnwis.continuity.regions import RegionVerdict
from qnwis.guardians import cluster_view, region_view
from qnwis.providers.errors import Refused
from qnwis.providers.key_store import KeyStoreError
from tests.unit.cli.test_commands import call
from tests.unit.test_guardian_words import view
from tests.unit.test_temporal import no_namespace
from workflows.region_guardian import RegionView

HEALTHY = Verdict(node_id="node-1", finding=Finding.HEALTHY, why="1 of 1 vantages")
WATCHING = view(cluster_id="lab-1", verdicts={"node-1": HEALTHY})
NO_WORKER = RPCError("Timeout expired", RPCStatusCode.DEADLINE_EXCEEDED, b"")
SILENT = {"shop": "its guardian does not answer"}
WELL = RegionVerdict(region="eu", finding=RegionFinding.WELL, why="0 failed nodes of 0 clusters")


def not_loaded() -> WorkflowFailureError:
    """Of a guardian whose cluster's files cannot be used."""
    failed = ActivityError(
        "Activity task failed",
        scheduled_event_id=1,
        started_event_id=2,
        identity="",
        activity_type="load_cluster",
        activity_id="1",
        retry_state=None,
    )
    failed.__cause__ = ApplicationError("clusters/lab-1: no such cluster", type="cluster_not_loaded")
    return WorkflowFailureError(cause=failed)


@dataclass
class Played:
    """A Temporal client, and the one guardian that it knows."""

    answers: Any = WATCHING
    """A view, or what hinders an answer; of several, one after another."""
    ended: WorkflowExecutionStatus | None = None
    fails: WorkflowFailureError | None = None
    hindered: RPCError | None = None
    """Whatever is asked of the server."""

    def get_workflow_handle_for(self, *_: object) -> Played:
        return self

    async def start_workflow(self, *_: object, **__: object) -> Played:
        if self.hindered is not None:
            raise self.hindered
        return self

    async def result(self) -> None:
        if self.fails is None:
            await asyncio.Event().wait()
        else:
            raise self.fails

    async def query(
        self, query: object, *, reject_condition: QueryRejectCondition | None = None, rpc_timeout: object
    ) -> Any:
        if self.hindered is not None:
            raise self.hindered
        if self.ended is not None and reject_condition is QueryRejectCondition.NOT_OPEN:
            raise WorkflowQueryRejectedError(self.ended)
        answer = self.answers
        if isinstance(answer, list):
            answer = answer.pop(0) if len(answer) > 1 else answer[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def of(guardian: Played) -> Client:
    return cast(Client, guardian)


TERMINATED = WorkflowExecutionStatus.TERMINATED


async def test_what_has_ended_is_no_guardian_though_it_would_still_answer() -> None:
    for look, whose in ((cluster_view, "lab-1"), (region_view, "eu")):
        with pytest.raises(Refused) as caught:
            await look(of(Played(ended=TERMINATED)), whose)
        refusal = caught.value.refusal
        assert refusal.rule == "no_guardian" and "has ended (terminated)" in refusal.message
        assert " start " in refusal.remedy or " watch " in refusal.remedy
    assert await cluster_view(of(Played()), "lab-1") is WATCHING


async def test_a_namespace_that_the_server_does_not_know_says_nothing_of_a_guardian() -> None:
    gone = RPCError("workflow not found", RPCStatusCode.NOT_FOUND, b"")
    for look in (cluster_view, region_view):
        with pytest.raises(Refused):
            await look(of(Played(hindered=gone)), "lab-1")
        with pytest.raises(RPCError, match="typo"):
            await look(of(Played(hindered=no_namespace())), "lab-1")


@pytest.mark.parametrize(
    ("guardian", "note"),
    [
        (Played(ended=TERMINATED), "guardian-lab-1 has ended (terminated)"),
        (Played(NO_WORKER), "guardian-lab-1 does not answer: Timeout expired"),
        (Played(WorkflowQueryFailedError("no such query")), "does not answer: no such query"),
        (Played(KeyStoreError("it is encrypted")), "does not answer: it is encrypted"),
        (Played(hindered=no_namespace()), "does not answer: Namespace typo is not found."),
    ],
)
async def test_a_status_says_why_it_has_nothing_from_the_guardian(guardian: Played, note: str) -> None:
    seen, said = await guardian_view(of(guardian), "lab-1")
    assert seen is None and note in (said or "")


# What `guardian start` and `region watch` print


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("qnwis.guardians.BEGINS_WITHIN_S", 0.2)
    monkeypatch.setattr("qnwis.guardians.LOOK_EVERY_S", 0.01)
    yield


def typed(guardian: Played, monkeypatch: pytest.MonkeyPatch, *words: str) -> tuple[int, str]:
    """Exit code, and everything that was printed, as one line."""

    async def connect(address: str | None) -> Played:
        return guardian

    for module in ("guardian", "region"):
        monkeypatch.setattr(f"qnwis.cli.{module}.connect", connect)
    done = call(*words)
    return done.exit_code, " ".join(done.output.split())


REGION = RegionView(region="eu", verdict=None)
WATCHED = RegionView(region="eu", verdict=WELL, silent=SILENT)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("words", "guardian", "code", "told"),
    [
        ("guardian start lab-1", Played(), 0, "guardian-lab-1 watches lab-1"),
        ("guardian start lab-1", Played([NO_WORKER, WATCHING]), 0, "guardian-lab-1 watches lab-1"),
        ("guardian start lab-1", Played(NO_WORKER), 0, "is started, and no worker has taken it up yet"),
        ("guardian start lab-1", Played(view()), 0, "is started, and still looks around in lab-1"),
        (
            "guardian start lab-1",
            Played(view(), fails=not_loaded()),
            2,
            "guardian-lab-1 has ended: cluster_not_loaded: clusters/lab-1: no such cluster",
        ),
        (
            "guardian start lab-1",
            Played(ended=WorkflowExecutionStatus.FAILED, fails=not_loaded()),
            2,
            "guardian-lab-1 has ended: cluster_not_loaded: clusters/lab-1: no such cluster",
        ),
        ("region watch eu", Played(WATCHED), 0, "guardian-of-region-eu watches eu eu: well (0 failed nodes"),
        ("region watch eu", Played(WATCHED), 0, "shop: its guardian does not answer"),
        ("region watch eu", Played(NO_WORKER), 0, "is started, and no worker has taken it up yet"),
        ("region watch eu", Played(REGION), 0, "is started, and has heard of no cluster yet"),
        (
            "region watch eu",
            Played(REGION, fails=not_loaded()),
            2,
            "guardian-of-region-eu has ended: cluster_not",
        ),
    ],
)
def test_who_starts_a_guardian_hears_whether_it_began(
    words: str, guardian: Played, code: int, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    exit_code, output = typed(guardian, monkeypatch, *words.split())
    assert (exit_code, told in output) == (code, True), output
    assert ("watches" in output) is ("watches" in told or "shop" in told), output


@pytest.mark.parametrize("words", ["guardian view lab-1", "region view eu"])
@pytest.mark.parametrize(
    ("guardian", "code", "told"),
    [
        (Played(ended=TERMINATED), 3, "has ended (terminated)"),
        (Played(KeyStoreError("it is encrypted")), 2, "it is encrypted"),
        (Played(WorkflowQueryFailedError("no such query")), 4, "no such query"),
        (Played(hindered=no_namespace()), 4, "Namespace typo is not found."),
    ],
)
def test_a_view_of_none_is_one_clear_message(
    words: str, guardian: Played, code: int, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    exit_code, output = typed(guardian, monkeypatch, *words.split())
    assert (exit_code, told in output) == (code, True), output


@pytest.mark.parametrize("words", ["guardian start lab-1", "region watch eu"])
def test_a_start_in_a_namespace_that_is_not_there_is_one_clear_line(
    words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, output = typed(Played(hindered=no_namespace()), monkeypatch, *words.split())
    assert (code, output) == (
        4,
        "the Temporal server does not answer as expected: Namespace typo is not found.",
    )
