"""The outside of a play: one enclosure for each story, and the judgement of what came out of it."""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue

from qnwis.lab.enclosure import check_possible, run_enclosed
from qnwis.lab.errors import LabError
from qnwis.lab.history import read_history
from qnwis.lab.layout import default_directory
from qnwis.lab.processes import last_lines
from qnwis.lab.temporal_server import ADDRESS_VARIABLE, CLI_VARIABLE, obtain_cli
from tests.chaos.checker import Violation
from tests.chaos.facts import Facts
from tests.chaos.report import Result, judge
from tests.chaos.story import Story, story_text

CACHE = default_directory().with_name(default_directory().name + "-cache")
BESIDES_TAKES_S = 180.0
"""At most, to start the lab, to wait for a run that is open at the end, and to read what happened."""
STORY, HISTORY, FACTS, LOG, LAB = "story.yaml", "history.jsonl", "facts.json", "play.log", "lab"


def play_stories(
    stories: Mapping[str, Story],
    *,
    agent_module: str = "qnwis.agent",
    keep: bool = True,
    at_once: int = 1,
) -> Iterator[Result]:
    """Play each story on real processes, by its slug; several `at_once`, each in an enclosure of its own.

    What was played stays on disk where a result has violations, if it is to `keep`. A story that cannot be
    played to its end is a violation, and the others go on. Raises LabError when nothing can be played here.
    """
    check_possible()
    # Inside there is no network to fetch it by, and no server of somebody else's to be reached.
    cli = asyncio.run(obtain_cli(CACHE, lambda line: None))
    env = {CLI_VARIABLE: str(cli), ADDRESS_VARIABLE: ""}
    with _folder() as folder, ThreadPoolExecutor(at_once) as threads:
        labs = SimpleQueue[Path]()
        for number in range(at_once):
            labs.put(folder / f"{LAB}-{number}")

        def play(slug: str, story: Story) -> Result:
            lab = labs.get()
            try:
                return _played(folder / slug, lab, story, agent_module, env)
            except LabError as error:
                return _not_played(slug, error)
            finally:
                labs.put(lab)

        for playing in as_completed([threads.submit(play, *named) for named in stories.items()]):
            result = playing.result()
            if keep and not result.ok:
                place = folder / result.name
                print(f"  {result.name}: {place} has its history and its lab's files", file=sys.stderr)
            else:
                shutil.rmtree(folder / result.name)
            yield result


def _played(out: Path, lab: Path, story: Story, agent_module: str, env: Mapping[str, str]) -> Result:
    """One story. Its lab is made where an earlier one's was, beside the programs that both use."""
    out.mkdir()
    (out / STORY).write_text(story_text(story))
    command = [sys.executable, "-m", "tests.chaos.real", "--out", str(out), "--lab", str(lab)]
    try:
        status = run_enclosed(
            [*command, "--agent", agent_module],
            env=env,
            log=out / LOG,
            timeout_s=story.ends_at_s + BESIDES_TAKES_S,
        )
    finally:
        if lab.exists():
            lab.rename(out / LAB)
    if status != 0:
        raise LabError(f"exit status {status}; {out / LOG} ends:\n{last_lines(out / LOG, 20)}")
    history = read_history(out / HISTORY)
    facts = Facts.model_validate_json((out / FACTS).read_text())
    return judge(out.name, story, history, facts)


def _not_played(slug: str, error: LabError) -> Result:
    return Result(
        name=slug,
        outcome="not played",
        write_gap_s=0.0,
        loss="?",
        primaries_at_most=0,
        violations=(Violation("played", str(error)),),
    )


@contextmanager
def _folder() -> Iterator[Path]:
    """A folder for the plays, removed unless something worth a look is left in it."""
    folder = Path(tempfile.mkdtemp(prefix="qnwis-chaos-", dir="/var/tmp"))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        left = [path for path in folder.iterdir() if not path.name.endswith("-cache")]
        if not left:
            shutil.rmtree(folder)
