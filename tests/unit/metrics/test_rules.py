"""Prometheus itself on the rules in `prometheus/`."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[3] / "prometheus"

pytestmark = pytest.mark.skipif(
    shutil.which("promtool") is None,
    reason="promtool is not installed (Debian: prometheus); Prometheus judges its rules itself",
)


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["promtool", *arguments], cwd=FOLDER, capture_output=True, text=True)


@pytest.mark.parametrize("played", ["continuity_tests.yml", "continuity_days_tests.yml"])
def test_rules_fire_when_they_should_and_not_before(played: str) -> None:
    ran = promtool("test", "rules", played)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_the_configuration_to_copy_is_one() -> None:
    ran = promtool("check", "config", "prometheus.example.yml")
    assert ran.returncode == 0, ran.stdout + ran.stderr
