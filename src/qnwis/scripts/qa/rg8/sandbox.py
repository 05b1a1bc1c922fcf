"""Where recorded runs are replayed: the SDK's sandbox, which refuses clocks, lots and the world outside.

Workers do without: to make one takes a quarter of a second of CPU time for each run.
"""

from __future__ import annotations

import dataclasses

from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions

from workers.unversioned import Unversioned

PASSED_THROUGH = (
    "qnwis",
    "activities",
    "pydantic",
    "pydantic_core",
    "yaml",
    "httpx",
    "aiohttp",
    "dns",
    "cryptography",
    "opentelemetry",
)
"""Loaded once; the workflows' own modules are loaded anew for each run, under the sandbox's rules."""


def sandbox() -> SandboxedWorkflowRunner:
    restrictions = SandboxRestrictions.default
    passed = restrictions.passthrough_modules | set(PASSED_THROUGH)
    return SandboxedWorkflowRunner(
        runner_class=Unversioned,
        restrictions=dataclasses.replace(restrictions, passthrough_modules=passed),
    )
