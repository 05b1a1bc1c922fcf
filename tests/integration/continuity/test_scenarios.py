"""Stories on real processes in a network of their own; the others are played by `make chaos`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from qnwis.lab.enclosure import check_possible, run_enclosed
from qnwis.lab.errors import LabError
from tests.chaos.real import play_stories
from tests.chaos.report import Result, row
from tests.chaos.story import SCENARIOS, Story, load_story

CHOSEN = (
    "primary-cut-from-all",
    "primary-cannot-hear",
    "clock-jumps-and-primary-dies",
    "wal-disk-full",
)
"""Some two minutes: a fault of each kind, and the partitions that matter most. An old primary that returns
and rejoins is in `test_failover_on_real_parts`."""
WITHOUT_A_GUARD = Story.model_validate(
    {
        "name": "A frozen agent, and nobody who ends its database",
        "operations": [
            {"at_s": 2, "freeze": {"party": "node-1", "part": "agent"}},
            {"at_s": 2, "cut": {"between": ["node-1", ["node-2", "node-3", "vantage-2", "vantage-3"]]}},
            {"at_s": 2, "cut": {"between": ["node-1", "control"]}},
        ],
        "ends_at_s": 11,
    }
)


@pytest.fixture(autouse=True)
def possible() -> None:
    try:
        check_possible()
    except LabError as error:
        pytest.skip(str(error))


def played(story: Story, *, agent_module: str = "qnwis.agent", keep: bool = True) -> Result:
    (result,) = play_stories({"story": story}, agent_module=agent_module, keep=keep)
    return result


@pytest.mark.parametrize("slug", CHOSEN)
def test_the_story_goes_as_it_says(slug: str) -> None:
    result = played(load_story(SCENARIOS / f"{slug}.yaml"))
    assert result.ok, row(result)


def test_without_a_guard_the_checker_finds_two_primaries() -> None:
    """So that a story without a violation means something; with guards its like, agent-frozen, has none."""
    found = played(WITHOUT_A_GUARD, agent_module="tests.chaos.real.unguarded", keep=False)
    assert "one_primary" in {violation.invariant for violation in found.violations}, row(found)
    assert found.primaries_at_most == 2


def test_links_are_cut_refused_and_slowed_as_told() -> None:
    inside = Path(__file__).parents[2] / "chaos" / "real" / "inside_network.py"
    assert run_enclosed([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(inside)]) == 0


def test_an_enclosure_that_takes_too_long_is_ended() -> None:
    with pytest.raises(LabError, match=r"sleep 60\.78: not done within 0\.5 s"):
        run_enclosed(["sleep", "60.78"], timeout_s=0.5)
    assert "60.78" not in subprocess.run(["ps", "axo", "args"], capture_output=True, text=True).stdout


def test_a_story_that_cannot_be_played_is_a_violation() -> None:
    """And does not keep the others from being played."""
    result = played(WITHOUT_A_GUARD, agent_module="tests.chaos.real.nothing", keep=False)
    assert [violation.invariant for violation in result.violations] == ["played"]
    assert "No module named tests.chaos.real.nothing" in row(result)


def test_nothing_of_an_enclosure_is_left(tmp_path: Path) -> None:
    """Neither interfaces nor names, mounts nor processes, however the command in it ended."""
    script = tmp_path / "script.py"
    script.write_text(
        "import subprocess, os, signal\n"
        "from qnwis.lab.network import Network\n"
        "Network.build({'left-over': '10.77.0.10'})\n"
        "subprocess.Popen(['sleep', '60.77'], start_new_session=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    before = _the_machine()
    assert run_enclosed([sys.executable, str(script)]) != 0
    assert _the_machine() == before
    assert "60.77" not in subprocess.run(["ps", "axo", "args"], capture_output=True, text=True).stdout


def _the_machine() -> object:
    links = subprocess.run(["ip", "-brief", "link"], capture_output=True, text=True).stdout
    names = sorted(os.listdir("/run/netns")) if os.path.isdir("/run/netns") else []  # noqa: PTH112, PTH208
    return [line.split()[0] for line in links.splitlines()], names, Path("/proc/mounts").read_text()
