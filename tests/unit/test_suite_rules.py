"""The suite's own rules (tests/conftest.py), each on a small suite in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

RULES = Path(__file__).parents[1] / "conftest.py"
SETTINGS = """
[pytest]
asyncio_mode = auto
asyncio_default_fixture_loop_scope = session
asyncio_default_test_loop_scope = session
timeout = 5
"""


def outcome(folder: Path, tests: str, **environment: str) -> subprocess.CompletedProcess[str]:
    (folder / "conftest.py").write_text(RULES.read_text())
    (folder / "pytest.ini").write_text(SETTINGS)
    (folder / "test_it.py").write_text(tests)
    clean = {name: value for name, value in os.environ.items() if name != "QNWIS_NO_SKIPS"}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-rA", "-p", "no:cacheprovider", "-p", "asyncio", "-p", "timeout"],
        cwd=folder,
        # The other plugins, which no rule is about, take longer to load than the tests to run.
        env={**clean, **environment, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
    )


SKIPPED = """
import pytest

def test_skips(): pytest.skip("no java")
@pytest.mark.skipif(True, reason="no mvn")
def test_marked(): pass
@pytest.mark.xfail(reason="known")
def test_known(): raise ValueError
def test_passes(): pass
"""


def test_a_skip_is_a_skip(tmp_path: Path) -> None:
    ran = outcome(tmp_path, SKIPPED)
    assert ran.returncode == 0, ran.stdout
    assert "1 passed, 2 skipped, 1 xfailed" in ran.stdout


def test_without_skips_a_skipped_test_fails_and_is_named_with_its_reason(tmp_path: Path) -> None:
    ran = outcome(tmp_path, SKIPPED, QNWIS_NO_SKIPS="1")
    assert ran.returncode == 1
    assert "test_it.py::test_skips: skipped although QNWIS_NO_SKIPS=1: Skipped: no java" in ran.stdout
    assert "test_it.py::test_marked: skipped although QNWIS_NO_SKIPS=1: Skipped: no mvn" in ran.stdout
    assert "1 passed, 1 xfailed" in ran.stdout and " skipped," not in ran.stdout


def test_without_skips_a_skipped_module_fails_too(tmp_path: Path) -> None:
    module = "import pytest\npytest.skip('no lab', allow_module_level=True)\n"
    ran = outcome(tmp_path, module, QNWIS_NO_SKIPS="1")
    assert ran.returncode != 0
    assert "test_it.py: skipped although QNWIS_NO_SKIPS=1: Skipped: no lab" in ran.stdout


HANGS = """
import asyncio, pytest

@pytest.fixture
async def part():
    yield
    print("part was stopped")

@pytest.mark.timeout(5)
async def test_hangs(part): await asyncio.Event().wait()
async def test_times_out_by_itself():
    async with asyncio.timeout(0.01): await asyncio.Event().wait()
async def test_comes_after(part): pass
"""


def test_a_hung_test_fails_where_it_hung_and_its_fixtures_are_torn_down(tmp_path: Path) -> None:
    ran = outcome(tmp_path, HANGS)
    assert ran.returncode == 1 and "2 failed, 1 passed" in ran.stdout
    assert "the test was not done within 4 s; it hung here" in ran.stdout
    assert "async def test_hangs(part): await asyncio.Event().wait()" in ran.stdout
    assert ran.stdout.count("part was stopped") == 2
    assert "FAILED test_it.py::test_times_out_by_itself - TimeoutError\n" in ran.stdout
