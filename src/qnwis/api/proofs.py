"""What records say, for people; and whether one, and the log around it, are as they were written."""

from __future__ import annotations

import asyncio
from enum import StrEnum
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from qnwis.bundle_check import check
from qnwis.continuity.identity import Permission
from qnwis.continuity.model import Model
from qnwis.continuity.report import Report, report_of
from qnwis.continuity.report_text import Document, document_of, markdown
from qnwis.continuity.trend import Trend, trends
from qnwis.providers.past_reports import reports_of
from qnwis.report_page.page import html

from .asking import Asking, answer, reads
from .paths import AuditId, ClusterId
from .records import record_of
from .texts import WholeCharacters

router = APIRouter(route_class=WholeCharacters)


class Form(StrEnum):
    JSON = "json"
    HTML = "html"
    MD = "md"


class ReportView(Model):
    request_id: str
    report: Report
    document: Document
    """The same as sections of text, in the order in which people read them."""


class TrendView(Model):
    request_id: str
    trends: tuple[Trend, ...]
    """Of each kind of run that moved the service and was verified."""


class ProofFault(Model):
    where: str
    """`log`, with the number of the record, or `bundle`."""
    code: str
    message: str


class Verification(Model):
    request_id: str
    audit_id: str
    proved: bool
    """Nothing was found changed in this record, its bundle, or the log in which it stands."""
    records: int
    """So many records the newest signed tree head covers."""
    signer: str
    """SHA-256 of the public key that signed the bundle, hexadecimal: what an offline check names, too."""
    faults: tuple[ProofFault, ...]
    note: str = (
        "This is what the installation says of its own log. Against whoever could change both, check the"
        " bundle elsewhere: qnwis-continuity audit verify FILE --public-key …"
    )


TEXT = {"schema": {"type": "string"}}
OTHER_FORMS: dict[int | str, dict[str, Any]] = {200: {"content": {"text/html": TEXT, "text/markdown": TEXT}}}


@router.get("/audit/{audit_id}/report", response_model=ReportView, responses=OTHER_FORMS)
async def report(
    audit_id: AuditId,
    form: Annotated[Form, Query(alias="format")] = Form.JSON,
    asking: Asking = reads(Permission.VIEW_AUDIT),
) -> Response:
    """What the run, drill or evacuation of this record did; `html` is a page that needs nothing else."""
    record = await record_of(audit_id, asking)
    made = report_of(record, await asking.parts.audit.artefacts(audit_id))
    document = document_of(made)
    if form is Form.JSON:
        return answer(ReportView(request_id=asking.request_id, report=made, document=document))
    text, kind = (html(document), "html") if form is Form.HTML else (markdown(document), "markdown")
    name = f'attachment; filename="{audit_id}.{form.value}"'
    return Response(text, media_type=f"text/{kind}", headers={"Content-Disposition": name})


@router.get("/clusters/{cluster_id}/trend", response_model=TrendView)
async def trend(cluster_id: ClusterId, asking: Asking = reads(Permission.VIEW_AUDIT)) -> Response:
    """How long runs took to recover, against the policy's objective, and what the next may take."""
    parts = asking.parts
    objective_ms = parts.registered(cluster_id).policy.max_failover_time_s * 1000
    found = trends(cluster_id, await reports_of(parts.audit, cluster_id), objective_ms)
    return answer(TrendView(request_id=asking.request_id, trends=found))


@router.get("/audit/{audit_id}/verification", response_model=Verification)
async def verification(audit_id: AuditId, asking: Asking = reads(Permission.VIEW_AUDIT)) -> Response:
    """Prove the record: the whole log that it stands in (hashes, links, signatures, tree heads, artefacts),
    and its bundle against the log's key."""
    parts = asking.parts
    await record_of(audit_id, asking)
    head = await parts.audit.head()
    found = [
        ProofFault(where=f"log, record {one.sequence}", code=one.code.value, message=one.message)
        for one in await parts.audit.verify()
    ]
    content = await parts.bundles.read(audit_id)
    checked = await asyncio.to_thread(check, content, public_key=parts.bundles.public_key)
    found += [ProofFault(where="bundle", code=one.code.value, message=one.message) for one in checked.faults]
    if not checked.faults and checked.audit_id != audit_id:
        told = f"the bundle's file is of {checked.audit_id}"
        found.append(ProofFault(where="bundle", code="another_record", message=told))
    return answer(
        Verification(
            request_id=asking.request_id,
            audit_id=audit_id,
            proved=not found,
            records=0 if head is None else head.head.size,
            signer=checked.signer,
            faults=tuple(found),
        )
    )
