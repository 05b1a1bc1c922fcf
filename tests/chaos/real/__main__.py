"""Inside an enclosure: `python -m tests.chaos.real --out OUT --lab LAB` plays OUT/story.yaml."""

from __future__ import annotations

import argparse
import asyncio
import time
from pathlib import Path

from qnwis.lab.history import write_history
from tests.chaos.story import load_story

from .outside import FACTS, HISTORY, STORY
from .player import play


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.real", description="Play one story.")
    parser.add_argument("--out", type=Path, required=True, help="has story.yaml; takes history and facts")
    parser.add_argument("--lab", type=Path, required=True, help="where the lab is made")
    parser.add_argument("--agent", default="qnwis.agent", help="module that runs as each node's agent")
    options = parser.parse_args()
    story = load_story(options.out / STORY)
    began_s = time.monotonic()

    def say(line: str) -> None:
        print(f"{time.monotonic() - began_s:6.2f} s  {line}", flush=True)

    played = asyncio.run(play(story, options.lab, say, agent_module=options.agent))
    write_history(options.out / HISTORY, played.history)
    (options.out / FACTS).write_text(played.facts.model_dump_json(indent=2))


if __name__ == "__main__":
    main()
