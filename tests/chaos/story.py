"""Stories: timed faults and what must hold, one YAML file each, in `tests/scenarios`.

The same file is played by the simulator and on real processes. `load_story` names file, line, field, value
and what was expected for every mistake in it.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from qnwis.config.load import validated
from qnwis.config.yaml_source import read_yaml
from qnwis.continuity.model import Model
from qnwis.continuity.policy import Strategy
from qnwis.continuity.regions import RegionRules
from qnwis.continuity.topology import ReplicationMode
from qnwis.lab.parts import Part as Part

from .parties import NodeName, Party, data_nodes, expand, witnesses

SCENARIOS = Path(__file__).parents[1] / "scenarios"


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Parties = Annotated[tuple[Party, ...], BeforeValidator(_as_list), Field(min_length=1)]


class Place(Model):
    """What is killed, frozen or brought back: a party, or a part of one. `node-1` is short for all of it."""

    party: Party
    part: Part = Part.ALL

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        return {"party": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _only_nodes_have_parts(self) -> Self:
        if self.part is not Part.ALL and not self.party.startswith(("node-", "witness-")):
            raise ValueError("expected a part only for a node")
        return self


class Link(Model):
    """Every connection between two sides, or those in one direction. `all` is short for every link."""

    model_config = ConfigDict(validate_by_alias=True, validate_by_name=True)

    between: tuple[Parties, Parties] | None = None
    from_: Parties | None = Field(default=None, alias="from")
    to: Parties | None = None

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        return {"between": ["all", "all"]} if value == "all" else value

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        one_way = self.from_ is not None and self.to is not None
        if (self.between is None) != one_way or (self.from_ is None) != (self.to is None):
            raise ValueError("expected `between: [A, B]`, or `from: A` with `to: B`")
        return self

    @property
    def sides(self) -> tuple[Parties, Parties]:
        if self.between is not None:
            return self.between
        assert self.from_ is not None and self.to is not None
        return self.from_, self.to

    def directed(self, nodes: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
        """The (from, to) pairs of single parties."""
        first, second = (expand(side, nodes) for side in self.sides)
        pairs = [(a, b) for a in first for b in second if a != b]
        if self.between is not None:
            pairs += [(b, a) for a, b in pairs]
        return tuple(dict.fromkeys(pairs))


class Cut(Link):
    """Packets vanish, or connections are refused."""

    how: Literal["drop", "refuse"] = "drop"


class Slow(Link):
    kbit_s: float = Field(default=200, gt=0)


class Disk(Model):
    party: Party
    disk: Literal["agent", "wal"]


class ClockJump(Model):
    party: Party
    by_s: float


class Word(Model):
    """Of a person to the guardian, or to the run that waits for people."""

    by: str = "operator"
    reason: str = "for the story"


class Execute(Word):
    """A person starts a failover."""

    even_if_healthy: bool = False


class Operation(Model):
    """One thing that happens: `at_s` and exactly one of the verbs."""

    at_s: float = Field(ge=0)
    """Since every part of the cluster runs and the clients write."""
    once_rejoined: NodeName | None = None
    """Not before this node's rejoin, asked for earlier, has ended. On a busy machine it takes longer; then
    all that follows is later by as much. In simulated time it takes none to speak of."""
    kill: Place | None = None
    start: Place | None = None
    freeze: Place | None = None
    thaw: Place | None = None
    cut: Cut | None = None
    heal: Link | None = None
    slow: Slow | None = None
    fast: Link | None = None
    fill_disk: Disk | None = None
    free_disk: Disk | None = None
    jump_clock: ClockJump | None = None
    refuse_updates: Literal["dns"] | None = None
    take_updates: Literal["dns"] | None = None
    pause: Word | None = None
    resume: Word | None = None
    execute: Execute | None = None
    approve: Word | None = None
    """The plan that waits, by one of the lab's people who may."""
    rejoin: NodeName | None = None

    @model_validator(mode="after")
    def _does_one_thing(self) -> Self:
        given = [name for name in _VERBS if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"expected `at_s` and one of {', '.join(_VERBS)}; not {given or 'none'}")
        return self

    @property
    def verb(self) -> str:
        return next(name for name in _VERBS if getattr(self, name) is not None)

    @property
    def what(self) -> Any:
        """The value beside the verb: a Place, a Link, …"""
        return getattr(self, self.verb)

    @property
    def parties(self) -> tuple[str, ...]:
        """Everybody it names."""
        match self.what:
            case Link() as link:
                return (*link.sides[0], *link.sides[1])
            case Place() | Disk() | ClockJump() as named:
                return (named.party,)
            case str() as party:
                return (party,)
            case _:
                return ()


_VERBS = tuple(name for name in Operation.model_fields if name not in ("at_s", "once_rejoined"))


class PolicyChanges(Model):
    """Where a story's policy differs from the lab's."""

    strategy: Strategy | None = None
    require_quorum: bool | None = None
    min_healthy_nodes: int | None = Field(default=None, ge=0)
    max_lag_bytes: int | None = Field(default=None, ge=0)
    cooldown_s: float | None = Field(default=None, ge=0)
    max_failovers_per_hour: int | None = Field(default=None, ge=1)
    startup_grace_s: float | None = Field(default=None, ge=0)
    region_wait_s: float | None = Field(default=None, ge=0)
    region_listen_s: float | None = Field(default=None, ge=0)


WATCHED_REGION = "region-1"


class StoryCluster(Model):
    replication: ReplicationMode = ReplicationMode.SYNCHRONOUS
    required_acks: int = Field(default=1, ge=1)
    data_nodes: int = Field(default=3, ge=1, le=9)
    witnesses: int = Field(default=0, ge=0, le=9)
    policy: PolicyChanges = PolicyChanges()
    region_guardian: RegionRules | None = None
    """The first region has a guardian, with these rules. A story has one cluster: min_clusters is 1."""

    @property
    def nodes(self) -> tuple[str, ...]:
        """node_ids, witnesses included."""
        return (*data_nodes(self.data_nodes), *witnesses(self.witnesses))


class RunExpected(StrEnum):
    """How the last run ended, or that there was none."""

    COMPLETED = "completed"
    INCOMPLETE = "incomplete"
    ROLLED_BACK = "rolled_back"
    UNTOUCHED = "untouched"
    REFUSED = "refused"
    NONE = "none"


class MustHold(Model):
    """What this story promises, besides the invariants that hold in each."""

    run: Annotated[tuple[RunExpected, ...], BeforeValidator(_as_list), Field(min_length=1)] | None = None
    """One, or several that are all right."""
    refused_by: str | None = None
    """Rule of the last refused run, or by which the guardian started none."""
    new_primary: Annotated[tuple[str, ...], BeforeValidator(_as_list), Field(min_length=1)] | None = None
    """Who serves at the end, or would if it could: one node, several possible ones, or `unchanged`."""
    writable_at_end: bool | None = None
    uninterrupted: bool | None = None
    """True: every write through the service's name was acknowledged."""


class Story(Model):
    name: str = Field(min_length=1)
    re_enacts: str | None = None
    cluster: StoryCluster = StoryCluster()
    operations: tuple[Operation, ...]
    must_hold: MustHold = MustHold()
    ends_at_s: float = Field(gt=0)

    @model_validator(mode="after")
    def _can_be_played(self) -> Self:
        times = [operation.at_s for operation in self.operations]
        if times != sorted(times):
            raise ValueError("expected operations in the order of time")
        if times and times[-1] >= self.ends_at_s:
            raise ValueError(f"expected ends_at_s above {times[-1]:g}, when the last operation happens")
        rejoined = set[str | None]()
        for operation in self.operations:
            if operation.once_rejoined not in (None, *rejoined):
                raise ValueError(
                    "expected once_rejoined to name a node whose rejoin is asked for before, "
                    f"not {operation.once_rejoined}"
                )
            rejoined.add(operation.rejoin)
        strangers = {
            party
            for operation in self.operations
            for party in operation.parties
            if party.startswith(("node-", "witness-")) and party not in self.cluster.nodes
        }
        if strangers:
            nodes = ", ".join(self.cluster.nodes)
            raise ValueError(
                f"expected only nodes of this story's cluster ({nodes}), not {sorted(strangers)}"
            )
        return self


def load_story(path: Path) -> Story:
    """The story in the file. Raises ConfigError."""
    return validated(Story, read_yaml(path), strict=False)


def all_stories(folder: Path = SCENARIOS) -> dict[str, Story]:
    """By slug, the file's name without its ending. Raises ConfigError."""
    return {path.stem: load_story(path) for path in sorted(folder.glob("*.yaml"))}


def story_text(story: Story) -> str:
    """The story as a file. Raises nothing; `load_story` gives the same story back."""
    data = story.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return yaml.safe_dump(data, sort_keys=False, default_flow_style=None, width=110)
