"""The units of systemd that are shipped: systemd reads them, and what they must not lose is in them."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from qnwis.agent import postgres
from qnwis.agent.__main__ import EXIT_CONFIG
from qnwis.agent.priority import NICENESS

UNITS = sorted((Path(__file__).parents[2] / "deploy" / "systemd").glob("*.service"))
PROGRAM = "/opt/qnwis-continuity/bin/qnwis-continuity"
MOST_EXPOSED = 30
"""Of 100, by `systemd-analyze security`: 0 to 30 counts as OK there."""
HERE = shutil.which("systemd-analyze")


@pytest.mark.skipif(HERE is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_the_shipped_units_are_sound(unit: Path, tmp_path: Path) -> None:
    text = unit.read_text()
    assert PROGRAM in text
    installed = tmp_path / unit.name
    installed.write_text(text.replace(PROGRAM, "/bin/true"))
    for check in (("verify", "--man=no"), ("security", "--offline=true", f"--threshold={MOST_EXPOSED}")):
        done = subprocess.run(
            [str(HERE), "--no-pager", *check, installed], capture_output=True, text=True, check=False
        )
        # What systemd does not know it only warns of, on standard error.
        said = [line for line in done.stderr.splitlines() if unit.name in line]
        assert done.returncode == 0 and not said, done.stdout[-2000:] + done.stderr


def test_the_api_may_write_to_the_registry_by_one_line_alone() -> None:
    (text,) = (unit.read_text() for unit in UNITS if unit.stem.endswith("-api"))
    assert "503, `not_usable`" in text and not re.search("^ReadWritePaths=", text, flags=re.MULTILINE)
    (registry,) = re.findall("^Environment=QNWIS_CONFIG_DIR=(.*)$", text, flags=re.MULTILINE)
    assert f"\n#ReadWritePaths={registry}/clusters\n" in text


def test_systemd_ends_nothing_that_an_agent_or_its_guards_would_not_end() -> None:
    (text,) = (unit.read_text() for unit in UNITS if unit.stem.endswith("-agent"))
    file = configparser.ConfigParser(interpolation=None, strict=False)
    file.optionxform = str  # type: ignore[assignment,method-assign]
    file.read_string(text)
    service = file["Service"]
    assert (service["KillMode"], service["OOMPolicy"]) == ("process", "continue")
    assert int(service["RestartPreventExitStatus"]) == EXIT_CONFIG
    assert int(service["TimeoutStopSec"]) > postgres.FAST_STOP_S + postgres.IMMEDIATE_STOP_S
    assert int(service["LimitNICE"]) <= NICENESS and int(service["LimitRTPRIO"]) >= 1
    assert not re.search("RestrictRealtime=yes|MemoryDenyWriteExecute=yes", text)
