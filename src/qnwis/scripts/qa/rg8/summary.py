"""What the gate found, as Markdown and as JSON.

Everything above MARK is the same on every machine and in every run that finds the same, so that a committed
summary stays true; figures of one run on one machine stand below it.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from pathlib import Path

from .found import Found, Verdict

FOLDER = Path("docs") / "audit" / "rg8"
MARKDOWN, JSON = "CONTINUITY_SUMMARY.md", "continuity_summary.json"
MARK = "<!-- Below: figures of one run on one machine. -->"


def verdict(every: Sequence[Found]) -> Verdict:
    """Missed if anything is; passed only if everything was run and passed."""
    verdicts = {one.verdict for one in every}
    if Verdict.MISSED in verdicts:
        return Verdict.MISSED
    return Verdict.NOT_RUN if Verdict.NOT_RUN in verdicts else Verdict.PASSED


def markdown(every: Sequence[Found]) -> str:
    return stable(every) + MARK + "\n\n" + figures(every)


def stable(every: Sequence[Found]) -> str:
    lines = [
        "# RG-8 Continuity Gate",
        "",
        "Written by `make gate` (`python src/qnwis/scripts/qa/rg8_continuity_gate.py`), which ends with 0"
        " only if every check below passed. They are in `src/qnwis/scripts/qa/rg8`, one in each file.",
        "",
        f"Gate: **{verdict(every).value}**",
        "",
        "| check | verdict | what holds if it passed |",
        "| --- | --- | --- |",
        *(f"| {one.name} | {one.verdict.value} | {one.holds} |" for one in every),
        "",
    ]
    if any(one.reasons for one in every):
        lines += ["## Not passed", ""]
        lines += [f"- {one.name}: {reason}" for one in every for reason in one.reasons]
        lines.append("")
    return "\n".join(lines)


def figures(every: Sequence[Found]) -> str:
    lines = ["## Figures of one run", "", f"On {machine()}.", "", "| check | figure | value | limit |"]
    lines.append("| --- | --- | ---: | ---: |")
    for one in every:
        for figure in one.measured:
            limit = "" if figure.limit is None else f"{figure.limit:g} {figure.unit}".rstrip()
            lines.append(
                f"| {one.name} | {figure.what} | {f'{figure.value:g} {figure.unit}'.rstrip()} | {limit} |"
            )
    notes = [f"- {one.name}: {note}" for one in every for note in one.notes]
    return "\n".join([*lines, *([""] if notes else []), *notes]) + "\n"


def as_json(every: Sequence[Found]) -> str:
    """`measured` and `machine` differ from run to run, nothing else."""
    told = {
        "gate": "rg8",
        "verdict": verdict(every).value,
        "checks": [
            one.model_dump(mode="json", include={"name", "holds", "verdict", "reasons"}) for one in every
        ],
        "measured": {
            one.name: {
                "figures": [figure.model_dump(mode="json") for figure in one.measured],
                "notes": list(one.notes),
            }
            for one in every
        },
        "machine": machine(),
    }
    return json.dumps(told, indent=2, ensure_ascii=False) + "\n"


def machine() -> str:
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, {python}"


def write(every: Sequence[Found], folder: Path) -> tuple[Path, Path]:
    folder.mkdir(parents=True, exist_ok=True)
    text, data = folder / MARKDOWN, folder / JSON
    text.write_text(markdown(every), encoding="utf-8")
    data.write_text(as_json(every), encoding="utf-8")
    return text, data
