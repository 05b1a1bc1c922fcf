"""A real Prometheus with the repository's rules, which scrapes what a test tells it to."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from qnwis.metrics.dashboard import PANELS
from tests.unit.metrics.addresses import free_address

EXAMPLE = Path(__file__).parents[3] / "prometheus" / "prometheus.example.yml"

needs_prometheus = pytest.mark.skipif(
    shutil.which("prometheus") is None, reason="prometheus is not installed (Debian: prometheus)"
)


def asked(expr: str) -> str:
    """A query of the dashboard as Grafana sends it."""
    return expr.replace("$cluster", ".*").replace("$__range", "10m")


class Prometheus:
    def __init__(self, address: str) -> None:
        self._url = f"http://{address}/api/v1/query?"

    def ask(self, expr: str) -> list[dict[str, Any]]:
        url = self._url + urllib.parse.urlencode({"query": expr})
        with urllib.request.urlopen(url, timeout=10) as answer:
            found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
        return found

    def value(self, expr: str) -> float | None:
        found = self.ask(expr)
        return float(found[0]["value"][1]) if found else None

    async def until(self, true: Callable[[], bool], what: object) -> None:
        try:
            async with asyncio.timeout(60):
                while not await asyncio.to_thread(self._true, true):
                    await asyncio.sleep(0.2)
        except TimeoutError:
            pytest.fail(f"{what}")

    async def until_the_dashboard_has_data(self, *, besides: str = "nothing") -> None:
        """Return once each query of each panel is answered by something, but for those of the metric
        `besides`, of which there is none to show."""
        empty: list[str] = []

        def all_answered() -> bool:
            empty[:] = [
                f"{panel.title}: {query.expr}"
                for panel in PANELS
                for query in panel.queries
                if besides not in query.expr and not self.ask(asked(query.expr))
            ]
            return not empty

        await self.until(all_answered, empty)

    @staticmethod
    def _true(true: Callable[[], bool]) -> bool:
        try:
            return true()
        except OSError:
            return False  # it has not begun to listen, or does not know the answer yet


@contextmanager
def prometheus(folder: Path, targets: list[str]) -> Iterator[Prometheus]:
    """The example's configuration with the repository's rules, in a hurry."""
    config = yaml.safe_load(EXAMPLE.read_text())
    config["global"] = {"scrape_interval": "500ms", "evaluation_interval": "500ms"}
    config["rule_files"] = [str(EXAMPLE.parent / name) for name in config["rule_files"]]
    config["scrape_configs"][0]["static_configs"][0]["targets"] = targets
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    address = free_address()
    command = ["prometheus", f"--config.file={folder / 'prometheus.yml'}", f"--web.listen-address={address}"]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, f"--storage.tsdb.path={folder / 'data'}"], stdout=log, stderr=subprocess.STDOUT
        )
        try:
            yield Prometheus(address)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)
