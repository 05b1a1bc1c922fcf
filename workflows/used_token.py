"""The mark that a token has served: its id names the token, and is never started twice."""

from __future__ import annotations

from temporalio import workflow

from .lock import refuse_a_lock
from .versioning import FOLLOWS


@workflow.defn(versioning_behavior=FOLLOWS)
class UsedToken:
    """Ends at once. That it was started is what counts; what the token served is in its memo."""

    @workflow.run
    async def run(self) -> None:
        refuse_a_lock()
        return
