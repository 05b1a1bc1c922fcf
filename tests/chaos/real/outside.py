"""The outside of a play: one enclosure for each story, and the judgement of what came out of it."""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from qnwis.lab.enclosure import check_possible, run_enclosed
from qnwis.lab.errors import LabError
from qnwis.lab.history import read_history
from qnwis.lab.layout import default_directory
from qnwis.lab.processes import last_lines
from qnwis.lab.temporal_server import ADDRESS_VARIABLE, CLI_VARIABLE, obtain_cli
from tests.chaos.facts import Facts
from tests.chaos.report import Result, judge
from tests.chaos.story import Story, story_text

CACHE = default_directory().with_name(default_directory().name + "-cache")
STORY, HISTORY, FACTS, LOG, LAB = "story.yaml", "history.jsonl", "facts.json", "play.log", "lab"


def play_stories(
    stories: Mapping[str, Story], *, agent_module: str = "qnwis.agent", keep: bool = False
) -> Iterator[Result]:
    """Play each story on real processes, by its slug.

    What was played stays on disk where a result has violations, or with `keep`.

    Raises LabError when a lab cannot be enclosed here, or a story cannot be played to its end.
    """
    check_possible()
    # Inside there is no network to fetch it by, and no server of somebody else's to be reached.
    cli = asyncio.run(obtain_cli(CACHE, lambda line: None))
    with _folder() as folder:
        for slug, story in stories.items():
            result = _played(
                folder, slug, story, agent_module, {CLI_VARIABLE: str(cli), ADDRESS_VARIABLE: ""}
            )
            if keep or not result.ok:
                print(f"  {slug}: {folder / slug} has its history and its lab's files", file=sys.stderr)
            else:
                shutil.rmtree(folder / slug)
            yield result


def _played(folder: Path, slug: str, story: Story, agent_module: str, env: Mapping[str, str]) -> Result:
    """One story. Its lab is made where the last one's was, beside the programs that both use."""
    out = folder / slug
    out.mkdir()
    (out / STORY).write_text(story_text(story))
    command = [sys.executable, "-m", "tests.chaos.real", "--out", str(out), "--lab", str(folder / LAB)]
    status = run_enclosed([*command, "--agent", agent_module], env=env, log=out / LOG)
    if (folder / LAB).exists():
        (folder / LAB).rename(out / LAB)
    if status != 0:
        raise LabError(f"{slug}: exit status {status}; {out / LOG} ends:\n{last_lines(out / LOG, 20)}")
    history = read_history(out / HISTORY)
    facts = Facts.model_validate_json((out / FACTS).read_text())
    return judge(slug, story, history, facts)


@contextmanager
def _folder() -> Iterator[Path]:
    """A folder for the plays, removed unless something worth a look is left in it."""
    folder = Path(tempfile.mkdtemp(prefix="qnwis-chaos-", dir="/var/tmp"))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        left = [path for path in folder.iterdir() if path.name != f"{LAB}-cache"]
        if not left:
            shutil.rmtree(folder)
