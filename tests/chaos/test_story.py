"""Stories: what their files may say, and how each mistake is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from qnwis.config.problem import ConfigError

from .parties import expand
from .story import Cut, Part, all_stories, load_story, story_text

STORY = """
name: The old primary comes back
re_enacts: repmgr#617
cluster:
  data_nodes: 3
  witnesses: 1
  policy: {strategy: manual, cooldown_s: 5}
operations:
  - {at_s: 1, cut: {from: node-1, to: [node-2, control], how: refuse}}
  - {at_s: 2, kill: node-1}
  - {at_s: 3, freeze: {party: node-2, part: postmaster}}
  - {at_s: 4, pause: {by: anna, reason: maintenance}}
  - {at_s: 5, heal: all}
  - {at_s: 8, rejoin: node-1}
must_hold: {run: [completed, incomplete], new_primary: node-2}
ends_at_s: 20
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "story.yaml"
    path.write_text(text)
    return path


def problems(folder: Path, text: str) -> list[str]:
    with pytest.raises(ConfigError) as error:
        load_story(written(folder, text))
    return [str(problem).removeprefix(str(folder / "story.yaml:")) for problem in error.value.problems]


def test_a_story_reads_as_it_is_written(tmp_path: Path) -> None:
    story = load_story(written(tmp_path, STORY))
    cut, kill, freeze, pause, heal, rejoin = story.operations
    assert [operation.verb for operation in story.operations] == [
        "cut", "kill", "freeze", "pause", "heal", "rejoin",
    ]  # fmt: skip
    assert kill.what.party == "node-1" and kill.what.part is Part.ALL
    assert freeze.what.part is Part.POSTMASTER
    assert pause.what.by == "anna" and rejoin.what == "node-1"
    assert isinstance(cut.what, Cut) and cut.what.how == "refuse"
    assert cut.what.directed(story.cluster.nodes) == (
        ("node-1", "node-2"), ("node-1", "temporal"), ("node-1", "worker"), ("node-1", "vantage-1"),
    )  # fmt: skip
    assert ("witness-1", "dns") in heal.what.directed(story.cluster.nodes)
    assert story.must_hold.run is not None and len(story.must_hold.run) == 2


def test_a_story_written_by_the_machine_reads_the_same(tmp_path: Path) -> None:
    story = load_story(written(tmp_path, STORY))
    assert load_story(written(tmp_path, story_text(story))) == story


@pytest.mark.parametrize(
    ("wrong", "right", "problem"),
    [
        ("kill: node-1}", "kill: node-0}", "operations[1].kill: found node-0; expected text that matches"),
        ("kill: node-1}", "kil: node-1}", "operations[1].kil: found node-1; expected the field `kill`"),
        ("part: postmaster", "part: head", "operations[2].freeze.part: found head; expected '"),
        ("from: node-1,", "frm: node-1,", "operations[0].cut.frm: found node-1; expected the field `from`"),
        ("to: [node-2, control]", "to: [node-2, moon]", "operations[0].cut.to[1]: found moon; expected text"),
        (
            "{at_s: 2, kill: node-1}",
            "{at_s: 2}",
            "operations[1]: found a mapping; expected `at_s` and one of",
        ),
        ("ends_at_s: 20", "ends_at_s: 8", "found a mapping; expected ends_at_s above 8"),
        ("at_s: 5,", "at_s: 9,", "found a mapping; expected operations in the order of time"),
        ("at_s: 4,", "at_s: 4, once_rejoined: node-1,", "found a mapping; expected once_rejoined to name"),
        ("data_nodes: 3", "data_nodes: 1", "found a mapping; expected only nodes of this story's cluster"),
        ("strategy: manual", "strategy: bold", "cluster.policy.strategy: found bold; expected 'automatic'"),
        ("run: [completed, incomplete]", "run: done", "must_hold.run: found done; expected 'completed'"),
        ("ends_at_s: 20", "", "ends_at_s: found nothing; expected a value; the field is required"),
    ],
)
def test_each_mistake_is_named_with_its_place(tmp_path: Path, wrong: str, right: str, problem: str) -> None:
    assert wrong in STORY
    found = problems(tmp_path, STORY.replace(wrong, right))
    assert any(problem in line for line in found), found


def test_words_for_several_parties_mean_each_of_them() -> None:
    nodes = ("node-1", "node-2", "node-3", "witness-1")
    assert expand(["region-1"], nodes) == ("node-1", "node-2")
    assert expand(["control", "region-2"], nodes) == ("temporal", "worker", "vantage-1", "node-3")
    assert set(expand(["all"], nodes)) > set(nodes) | {"dns", "clients", "temporal"}


def test_every_scenario_in_the_folder_can_be_read() -> None:
    assert all_stories()
