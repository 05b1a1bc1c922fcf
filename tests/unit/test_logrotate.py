"""The shipped logrotate file, as logrotate itself takes it."""

from __future__ import annotations

import getpass
import grp
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

DEPLOY = Path(__file__).parents[2] / "deploy"
FILE = DEPLOY / "logrotate" / "qnwis-continuity-agent"
UNIT = DEPLOY / "systemd" / "qnwis-continuity-agent.service"
HERE = shutil.which("logrotate") or shutil.which("logrotate", path="/usr/sbin")


@pytest.mark.skipif(HERE is None, reason="logrotate is not installed: make install-system")
def test_the_agents_logs_are_rotated_while_they_are_written_to(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir(mode=0o755)
    (folder,) = re.findall("^StateDirectory=(.*)$", UNIT.read_text(), flags=re.MULTILINE)
    text = FILE.read_text().replace(f"/var/lib/{folder}/", f"{state}/")
    text = text.replace("su postgres postgres", f"su {getpass.getuser()} {grp.getgrgid(os.getgid()).gr_name}")
    config = tmp_path / "logrotate.conf"
    config.write_text(text)
    config.chmod(0o644)
    for name in ("postgres.log", "guard.log"):
        with (state / name).open("ab") as log:  # as the agent opens them
            log.write(b"before\n")
            log.flush()
            command = [str(HERE), "--force", "--state", str(tmp_path / "rotated"), str(config)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            log.write(b"after\n")
        assert (state / name).read_bytes() == b"after\n"
        assert (state / f"{name}.1.gz").exists()
