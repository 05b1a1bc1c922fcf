"""The access review on the real Temporal server: by a person, by the schedule, with a channel that fails."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
import yaml
from temporalio.client import ScheduleActionExecutionStartWorkflow

from qnwis.access_reviews import schedule_access_review, start_access_review, unschedule_access_review
from qnwis.continuity.access_review import AccessReviewRequest, FindingCode
from qnwis.continuity.notifications import Notification, RunEvent, Told
from qnwis.providers.errors import Refused
from tests.looking import WITHIN_S, Looks
from workflows.access_review import AccessReviewRun
from workflows.names import ACCESS_REVIEW_ID

from .conftest import Setting


class Deaf:
    """A notifier whose channels all fail."""

    def __init__(self) -> None:
        self.told: list[Notification] = []

    async def send(self, notification: Notification) -> Told:
        self.told.append(notification)
        raise RuntimeError("nobody hears")


async def test_a_review_is_recorded_and_told_though_no_channel_takes_it(stage: Setting) -> None:
    deaf = Deaf()
    on = await stage(notifier=deaf)
    people = {"people": [{"name": "bob", "roles": ["continuity_operator"], "issuers": ["api"]}]}
    (on.settings.config_dir / "people.yaml").write_text(yaml.safe_dump(people))
    request = AccessReviewRequest(days=1, initiated_by="ann")
    run = await start_access_review(on.client, request, task_queue=on.settings.task_queue)
    found = await run.result()
    (finding,) = found.review.findings
    assert finding.code is FindingCode.UNUSED_RIGHT and finding.message.startswith("bob did not use")

    record = await on.providers.audit.get(found.audit_id)
    assert record is not None and (record.operation, record.initiated_by) == ("access_review", "ann")
    assert '"person":"bob"' in (await on.providers.audit.artefacts(found.audit_id))["review"]
    told = deaf.told[0]
    assert told.event is RunEvent.ACCESS_REVIEW and "bob did not use" in told.text


async def test_each_quarter_the_schedule_reviews_the_one_that_ended(stage: Setting) -> None:
    on = await stage()
    for _ in range(2):  # a schedule that is there is renewed
        await schedule_access_review(on.client, task_queue=on.settings.task_queue)
    schedule = on.client.get_schedule_handle(ACCESS_REVIEW_ID)
    first, second = (await schedule.describe()).info.next_action_times[:2]
    assert (first.day, first.month % 3) == (second.day, second.month % 3) == (1, 1)
    assert timedelta(days=89) < second - first < timedelta(days=93)

    await schedule.trigger()
    async with asyncio.timeout(WITHIN_S):
        looks = Looks()
        while not (ran := (await schedule.describe()).info.recent_actions):
            await looks.again()
    started = ran[0].action
    assert isinstance(started, ScheduleActionExecutionStartWorkflow)
    found = await on.client.get_workflow_handle_for(AccessReviewRun.run, started.workflow_id).result()
    assert found.review.period.until.day == 1 and found.review.period.until <= first
    record = await on.providers.audit.get(found.audit_id)
    assert record is not None and (record.initiated_by, record.role) == ("schedule", "service")

    await unschedule_access_review(on.client)
    with pytest.raises(Refused, match="no_schedule"):
        await unschedule_access_review(on.client)
