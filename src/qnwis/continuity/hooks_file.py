"""What an operator declares in `hooks.yaml`: hooks around steps, and probes of the steady state."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, field_validator, model_validator

from .hooks import DueHook, OnFailure, When
from .http_headers import IDEMPOTENCY_HEADER, SECRET_HEADERS
from .model import Identifier, Model
from .run import OF_A_CLUSTER, RunKind
from .steady_state import DueProbe

ENV = re.compile(r"env:([A-Za-z_][A-Za-z0-9_]*)")
"""`env:NAME`: the value of that environment variable of the worker."""
LONGEST_S = 600.0
"""Whoever has to be waited for longer is a manual step."""


def named_variable(text: str) -> str | None:
    """The environment variable that a text names as `env:NAME`."""
    found = ENV.fullmatch(text)
    return None if found is None else found[1]


def _of_a_cluster(kind: RunKind) -> RunKind:
    if kind not in OF_A_CLUSTER:
        raise ValueError(
            f"expected one of {', '.join(OF_A_CLUSTER)}: a region's evacuation calls none itself"
        )
    return kind


ClusterRunKind = Annotated[RunKind, AfterValidator(_of_a_cluster)]


class HttpCall(Model):
    """A request. What is secret stands in the worker's environment, and here as `env:NAME`."""

    url: str
    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"] | None = None
    """By default POST for a hook and GET for a probe."""
    headers: Mapping[str, str] = {}
    expect_status: int | None = Field(default=None, ge=100, le=599)
    """None: any of 200 to 299."""

    @field_validator("url")
    @classmethod
    def _is_a_url(cls, url: str) -> str:
        if named_variable(url) is not None:
            return url
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("expected http://…, https://… or env:NAME")
        if parts.username is not None or parts.password is not None:
            raise ValueError("expected a URL without user and password; use a header with env:NAME")
        return url

    @field_validator("headers")
    @classmethod
    def _hold_no_secret(cls, headers: Mapping[str, str]) -> Mapping[str, str]:
        for name, value in headers.items():
            if name.lower() == IDEMPOTENCY_HEADER.lower():
                raise ValueError(f"expected no {name}; every call has one of its own")
            if not re.fullmatch(r"[A-Za-z0-9-]+", name):
                raise ValueError("expected names of letters, digits and hyphens")
            if SECRET_HEADERS.search(name) and named_variable(value) is None:
                raise ValueError(f"expected env:NAME for {name}, so that no secret stands in this file")
        return headers


class Call(Model):
    """What hooks and probes have in common."""

    name: Identifier
    runbooks: tuple[ClusterRunKind, ...] = ()
    """Empty: every runbook."""
    clusters: tuple[Identifier, ...] = ()
    """Empty: every cluster."""
    http: HttpCall | None = None
    command: tuple[str, ...] | None = Field(default=None, min_length=1)
    """A program and its arguments, run on the worker without a shell."""
    timeout_s: float = Field(default=10, gt=0, le=LONGEST_S)

    @model_validator(mode="after")
    def _has_one_way(self) -> Self:
        if (self.http is None) == (self.command is None):
            raise ValueError("expected exactly one of http and command")
        return self

    def concerns(self, cluster_id: str, kind: RunKind) -> bool:
        return (not self.runbooks or kind in self.runbooks) and (
            not self.clusters or cluster_id in self.clusters
        )


class Hook(Call):
    """Called once at its place; in a runbook that has no such step, never."""

    before: str | None = None
    """The step before which it is called."""
    after: str | None = None
    """The step after which it is called, however that ended."""
    on_failure: OnFailure = OnFailure.GO_ON

    @model_validator(mode="after")
    def _has_one_place(self) -> Self:
        if (self.before is None) == (self.after is None):
            raise ValueError("expected exactly one of before and after")
        return self

    @property
    def due(self) -> DueHook:
        step = self.before if self.before is not None else self.after
        assert step is not None, "a hook has one place"
        return DueHook(
            name=self.name,
            when=When.BEFORE if self.before is not None else When.AFTER,
            step=step,
            timeout_s=self.timeout_s,
            on_failure=self.on_failure,
        )


class Probe(Call):
    """Asked again and again; a good answer is the expected status within the time, or exit status 0."""

    runbooks: tuple[ClusterRunKind, ...] = (RunKind.PLANNED_MAINTENANCE,)
    """By default not failovers: a service whose primary is gone is not in its steady state."""
    timeout_s: float = Field(default=2, gt=0, le=60)
    within_ms: float | None = Field(default=None, gt=0)
    """How long a good answer may take; by default as long as `timeout_s` allows."""
    every_s: float = Field(default=1, gt=0, le=60)
    failures: int = Field(default=3, ge=1, le=100)

    @property
    def due(self) -> DueProbe:
        return DueProbe(
            name=self.name, timeout_s=self.timeout_s, every_s=self.every_s, failures=self.failures
        )


class HooksFile(Model):
    """`hooks.yaml`."""

    hooks: tuple[Hook, ...] = ()
    steady_state: tuple[Probe, ...] = ()

    @field_validator("hooks", "steady_state")
    @classmethod
    def _names_differ(cls, calls: tuple[Call, ...]) -> tuple[Call, ...]:
        if len({call.name for call in calls}) < len(calls):
            raise ValueError("expected a name of its own for each")
        return calls

    def hook(self, name: str) -> Hook | None:
        return next((hook for hook in self.hooks if hook.name == name), None)

    def probe(self, name: str) -> Probe | None:
        return next((probe for probe in self.steady_state if probe.name == name), None)


class Declared(Model):
    """What of `hooks.yaml` concerns one run: as much as a run knows of it."""

    hooks: tuple[DueHook, ...] = ()
    steady_state: tuple[DueProbe, ...] = ()
    problem: str | None = None
    """Why the file cannot be used; then there are none."""

    @classmethod
    def of(cls, file: HooksFile, cluster_id: str, kind: RunKind) -> Declared:
        return cls(
            hooks=tuple(hook.due for hook in file.hooks if hook.concerns(cluster_id, kind)),
            steady_state=tuple(probe.due for probe in file.steady_state if probe.concerns(cluster_id, kind)),
        )

    def hooks_at(self, when: When, step: str) -> tuple[DueHook, ...]:
        """In the order of the file."""
        return tuple(hook for hook in self.hooks if (hook.when, hook.step) == (when, step))
