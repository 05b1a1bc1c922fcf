"""A report as sections of text, and those as Markdown. HTML shows the same sections.

Every text of a run is somebody's input: a name, a reason, an answer of a server. None may change what the
report looks like.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from .plain_text import plain
from .refusal import Refusal
from .report import Report
from .report_timeline import Bar
from .report_writes import Writes

_MARKS = re.compile(r"([\\`*\[\]<>|#&~!])|(?<![^\W_])_|_(?![^\W_])")
"""What Markdown or HTML in it would take for markup; not an underscore within a word."""


@dataclass(frozen=True)
class Section:
    title: str
    rows: tuple[tuple[str, ...], ...]
    header: tuple[str, ...] = ()
    """Of a table; without it each row is a name and what is to say of it."""
    timeline: bool = False
    """Where a picture of the timeline belongs."""
    picture: str = ""
    """SVG that was made here, for pages alone; nothing in it is markup that somebody else wrote."""


@dataclass(frozen=True)
class Document:
    """What is shown of a run or a simulation, in whatever form."""

    title: str
    id: str
    """What it is of, and when."""
    good: bool
    verdict: str
    sections: tuple[Section, ...]
    bars: tuple[Bar, ...] = ()
    """Of the timeline's picture."""


def document_of(report: Report) -> Document:
    return Document(
        title=f"{report.operation} of {report.cluster_id}",
        id=f"{report.audit_id}, {report.ended_at:%F %T} UTC",
        good=report.success,
        verdict=f"{'verified' if report.success else 'not verified'}; {report.outcome}",
        sections=tuple(section for section in _sections(report) if section.rows),
        bars=report.timeline,
    )


def markdown(document: Document) -> str:
    lines = [f"# {_escaped(document.title)}", "", _escaped(document.id), ""]
    lines += [f"Outcome: {_escaped(document.verdict)}"]
    for section in document.sections:
        if section.picture and not section.rows:
            continue
        lines += ["", f"## {section.title}", ""]
        if section.header:
            lines += [_row(section.header), _row(tuple("---" for _ in section.header), escape=False)]
            lines += [_row(row) for row in section.rows]
        else:
            lines += ["- " + ": ".join(_escaped(cell) for cell in row if cell) for row in section.rows]
    return "\n".join(lines) + "\n"


def ms(value: float | None) -> str:
    """A duration for people."""
    if value is None:
        return ""
    return f"{value:.0f} ms" if value < 10_000 else f"{value / 1000:.1f} s"


def refused(refusal: Refusal) -> Iterator[tuple[str, ...]]:
    yield "refused by", f"{refusal.rule}: {refusal.message}"
    yield from ((name, str(value)) for name, value in refusal.values.items())
    yield "what would change it", refusal.remedy


def _sections(report: Report) -> Iterator[Section]:
    yield Section("Summary", tuple(_summary(report)))
    yield Section("Why", tuple(_why(report)))
    yield Section("Evidence (L19)", tuple((one.artefact, one.says) for one in report.evidence))
    yield Section("Plan", tuple(_plan(report)))
    yield Section("Approval", tuple(_approval(report)))
    yield Section(
        "Timeline",
        tuple(_bar(bar) for bar in report.timeline),
        ("step", "became", "expected", "actual", ""),
        timeline=True,
    )
    yield Section("Writes", (*_fencing(report), *_writes(report.writes)))
    yield Section(
        "DNS",
        tuple((one.action_id, ", ".join(one.before), ", ".join(one.after)) for one in report.dns),
        ("action", "before", "after"),
    )
    yield Section(
        "Clusters",
        tuple((c.cluster_id, c.outcome or "not begun", c.run_id or "", c.reason) for c in report.clusters),
        ("cluster", "outcome", "run", ""),
    )
    yield Section(
        "Not executed",
        tuple((one.name, one.became, one.why) for one in report.not_executed),
        ("step", "became", "why"),
    )
    yield Section("Verification (L20)", tuple(_verification(report)))
    yield Section("Notes", tuple((note,) for note in report.notes))
    if not report.timeline:
        yield Section("Trail (L21)", tuple((one.name, one.became) for one in report.trail))
    yield Section("Audit proof", tuple(_proof(report)))


def _summary(report: Report) -> Iterator[tuple[str, ...]]:
    yield "began", f"{report.started_at:%F %T} UTC"
    yield "took", ms(report.duration_ms)
    if report.old_primary or report.new_primary:
        moved = report.new_primary or "nowhere that is known"
        yield "service", f"from {report.old_primary or 'no node'} to {moved}"
    if report.recovery_ms is not None:
        yield "recovered in", ms(report.recovery_ms)
    if report.runbook is not None:
        yield "runbook", report.runbook.value
    yield "run", report.run_id


def _why(report: Report) -> Iterator[tuple[str, ...]]:
    yield "reason", report.reason
    yield "started by", f"{report.initiated_by} ({report.role})"
    if report.detected is not None:
        yield "detection", report.detected
    if report.refusal is not None:
        yield from refused(report.refusal)


def _plan(report: Report) -> Iterator[tuple[str, ...]]:
    yield "digest", report.plan_digest or "none"
    if report.target is not None:
        yield "target", report.target
    for action in report.plan:
        yield action.action_id, f"{action.kind}, estimated {ms(action.estimate_ms)}"


def _approval(report: Report) -> Iterator[tuple[str, ...]]:
    if not report.approval_required:
        yield "required", "no"
    else:
        yield "required", f"yes; given by {report.approved_by}" if report.approved_by else "yes; not given"
    for vote in report.votes:
        voted = "voted for it" if vote.approve else "voted against it"
        said = f"{voted} at {vote.at:%F %T} UTC as {', '.join(vote.roles)}"
        yield vote.person, said + (f": {vote.reason}" if vote.reason else "")


def _bar(bar: Bar) -> tuple[str, ...]:
    name = f"– {bar.title}" if bar.action else bar.title
    return name, bar.became, ms(bar.expected_ms), ms(bar.actual_ms), bar.note.replace("`", "")


def _fencing(report: Report) -> Iterator[tuple[str, ...]]:
    if (fencing := report.fencing) is not None:
        yield (
            "fencing evidence",
            f"{fencing.type.value} of {fencing.holder}, epoch {fencing.epoch}: {fencing.detail}",
        )
    if (suspended := report.suspension) is not None:
        until = (
            f"until {suspended.until:%F %T} UTC" if suspended.until is not None else "and still, at the end"
        )
        yield (
            "guarantee suspended",
            f"since {suspended.since:%F %T} UTC {until}; gave up {', '.join(suspended.lost)}",
        )


def _writes(writes: Writes | None) -> Iterator[tuple[str, ...]]:
    if writes is None:
        return
    if not writes.moved:
        yield "service", "did not move: the run promoted no node, and lost nothing"
        return
    if writes.gap_ms is None:
        yield "gap", "not known from the record"
    else:
        yield (
            "gap",
            f"{ms(writes.gap_ms)}, from {writes.gap_from:%T} to {writes.gap_until:%T} UTC;"
            " clients also have to hear of the address",
        )
    if writes.released:
        yield "loss", "none: the target had replayed the whole log of the old primary, which then released"
        return
    yield "loss", "not measured; what the replication of the cluster promises holds"
    if writes.behind_bytes is not None:
        yield "target's log", f"{writes.behind_bytes} bytes behind the most advanced node that answered"


def _verification(report: Report) -> Iterator[tuple[str, ...]]:
    if report.verified is None:
        yield "passed", "not verified"
        return
    yield "passed", "yes" if report.verified else "NO"
    if report.confidence is not None:
        yield "confidence (L22)", f"{report.confidence.score} ({report.confidence.band})"
    for check in report.checks:
        yield check.name, ", ".join(["ok" if check.ok else "FAILED", check.detail]).removesuffix(", ")


def _proof(report: Report) -> Iterator[tuple[str, ...]]:
    proof = report.proof
    yield "record", f"{report.audit_id}, number {proof.sequence} of its log"
    yield "record hash", proof.record_hash
    yield "record before", proof.previous_hash
    yield "signature", proof.signature
    yield "manifest", proof.manifest_hash
    yield from proof.manifest.items()
    yield "to prove it", "qnwis-continuity audit verify"


def _row(cells: tuple[str, ...], *, escape: bool = True) -> str:
    return "| " + " | ".join(_escaped(cell) if escape else cell for cell in cells) + " |"


def _escaped(text: str) -> str:
    return _MARKS.sub(lambda mark: "\\" + mark.group(), plain(text))
