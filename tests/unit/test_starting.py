"""What a workflow's answer to an update becomes."""

from __future__ import annotations

import pytest
from temporalio.client import WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError

from qnwis.api.problems import STATUS
from qnwis.continuity.refusal import Refusal
from qnwis.providers.errors import Refused
from qnwis.starting import raise_refusal

RULE = Refusal(rule="cooldown", message="Not yet", remedy="Wait.")


@pytest.mark.parametrize(
    ("cause", "rule"),
    [
        (ApplicationError("Not yet", RULE.model_dump(mode="json"), type="refused"), "cooldown"),
        (ApplicationError("Workflow ended", type="AcceptedUpdateCompletedWorkflow"), "not_taken"),
        (RuntimeError("anything"), "not_taken"),
    ],
)
def test_what_an_update_failed_for_is_a_refusal(cause: BaseException, rule: str) -> None:
    with pytest.raises(Refused) as caught:
        raise_refusal(WorkflowUpdateFailedError(cause))
    assert caught.value.refusal.rule == rule


def test_what_was_not_taken_may_be_said_again() -> None:
    assert STATUS["not_taken"] == 409
