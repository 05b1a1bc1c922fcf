"""The truth table of detection, row by row, and what holds for every row that anybody could add."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qnwis.continuity.detection import (
    Finding,
    Verdict,
    Votes,
    Word,
    contradiction,
    judge,
    needs_evidence,
    own_word,
)
from qnwis.continuity.evidence import ClusterEvidence, NodeState
from qnwis.continuity.topology import NodeRole, NodeStatus
from tests.unit.continuity.scenes import (
    DEGRADED,
    FAILED,
    HEALTHY,
    SPEC_CLUSTER,
    UNKNOWN,
    changed,
    cluster,
    evidence,
    node,
    primary,
    standby,
    witness,
)

SAID = {"F": FAILED, "H": HEALTHY, "u": UNKNOWN}
"""F failed, H healthy, u undecided; a dot abstains."""

UP = primary("node-1")
ENDED = NodeState(node_id="node-1", role=NodeRole.PRIMARY, database_up=False, database_ended=True)
DOWN = NodeState(node_id="node-1", role=NodeRole.PRIMARY, database_up=False)
RESTARTING = NodeState(node_id="node-1", role=NodeRole.PRIMARY, database_up=False, restarting=True)
SILENT = None

FRESH = standby("node-2", last_message_age_s=1.9)
STALE = standby("node-2", last_message_age_s=2.1)
FROM_THE_FUTURE = standby("node-2", last_message_age_s=-3.0)
CUT = standby("node-2", streaming=False, last_message_age_s=0.1)
OF_ANOTHER = standby("node-2", upstream="node-3", last_message_age_s=0.1)
UNTOLD = standby("node-2", last_message_age_s=None)
NOBODY = None


def on(votes: str) -> Votes:
    """Votes on node-1 of vantage-1, -2 and so on, a letter each; everything else of the cluster is well."""
    return {
        f"vantage-{number}": {"node-1": SAID[said], "node-2": HEALTHY, "node-3": HEALTHY}
        for number, said in enumerate(votes, start=1)
        if said != "."
    }


def verdict_on(votes: str, agent: NodeState | None, heard_by: NodeState | None) -> Verdict:
    topology = changed(SPEC_CLUSTER, vantages=[f"vantage-{n}" for n in range(1, len(votes) + 1)])
    said = evidence(topology, *(state for state in (agent, heard_by) if state is not None))
    return judge(topology, on(votes), said)["node-1"]


@pytest.mark.parametrize(
    ("votes", "agent", "heard_by", "finding"),
    [
        # Nobody says failed: a majority that says healthy is needed, and nothing more.
        ("HHH", SILENT, NOBODY, "healthy"),
        ("HH.", SILENT, NOBODY, "healthy"),
        ("HHu", SILENT, NOBODY, "healthy"),
        ("H..", SILENT, NOBODY, "unknown"),
        ("Huu", SILENT, NOBODY, "unknown"),
        ("uuu", SILENT, NOBODY, "unknown"),
        ("...", SILENT, NOBODY, "unknown"),
        ("H", SILENT, NOBODY, "healthy"),
        (".", SILENT, NOBODY, "unknown"),
        # A minority says failed: never failed, whatever else is silent.
        ("HHF", SILENT, NOBODY, "partition_suspected"),
        ("H.F", SILENT, NOBODY, "partition_suspected"),
        ("uuF", SILENT, NOBODY, "unknown"),
        ("..F", SILENT, NOBODY, "unknown"),
        ("..F", ENDED, NOBODY, "unknown"),
        ("F.", SILENT, NOBODY, "unknown"),
        ("FH", SILENT, NOBODY, "partition_suspected"),
        ("FF...", SILENT, NOBODY, "unknown"),
        ("FFHH.", SILENT, NOBODY, "partition_suspected"),
        # A majority says failed: failed, unless its agent or a standby shows it alive.
        ("FFF", SILENT, NOBODY, "failed"),
        ("FF.", SILENT, NOBODY, "failed"),
        ("FFu", SILENT, NOBODY, "failed"),
        ("FFH", SILENT, NOBODY, "failed"),
        ("F", SILENT, NOBODY, "failed"),
        ("FFFHH", SILENT, NOBODY, "failed"),
        ("FFF", SILENT, FRESH, "partition_suspected"),
        ("FFH", SILENT, FRESH, "partition_suspected"),
        ("FFF", SILENT, STALE, "failed"),
        ("FFF", SILENT, FROM_THE_FUTURE, "failed"),
        ("FFF", SILENT, UNTOLD, "failed"),
        ("FFF", SILENT, CUT, "failed"),
        ("FFF", SILENT, OF_ANOTHER, "failed"),
        ("FFF", UP, NOBODY, "partition_suspected"),
        ("FFF", UP, FRESH, "partition_suspected"),
        ("FFF", ENDED, NOBODY, "failed"),
        ("FFF", ENDED, FRESH, "failed"),
        ("FFF", DOWN, NOBODY, "failed"),
        ("FFF", DOWN, FRESH, "failed"),
        ("FFF", RESTARTING, NOBODY, "unknown"),
        ("FFF", RESTARTING, FRESH, "unknown"),
    ],
)
def test_the_truth_table(
    votes: str, agent: NodeState | None, heard_by: NodeState | None, finding: str
) -> None:
    verdict = verdict_on(votes, agent, heard_by)
    assert verdict.finding == finding
    assert (verdict.refusal is None) == ("F" not in votes or finding == "failed")


def test_a_majority_alone_makes_nobody_failed_before_the_agents_were_asked() -> None:
    topology = changed(SPEC_CLUSTER, vantages=["vantage-1"])
    assert judge(topology, on("F"), None)["node-1"].finding is Finding.UNKNOWN
    assert needs_evidence(topology, on("F"))
    assert not needs_evidence(topology, on("H"))
    assert not needs_evidence(changed(SPEC_CLUSTER, vantages=["vantage-1", "vantage-2"]), on("FH"))


@pytest.mark.parametrize(
    ("verdict", "rule", "told"),
    [
        (verdict_on("HHF", SILENT, NOBODY), "partition_suspected", "say failed: vantage-3"),
        (verdict_on("HHF", SILENT, NOBODY), "partition_suspected", "say healthy: vantage-1, vantage-2"),
        (verdict_on(".uF", SILENT, NOBODY), "too_few_vantages", "undecided: vantage-2; abstain: vantage-1"),
        (verdict_on("FFF", SILENT, FRESH), "partition_suspected", "still heard by node-2"),
        (verdict_on("FFF", UP, NOBODY), "partition_suspected", "its own agent says that its database is up"),
        (verdict_on("FFF", RESTARTING, NOBODY), "database_restarting", "its agent restarts its database"),
    ],
)
def test_a_verdict_says_what_contradicts_what(verdict: Verdict, rule: str, told: str) -> None:
    assert verdict.refusal is not None and verdict.refusal.rule == rule
    assert told in verdict.why and "node-1" in verdict.why


def test_an_agent_beside_no_database_is_all_that_a_witness_should_be() -> None:
    topology = cluster(node("node-1", "primary"), node("node-2"), node("w", "witness"))
    votes = {"default": {"w": FAILED}}
    assert own_word(topology.node("w"), witness("w")) is Word.UP
    assert judge(topology, votes, evidence(topology, witness("w")))["w"].finding == "partition_suspected"
    assert judge(topology, votes, evidence(topology))["w"].finding == "failed"


def test_a_vantage_that_is_not_configured_has_no_say() -> None:
    topology = changed(SPEC_CLUSTER, vantages=["vantage-1", "vantage-2", "elsewhere"])
    assert judge(topology, on("FHF"), evidence(topology))["node-1"].finding == "partition_suspected"


# ---- every table

STATUSES = st.sampled_from([HEALTHY, FAILED, UNKNOWN, DEGRADED])
VANTAGES = [f"vantage-{n}" for n in range(1, 6)]


@st.composite
def scenes(draw: st.DrawFn) -> tuple[list[str], dict[str, NodeStatus], ClusterEvidence | None]:
    """Vantages, the votes of some of them on node-1, and any evidence or none."""
    vantages = VANTAGES[: draw(st.integers(1, 5))]
    votes = draw(st.dictionaries(st.sampled_from(vantages), STATUSES))
    agent = draw(st.sampled_from([UP, ENDED, DOWN, RESTARTING, SILENT]))
    heard = draw(st.sampled_from([FRESH, STALE, CUT, OF_ANOTHER, UNTOLD, FROM_THE_FUTURE, NOBODY]))
    said = evidence(SPEC_CLUSTER, *(state for state in (agent, heard) if state is not None))
    return vantages, votes, draw(st.sampled_from([said, said, None]))


def finding_of(vantages: list[str], votes: dict[str, NodeStatus], said: ClusterEvidence | None) -> Finding:
    topology = changed(SPEC_CLUSTER, vantages=vantages)
    return judge(topology, {v: {"node-1": vote} for v, vote in votes.items()}, said)["node-1"].finding


@given(scenes())
def test_a_minority_never_makes_failed(
    scene: tuple[list[str], dict[str, NodeStatus], ClusterEvidence | None],
) -> None:
    vantages, votes, said = scene
    if finding_of(vantages, votes, said) is Finding.FAILED:
        assert 2 * list(votes.values()).count(FAILED) > len(vantages)


@given(scenes(), st.data())
def test_missing_data_never_makes_failed(
    scene: tuple[list[str], dict[str, NodeStatus], ClusterEvidence | None], data: st.DataObject
) -> None:
    """A vantage that falls silent, or agents that nobody asked, never turn another verdict into failed."""
    vantages, votes, said = scene
    if finding_of(vantages, votes, said) is Finding.FAILED:
        return
    fewer = {v: vote for v, vote in votes.items() if data.draw(st.booleans())}
    assert finding_of(vantages, fewer, said) is not Finding.FAILED
    assert finding_of(vantages, votes, None) is not Finding.FAILED


RANK = {Finding.HEALTHY: 0, Finding.UNKNOWN: 1, Finding.PARTITION_SUSPECTED: 1, Finding.FAILED: 2}


@given(scenes(), st.sampled_from(VANTAGES))
def test_a_vantage_that_says_failed_makes_no_verdict_better_and_one_that_says_healthy_none_worse(
    scene: tuple[list[str], dict[str, NodeStatus], ClusterEvidence | None], vantage: str
) -> None:
    vantages, votes, said = scene
    if vantage not in vantages:
        return
    before = RANK[finding_of(vantages, votes, said)]
    assert RANK[finding_of(vantages, {**votes, vantage: FAILED}, said)] >= before
    assert RANK[finding_of(vantages, {**votes, vantage: HEALTHY}, said)] <= before


@given(scenes())
def test_the_verdict_and_the_gate_of_a_run_agree(
    scene: tuple[list[str], dict[str, NodeStatus], ClusterEvidence | None],
) -> None:
    """What the guardian calls failed no gate calls contradicted, and the other way round."""
    vantages, _, said = scene
    if said is not None:
        everyone = dict.fromkeys(vantages, FAILED)
        open_gate = contradiction(SPEC_CLUSTER.node("node-1"), said) is None
        assert (finding_of(vantages, everyone, said) is Finding.FAILED) == open_gate
