"""The records of one break-glass plan: the first, and supplements to it."""

from __future__ import annotations

from itertools import count

from qnwis.continuity.audit import AuditRecord
from qnwis.continuity.break_glass import BreakGlass
from qnwis.continuity.break_glass_record import Answers, Recorded, artefacts_of, draft_of, says_the_same
from qnwis.continuity.evidence import ClusterEvidence
from qnwis.continuity.orders import FencingEvidence
from qnwis.continuity.verifier import VerificationReport

from .audit_store import AuditStore


async def keep(
    store: AuditStore,
    paper: BreakGlass,
    answers: Answers,
    recorded: Recorded,
    report: VerificationReport,
    *,
    fencing: FencingEvidence | None,
    after: ClusterEvidence,
) -> tuple[AuditRecord, bool]:
    """The record of these words and answers, and whether it is new. Raises Unreachable or Refused.

    A store never replaces what it has of a run, and answers that instead: if it says something else, this
    becomes a supplement.
    """
    first: str | None = None
    for number in count(1):
        told = recorded.model_copy(update={"supplements": first})
        texts = artefacts_of(paper, answers, told, report, fencing=fencing, after=after)
        written = await store.append(draft_of(paper, answers, told, report, number=number), texts)
        if written.timestamp == recorded.recorded_at:
            return written, True
        if says_the_same(await store.artefacts(written.audit_id), texts):
            return written, False
        first = first or written.audit_id
    raise AssertionError("numbers do not end")
