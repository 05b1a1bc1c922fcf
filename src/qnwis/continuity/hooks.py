"""Hooks: what an operator's own systems are told or asked before and after the steps of a run.

A run knows a hook by name, place, time and what its failure means. What it calls (an address, a program) is
read by the worker from its own `hooks.yaml` at the call: neither a history nor somebody who can write to
Temporal decides what a worker runs.
"""

from __future__ import annotations

from enum import StrEnum

from .model import Identifier, Model
from .refusal import Refusal


class When(StrEnum):
    BEFORE = "before"
    AFTER = "after"


class OnFailure(StrEnum):
    STOP = "stop"  # before the point of no return the run stops and is undone; after it, as `go_on`
    GO_ON = "go_on"  # noted


class DueHook(Model):
    """A hook as a run knows it."""

    name: Identifier
    when: When
    step: str
    timeout_s: float
    on_failure: OnFailure

    @property
    def place(self) -> str:
        return f"{self.when} {self.step}"


class HookContext(Model):
    """What a hook is told: the JSON that it gets, and as text the environment of a command."""

    cluster_id: str
    run_id: str
    """Names the run, whatever executions it took."""
    runbook: str
    hook: str
    when: When
    step: str
    step_status: str = ""
    """How the step ended; empty before it."""
    outcome: str = ""
    """How the run ended; empty while it goes on."""
    initiated_by: str
    reason: str
    plan_digest: str = ""
    old_primary: str = ""
    target: str = ""
    """The node that is to be, or has become, the primary. Empty before there is a plan, as its digest is."""

    @property
    def idempotency_key(self) -> str:
        """The same for every call of this hook at this place of this run."""
        return f"{self.run_id}/{self.when}-{self.step}/{self.hook}"

    def told(self) -> dict[str, str]:
        """As JSON has it."""
        return {**self.model_dump(mode="json"), "idempotency_key": self.idempotency_key}

    def environment(self) -> dict[str, str]:
        """As a command has it: QNWIS_CLUSTER_ID and so on. An environment cannot hold a NUL."""
        return {f"QNWIS_{name.upper()}": text.replace("\0", "") for name, text in self.told().items()}


class HookResult(Model):
    """What came of one hook; kept in the run's record."""

    hook: Identifier
    when: When
    step: str
    ok: bool
    detail: str
    """What it answered, or why it failed; bounded, without secrets."""
    duration_ms: float | None = None
    """None where no worker answered."""
    attempts: int = 1
    """Above one where a worker died during a call: then the hook was called so many times, with one key."""

    def __str__(self) -> str:
        again = f", attempt {self.attempts}" if self.attempts > 1 else ""
        said = "done" if self.ok else "failed"
        return f"hook {self.hook} {self.when} {self.step} {said}{again}: {self.detail}"


def stop_reason(hook: DueHook, result: HookResult, *, past_return: bool) -> str | None:
    """Why the run stops over this; None when it goes on. Past the point of no return nothing is undone, so
    stopping there would leave the service half moved."""
    if result.ok or past_return or hook.on_failure is OnFailure.GO_ON:
        return None
    return str(result)


def unreadable_refusal(problem: str | None, *, automatic: bool, begun: bool) -> Refusal | None:
    """Whether a run is refused because `hooks.yaml` cannot be used; else it goes on without any hook.

    A person can repair the file and start again. A failover that the guardian starts is for a service that
    is down, and a run that has begun must be brought to its end: neither waits for a file.
    """
    if problem is None or automatic or begun:
        return None
    return Refusal(
        rule="hooks_unreadable",
        message=f"hooks.yaml cannot be used: {problem}",
        values={"problem": problem},
        remedy="Correct it (`qnwis-continuity validate --hooks hooks.yaml`), and start the run again.",
    )
