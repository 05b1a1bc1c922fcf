"""What a guardian's view says in words: as Markdown to the Temporal UI, line by line to the command line."""

from __future__ import annotations

from collections.abc import Iterator

from temporalio import workflow

from .guardian_state import GuardianView

with workflow.unsafe.imports_passed_through():
    from qnwis.continuity.region_wait import RegionFinding


def primary_in_words(view: GuardianView) -> str:
    """Who the primary is; of an active/active cluster, who it is in each region."""
    if not view.primaries:
        return f"primary {view.primary_node_id or 'unknown'}"
    each = (f"{region} {node_id or 'unknown'}" for region, node_id in sorted(view.primaries.items()))
    return f"primaries {', '.join(each)}"


def in_words(view: GuardianView) -> Iterator[str]:
    """A line for each node, one for each vantage that abstains, and one for each region that is not well."""
    for node_id, verdict in view.verdicts.items():
        yield f"{node_id}: {verdict.finding.value.replace('_', ' ')} ({verdict.why})"
    for vantage, why in sorted(view.abstaining.items()):
        yield f"{vantage} abstains: {why}"
    for region, heard in sorted(view.regions.items()):
        if heard.word.finding is not RegionFinding.WELL:
            yield f"{region} is {heard.word.finding.value} ({heard.word.why})"


def details(view: GuardianView) -> str:
    """The page "User Metadata": who the primary is, what is seen, and why nothing is done."""
    who = primary_in_words(view)
    lines = [f"**{who[0].upper()}{who[1:]}**", ""]
    lines += [f"- {line}" for line in in_words(view)]
    if (pause := view.pause) is not None:
        lines += ["", f"**Paused** by {pause.by} since {pause.since:%F %T} UTC: {pause.reason}"]
    if view.holding is not None:
        lines += ["", f"**Not acting**: {view.holding}"]
    if view.last_refused is not None:
        lines += ["", view.last_refused]
    return "\n".join(lines)
