"""Readiness of one cluster, evaluated once. Started by a schedule, or by a person who wants to know now."""

from __future__ import annotations

import contextlib

from temporalio import workflow
from temporalio.exceptions import ActivityError

from . import options
from .details import show_details
from .lock import refuse_a_lock
from .names import CLUSTER, INITIATOR, KIND, OUTCOME
from .versioning import PINNED

with workflow.unsafe.imports_passed_through():
    from pydantic import ValidationError

    from activities.evidence import ClusterName
    from activities.notification import Notifications
    from activities.readiness import ReadinessChecks
    from qnwis.continuity.model import Identifier, Model
    from qnwis.continuity.readiness_facts import Check, Grade, Readiness
    from qnwis.continuity.suspicions import refused_callers
    from qnwis.labels import label_of

READINESS = "readiness"
"""The kind by which such runs are found."""

MARKS = {Grade.READY: "☑", Grade.WARNING: "⚠", Grade.NOT_EVALUATED: "?", Grade.NOT_READY: "☒"}


class ReadinessRequest(Model):
    """From the Temporal UI, cluster_id is enough."""

    cluster_id: Identifier
    initiated_by: str = "a person"


@workflow.defn(failure_exception_types=[ValidationError], versioning_behavior=PINNED)
class ReadinessCheck:
    """Evaluate whether a failover of the cluster would work now."""

    @workflow.init
    def __init__(self, request: ReadinessRequest | None = None) -> None:
        self.request = request or ReadinessRequest.model_validate({})

    @workflow.run
    async def run(self, request: ReadinessRequest | None = None) -> Readiness:
        refuse_a_lock()
        workflow.upsert_search_attributes(
            [
                CLUSTER.value_set(self.request.cluster_id),
                KIND.value_set(READINESS),
                INITIATOR.value_set(label_of(self.request.initiated_by)),
                OUTCOME.value_set("running"),
            ]
        )
        readiness = await workflow.execute_activity_method(
            ReadinessChecks.evaluate,
            ClusterName(cluster_id=self.request.cluster_id),
            **options.look("agents, DNS servers, audit trail"),
        )
        workflow.upsert_search_attributes([OUTCOME.value_set(readiness.grade.value)])
        await self._tell_of_refused_callers(readiness)
        show_details("\n".join([f"**{readiness.headline}**", "", *map(_line, readiness.checks)]))
        return readiness

    async def _tell_of_refused_callers(self, readiness: Readiness) -> None:
        notice = refused_callers(readiness)
        if notice is not None:
            with contextlib.suppress(ActivityError):  # a channel that fails blocks nothing
                await workflow.execute_activity_method(
                    Notifications.notify, notice, **options.notify(notice.title)
                )


def _line(check: Check) -> str:
    age = "" if check.age_s is None else f" ({check.age_s:.0f} s old)"
    return f"- {MARKS[check.grade]} **{check.name}**{age} — {check.reason}"
