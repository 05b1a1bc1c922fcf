"""Whether anybody watches a cluster, asked of its guardian."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta

from pydantic import BaseModel, ValidationError
from temporalio.client import Client, WorkflowQueryFailedError, WorkflowQueryRejectedError
from temporalio.common import QueryRejectCondition
from temporalio.service import RPCError, RPCStatusCode

from qnwis.continuity.guardian_rules import Pause
from qnwis.continuity.readiness_facts import Guarded
from qnwis.payloads import PayloadError
from qnwis.providers.key_store import KeyStoreError

log = logging.getLogger(__name__)

ANSWER_WITHIN = timedelta(seconds=5)


class _View(BaseModel):
    """Of what a guardian answers when it is asked, the part that says who watches."""

    statements: dict[str, object] = {}
    abstaining: dict[str, str] = {}
    pause: Pause | None = None


class Guarding:
    def __init__(self, client: Client, guardian_id: Callable[[str], str]) -> None:
        """`guardian_id`: the workflow id of a cluster's guardian."""
        self._client = client
        self._guardian_id = guardian_id

    async def of(self, cluster_id: str) -> Guarded | None:
        """None where the guardian does not answer now, which says nothing."""
        guardian = self._client.get_workflow_handle(self._guardian_id(cluster_id))
        try:
            view: _View = await guardian.query(
                "view",
                result_type=_View,
                reject_condition=QueryRejectCondition.NOT_OPEN,
                rpc_timeout=ANSWER_WITHIN,
            )
        except WorkflowQueryRejectedError as error:
            how = "" if error.status is None else f" ({error.status.name.lower()})"
            return Guarded(missing=f"{guardian.id} has ended{how}")
        except (RPCError, WorkflowQueryFailedError, KeyStoreError, PayloadError, ValidationError) as error:
            if isinstance(error, RPCError) and error.status is RPCStatusCode.NOT_FOUND:
                return Guarded(missing=f"there is no {guardian.id}")
            log.warning("readiness of %s: %s does not answer: %s", cluster_id, guardian.id, error)
            return None
        pause = view.pause
        return Guarded(
            heard=tuple(view.statements),
            abstaining=view.abstaining,
            paused=None if pause is None else f"by {pause.by}: {pause.reason}",
        )
