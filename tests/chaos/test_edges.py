"""The edges of what is promised (docs/guarantees.md), each as a story that shows exactly what remains."""

from __future__ import annotations

from typing import Any

from qnwis.lab.history import History

from .checker import check
from .facts import Facts
from .simulated.play import play
from .simulated.world import Mistakes
from .story import Story, all_stories


def played(
    seed: int, operations: list[dict[str, Any]], mistakes: Mistakes | None = None, **cluster: Any
) -> tuple[History, Facts]:
    ends_at_s = operations[-1]["at_s"] + 8
    story = {"name": "an edge", "cluster": cluster, "operations": operations, "ends_at_s": ends_at_s}
    return play(Story.model_validate(story), seed, mistakes)


def violated(history: History, facts: Facts) -> set[str]:
    return {violation.invariant for violation in check(history, facts)}


def test_a_machine_that_thaws_may_acknowledge_until_its_guard_runs_and_no_longer() -> None:
    """Only to clients that wait for no standby."""
    story, seen = all_stories()["machine-frozen"], set[str]()
    for seed in range(25):
        history, facts = play(story, seed)
        assert violated(history, facts) == set()
        late = check(history, facts.model_copy(update={"thawed": ()}))
        seen |= {violation.invariant for violation in late}
        assert all("pinned-node-1" in violation.saw.partition(" on timeline")[0] for violation in late)
    assert seen == {"one_primary"}


def thawed_while_a_run_promotes(mistakes: Mistakes | None = None) -> set[str]:
    """What is violated when the primary's machine thaws before its guards run again."""
    seen = set[str]()
    for n in range(40):
        frozen = [{"at_s": 1, "freeze": "node-1"}, {"at_s": 6.5 + 0.02 * n, "thaw": "node-1"}]
        for seed in range(4):
            seen |= violated(*played(seed, frozen, mistakes))
    return seen


def test_a_machine_that_thaws_while_a_run_promotes_has_no_write_confirmed_that_is_lost() -> None:
    """No standby that promised the run receives what the machine would still have confirmed."""
    assert thawed_while_a_run_promotes() == set()


def test_a_standby_that_receives_on_after_its_promise_is_found_to_confirm_what_is_lost() -> None:
    assert thawed_while_a_run_promotes(Mistakes(receivers_go_on=True)) == {"nothing_lost"}


def test_with_agent_and_guards_frozen_nothing_ends_the_database() -> None:
    history, facts = played(
        1,
        [
            {"at_s": 1, "freeze": {"party": "node-1", "part": "guard"}},
            {"at_s": 1, "freeze": {"party": "node-1", "part": "agent"}},
            {"at_s": 4, "execute": {"by": "anna", "reason": "the agent of node-1 does not answer"}},
        ],
    )
    assert violated(history, facts) == {"one_primary"}


def test_asynchronous_loses_more_than_the_policy_says_where_every_standby_hangs() -> None:
    """The limit compares standbys with one another; how far the primary was ahead of all, nobody knows."""
    hang = [{"at_s": 1, "freeze": {"party": n, "part": "receiver"}} for n in ("node-2", "node-3")]
    policy = {"max_lag_bytes": 1000}
    lost = played(1, [*hang, {"at_s": 5, "kill": "node-1"}], replication="asynchronous", policy=policy)
    assert violated(*lost) == {"loss_within_policy"}
    kept = played(1, [*hang[:1], {"at_s": 5, "kill": "node-1"}], replication="asynchronous", policy=policy)
    assert violated(*kept) == set()
