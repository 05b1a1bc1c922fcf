"""The operator's runbooks: one Markdown text each, which people read and the workflow announces."""

from __future__ import annotations

import re
from functools import cache

import yaml

from qnwis.config.shipped import shipped
from qnwis.continuity.model import Model
from qnwis.continuity.run import RunKind

NEVER_SKIPPED = frozenset({"approval", "execution", "verification", "audit"})
"""A runbook that allows these to be left out is refused: without them a run decides, acts or ends unseen."""


class RunbookStep(Model):
    """A step as the front matter names it and the text under its heading explains it."""

    name: str
    title: str
    expected_ms: int
    may_be_skipped: bool
    text: str


class FrontMatterStep(Model):
    name: str
    title: str
    expected_s: float
    may_be_skipped: bool = False
    """Whether a person may have it left out, with a reason."""


class ManualStep(Model):
    """What a person does by hand, and confirms, before a step begins."""

    name: str
    before: str
    """The step that waits for it."""
    text: str
    """What is to be done, for people."""


class FrontMatter(Model):
    """The YAML between the two `---` lines at the top of a runbook."""

    runbook: RunKind
    title: str
    objective: str
    approval_workflow: str | None = None
    steps: tuple[FrontMatterStep, ...]
    manual_steps: tuple[ManualStep, ...] = ()


class Runbook(Model):
    kind: RunKind
    title: str
    objective: str
    approval_workflow: str | None
    steps: tuple[RunbookStep, ...]
    manual_steps: tuple[ManualStep, ...] = ()
    text: str
    """The whole text below the front matter."""

    @property
    def may_be_skipped(self) -> tuple[str, ...]:
        """The names of the steps that a person may have left out."""
        return tuple(step.name for step in self.steps if step.may_be_skipped)

    def step(self, name: str) -> RunbookStep:
        """The step of that name. Raises KeyError for a name the runbook does not have."""
        for step in self.steps:
            if step.name == name:
                return step
        raise KeyError(name)


def parse_runbook(source: str) -> Runbook:
    """Read a runbook's Markdown. Raises ValueError when a step of the front matter has no section, or may be
    skipped and must not."""
    _, front, body = source.split("---\n", 2)
    meta = FrontMatter.model_validate(yaml.safe_load(front))
    sections = dict(re.findall(r"^## \d+\. (.+?)\n(.*?)(?=^## |\Z)", body, flags=re.MULTILINE | re.DOTALL))
    steps = []
    names = [step.name for step in meta.steps]
    for manual in meta.manual_steps:
        if manual.before not in names:
            raise ValueError(
                f"manual step {manual.name!r} is before {manual.before!r}; expected one of {names}"
            )
    for step in meta.steps:
        if step.title not in sections:
            raise ValueError(
                f"step {step.name!r} has no section '## n. {step.title}'; found {list(sections)}"
            )
        if step.may_be_skipped and step.name in NEVER_SKIPPED:
            raise ValueError(
                f"step {step.name!r} has may_be_skipped; expected none of {sorted(NEVER_SKIPPED)}"
            )
        steps.append(
            RunbookStep(
                name=step.name,
                title=step.title,
                expected_ms=round(step.expected_s * 1000),
                may_be_skipped=step.may_be_skipped,
                text=sections[step.title].strip(),
            )
        )
    return Runbook(
        kind=meta.runbook,
        title=meta.title,
        objective=meta.objective,
        approval_workflow=meta.approval_workflow,
        steps=tuple(steps),
        manual_steps=meta.manual_steps,
        text=body.strip(),
    )


@cache
def load_runbook(kind: RunKind) -> Runbook:
    """The shipped runbook of that kind."""
    return parse_runbook((shipped("runbooks") / f"{kind}.md").read_text(encoding="utf-8"))
