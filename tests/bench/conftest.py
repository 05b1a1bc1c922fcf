"""Speed is measured by `make bench` (`--benchmark-only`) and never in passing: no other run collects this."""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--benchmark-only"):
        return
    benches = [item for item in items if item.get_closest_marker("bench") is not None]
    if benches:
        config.hook.pytest_deselected(items=benches)
        items[:] = [item for item in items if item not in benches]
