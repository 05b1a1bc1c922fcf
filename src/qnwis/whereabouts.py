"""Which run, cluster and step the present work belongs to: for what is logged and traced."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from contextvars import ContextVar

RUN, CLUSTER, STEP, REGION = "run_id", "cluster_id", "step", "region"

_here: ContextVar[Mapping[str, str]] = ContextVar("whereabouts", default={})  # noqa: B039  nobody changes it


def whereabouts() -> Mapping[str, str]:
    """Of the task, activity or workflow that asks; empty where nobody said any."""
    return _here.get()


@contextlib.contextmanager
def standing_at(**more: str | None) -> Iterator[None]:
    """For what is done inside, and for tasks that are made there; None leaves out what was said outside."""
    token = _here.set({name: at for name, at in {**_here.get(), **more}.items() if at is not None})
    try:
        yield
    finally:
        # A workflow that leaves a worker's memory is closed elsewhere, where nothing is to be taken back.
        with contextlib.suppress(ValueError):
            _here.reset(token)
