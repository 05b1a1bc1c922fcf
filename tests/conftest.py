"""Rules for the whole suite: no test hangs for ever, and in CI none is skipped unnoticed."""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
from collections.abc import Awaitable, Callable, Generator
from typing import Any, TypeVar

import pytest
from hypothesis import settings

# No test asserts a time: a busy machine is no failure.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)

NO_SKIPS = "QNWIS_NO_SKIPS"
PATIENCE = 0.8
"""Share of its timeout that an async test may use; the rest is for its fixtures to be torn down."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what has a make target of its own; and cancel an async test that hangs, as its own loop does.

    pytest-timeout interrupts the loop instead, which leaves the test's tasks in the session's loop; it
    remains as the last resort, for tests and fixtures that block.
    """
    for marker in ("matrix", "containers"):
        if marker not in config.option.markexpr:
            left_out = [item for item in items if item.get_closest_marker(marker) is not None]
            config.hook.pytest_deselected(items=left_out)
            items[:] = [item for item in items if item not in left_out]
    for item in items:
        if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.obj):
            item.obj = _within(_timeout_s(item) * PATIENCE or None, item.obj)


def _timeout_s(item: pytest.Function) -> float:
    """What pytest-timeout was told, seconds; 0 for none."""
    if (marker := item.get_closest_marker("timeout")) is not None:
        return float(marker.args[0])
    option = item.config.getoption("timeout")
    return float(option if option is not None else item.config.getini("timeout") or 0)


def _within(limit_s: float | None, test: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    @functools.wraps(test)
    async def bounded(*args: Any, **kwargs: Any) -> None:
        try:
            async with asyncio.timeout(limit_s) as deadline:
                await test(*args, **kwargs)
        except TimeoutError as error:
            if not deadline.expired():
                raise
            raise TimeoutError(f"the test was not done within {limit_s:g} s; it hung here") from error

    return bounded


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    return _refuse_skip(report)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    return _refuse_skip(report)


def _refuse_skip(report: Report) -> Report:
    """In CI everything that tests need is there: what is skipped all the same was not tested."""
    if os.environ.get(NO_SKIPS) == "1" and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid}: skipped although {NO_SKIPS}=1: {reason}"
    return report
