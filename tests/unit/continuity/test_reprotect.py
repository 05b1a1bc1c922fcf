"""How many standbys are wanted and there, why not, and which one a rejoin is ordered to."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qnwis.continuity.evidence import ClusterEvidence
from qnwis.continuity.reprotect import (
    BRING_BACK_FIRST,
    BRING_BACK_LONGEST,
    Attempt,
    Missing,
    Protection,
    next_to_bring_back,
    protection,
    protections,
)
from qnwis.continuity.topology import Deployment

from .scenes import NOON, UNKNOWN, cluster, evidence, node, primary, standby

THREE = cluster(
    node("node-1", "primary"), node("node-2"), node("node-3"), node("node-4", "witness", "region-3")
)


def seen(**nodes: Any) -> ClusterEvidence:
    """node-1 serves and the others stream; `node_2={…}` changes what it says, `node_2=None` silences it."""
    said, statuses = [], {n.node_id: n.status for n in THREE.nodes}
    for state in (primary("node-1"), standby("node-2"), standby("node-3")):
        change = nodes.get(state.node_id.replace("-", "_"), {})
        if change is None:
            statuses[state.node_id] = UNKNOWN
        else:
            said.append(state.model_copy(update=change))
    return evidence(THREE, *said, statuses=statuses)


DOWN = {"database_up": False, "in_recovery": None, "streaming": False, "upstream": None, "timeline": None}


def test_a_cluster_whose_standbys_all_stream_is_whole() -> None:
    found = protection(THREE, seen())
    assert (found.primary, found.wanted, found.there) == ("node-1", 2, ("node-2", "node-3"))
    assert found.whole and found.in_words == "2 of 2 standbys stream"


@pytest.mark.parametrize(
    ("change", "why", "rejoins"),
    [
        (None, "does not answer", False),
        ({**DOWN, "why_down": "[another_held_since] kept down"}, "is down ([another_held_since]", True),
        ({"streaming": False}, "does not stream from node-1", True),
        ({"timeline": 7}, "on timeline 7, not from node-1", True),
        ({"upstream": "node-3"}, "streams from node-3", True),
        ({"member": False, "streaming": False}, "takes no part any more", False),
        ({"streaming": False, "restarting": True}, "is starting its database", False),
        ({"streaming": False, "epoch": 99}, "promised epoch 99 to a run", False),
    ],
)
def test_why_a_standby_is_not_there_and_whether_a_rejoin_helps(
    change: dict[str, Any] | None, why: str, rejoins: bool
) -> None:
    found = protection(THREE, seen(node_2=change))
    assert found.there == ("node-3",) and not found.whole
    (missing,) = found.missing
    assert missing.node_id == "node-2" and why in missing.why and missing.remedy
    assert missing.rejoins is rejoins
    chosen = next_to_bring_back(found, {}, NOON)
    assert chosen == (missing if rejoins else None)


def test_without_a_primary_that_serves_nothing_is_brought_back() -> None:
    found = protection(THREE, seen(node_1=None, node_2={"streaming": False}))
    assert found.primary is None and not found.whole
    assert next_to_bring_back(found, {}, NOON) is None


def test_a_second_writer_is_never_ordered_to_rejoin() -> None:
    writes = {"writable": True, "in_recovery": False, "streaming": False, "upstream": None, "epoch": 4}
    found = protection(THREE, seen(node_1={"epoch": 5}, node_2=writes))
    assert [one.rejoins for one in found.missing] == [False]
    assert "accepts writes itself" in found.missing[0].why


def test_an_active_active_cluster_has_a_protection_for_each_region() -> None:
    group = THREE.model_copy(update={"deployment": Deployment.ACTIVE_ACTIVE})
    assert [one.cluster_id for one in protections(group, seen())] == [
        f"{THREE.cluster_id}-{region}" for region in dict.fromkeys(n.region for n in THREE.nodes)
    ]


counts = st.integers(1, 60)


@given(counts)
def test_the_wait_grows_with_each_attempt_up_to_its_limit(count: int) -> None:
    wait = Attempt(count=count, ended_at=NOON, said="").again_at - NOON
    assert BRING_BACK_FIRST <= wait <= BRING_BACK_LONGEST
    assert Attempt(count=count + 1, ended_at=NOON, said="").again_at - NOON >= wait


@given(st.dictionaries(st.sampled_from(["a", "b", "c"]), counts), st.integers(0, 8000))
def test_one_that_is_due_is_chosen_and_one_that_is_not_waits(tried: dict[str, int], later_s: int) -> None:
    missing = tuple(Missing(node_id=n, why="", remedy="", rejoins=True) for n in ("a", "b", "c"))
    found = Protection(cluster_id="c", primary="p", wanted=3, there=(), missing=missing)
    attempts = {n: Attempt(count=count, ended_at=NOON, said="") for n, count in tried.items()}
    now = NOON + timedelta(seconds=later_s)
    chosen = next_to_bring_back(found, attempts, now)
    due = {n for n in "abc" if n not in attempts or attempts[n].again_at <= now}
    if isinstance(chosen, Missing):
        assert chosen.node_id in due
        assert all(tried.get(chosen.node_id, 0) <= tried.get(other, 0) for other in due)
    else:
        assert not due and chosen == min(attempt.again_at for attempt in attempts.values())
