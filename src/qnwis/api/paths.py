"""What stands in the paths, queries and headers of several endpoints."""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import Header, Path, Query

from qnwis.whereabouts import CLUSTER, REGION, RUN

IDENTIFIER = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"
RUN_ID = r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"

ClusterId = Annotated[str, Path(pattern=IDENTIFIER, description="cluster_id of a registered cluster.")]
Region = Annotated[str, Path(pattern=IDENTIFIER, description="The region, as the topologies name it.")]
RunId = Annotated[str, Path(pattern=RUN_ID, description="Temporal's run id, as `execution_id` has it.")]
PlanId = Annotated[str, Path(pattern=r"^plan-[0-9a-f]{12}$")]
AuditId = Annotated[str, Path(pattern=r"^audit-[A-Za-z0-9-]{1,100}$")]
Limit = Annotated[int, Query(ge=1, le=200)]
IfMatch = Annotated[
    str | None, Header(alias="If-Match", description="The digest of what is replaced, as GET answers it.")
]
Prefer = Annotated[
    str | None,
    Header(
        description="`wait=30`: answer with the run's end if it comes within 30 s, else with 202."
        " `respond-async`: answer with 202 at once. By default a run is answered with 202 at once, and a dry"
        " run with its end if it comes within 60 s."
    ),
]


_NAMED = re.compile(r"/(clusters|regions|runs)/([A-Za-z0-9._-]{1,63})")
_AS = {"clusters": CLUSTER, "regions": REGION, "runs": RUN}


def named_in(path: str) -> dict[str, str]:
    """What a request says by its path that it is about, for logs and traces."""
    return {_AS[kind]: name for kind, name in _NAMED.findall(path)}
