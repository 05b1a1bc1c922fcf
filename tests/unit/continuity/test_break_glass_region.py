"""Break glass for a region: which sheets there are, in which order, and what the first page says."""

from __future__ import annotations

from typing import Any

from qnwis.continuity.break_glass_region import Found, RegionBreakGlass, index, region_break_glass
from qnwis.continuity.lease_messages import Membership
from qnwis.continuity.leaving import leave
from qnwis.continuity.membership import MembershipView
from qnwis.continuity.plan import FlipDns, PromoteTarget
from qnwis.continuity.refusal import Refusal
from qnwis.continuity.regions import RegionRules, make_region_plan
from qnwis.continuity.topology import Cluster

from .scenes import cluster, evidence, node, policy, primary, standby, with_dns

RULES = RegionRules(wave_size=1, stop_after=1)
NODES = ("node-1", "node-2", "node-3")
VIEWS = {
    name: MembershipView(
        node_id=name, disk_id=f"disk of {name}", membership=Membership(version=3, members=NODES)
    )
    for name in NODES[1:]
}


def lost(cluster_id: str, *, priority: int = 0, serves: bool = False, **fields: Any) -> Found:
    """Its primary is in region-1, where nobody answers; or does, where it `serves`."""
    topology = with_dns(
        cluster(
            node("node-1", "primary", "region-1"),
            node("node-2", region="region-2"),
            node("node-3", region="region-2"),
            cluster_id=cluster_id,
            **fields,
        )
    )
    said = [primary("node-1")] if serves else []
    seen = evidence(topology, *said, standby("node-2"), standby("node-3"))
    return Found(topology, policy(evacuation_priority=priority), seen, VIEWS)


def paper(*found: Found) -> RegionBreakGlass:
    made = region_break_glass("region-1", "flood", found, RULES)
    assert isinstance(made, RegionBreakGlass), made
    return made


def files(made: RegionBreakGlass) -> dict[str, str]:
    return {s.cluster.cluster_id: f"{n:02}-{s.cluster.cluster_id}" for n, s in enumerate(made.sheets, 1)}


def test_the_sheets_are_of_the_plan_of_an_evacuation_the_important_clusters_first() -> None:
    found = (lost("a"), lost("b", priority=5), lost("c", serves=True))
    made = paper(*found)
    assert [sheet.cluster.cluster_id for sheet in made.sheets] == ["b", "a", "c"]
    evacuation = make_region_plan(
        "region-1",
        "flood",
        [
            candidate
            for one in found
            if (candidate := leave(one.cluster, one.policy, one.evidence, "region-1", reason="flood"))
        ],
        RULES,
    )
    assert made.digest == made.plan.digest and made.plan == evacuation
    assert [sheet.plan for sheet in made.sheets] == [move.plan for move in made.plan.moves]
    for sheet in made.sheets:
        assert sheet.cluster.node(sheet.plan.failover_target_id).region == "region-2"
        kinds = [type(action) for action in sheet.plan.actions]
        assert kinds.index(PromoteTarget) < kinds.index(FlipDns), "clients come when it serves"


def test_the_first_page_says_the_order_the_stop_rule_and_how_to_record() -> None:
    made = paper(lost("a"), lost("b", priority=5))
    said = index(made, files(made), unread=("d: broken.yaml: no such field",))
    assert (
        said.index("## Wave 1") < said.index("`01-b.md`") < said.index("## Wave 2") < said.index("`02-a.md`")
    )
    assert "Where 1 clusters of a wave did not get there, begin no further one" in said
    assert made.digest in said and "- d: broken.yaml: no such field" in said
    for name, sheet in zip(("01-b", "02-a"), made.sheets, strict=True):
        assert f"break-glass record --plan {name}.json --reason '…' --answers {sheet.run_id}\n" in said
    assert "qnwis-continuity region failback region-1" in said


def test_a_cluster_that_has_no_majority_of_agents_is_named_and_gets_no_sheet() -> None:
    silent = lost("b")
    made = paper(lost("a"), Found(silent.cluster, silent.policy, silent.evidence, {}))
    assert [sheet.cluster.cluster_id for sheet in made.sheets] == ["a"]
    assert "- b: " in index(made, files(made)) and "no_majority_of_agents" in index(made, files(made))


def test_a_cluster_whose_primary_is_elsewhere_has_nothing_to_leave() -> None:
    stays = lost("s")
    away = evidence(stays.cluster, primary("node-2"), standby("node-3", upstream="node-2"))
    made = region_break_glass("region-1", "flood", [Found(stays.cluster, stays.policy, away, VIEWS)], RULES)
    assert isinstance(made, Refusal) and made.rule == "nothing_to_move"


def by_weights() -> Cluster:
    nodes = [
        node(f"{region}-1", "primary", region, weight=weight, capacity=100)
        for region, weight in (("region-1", 60), ("region-2", 40))
    ]
    return cluster(*nodes, cluster_id="aa", deployment="active_active")


def test_weights_come_last_and_nothing_of_them_is_promoted() -> None:
    topology = by_weights()
    seen = evidence(topology, primary("region-1-1"), primary("region-2-1"))
    made = paper(lost("a"), Found(topology, policy(evacuation_priority=99), seen, {}))
    assert [sheet.cluster.cluster_id for sheet in made.sheets] == ["a"]
    said = index(made, files(made))
    assert said.index("`01-a.md`") < said.index("## Last: weights, by DNS alone")
    assert "- aa: region-1 60 → 0, region-2 40 → 100" in said
