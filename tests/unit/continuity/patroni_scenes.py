"""Clusters that Patroni manages, and what it says of them: region east serves, region west follows."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from qnwis.continuity.evidence import ClusterEvidence, NodeState
from qnwis.continuity.patroni import with_upstreams
from qnwis.continuity.patroni_word import PatroniWord
from qnwis.continuity.topology import Cluster, Node
from tests.unit.continuity.scenes import cluster, evidence, node, primary, standby

EAST, WEST = ("e1", "e2"), ("w1", "w2")


def member(node_id: str, role: str = "secondary", **fields: Any) -> Node:
    region = "east" if node_id.startswith("e") else "west"
    number = ("e1", "e2", "w1", "w2").index(node_id) + 1
    known = {
        "hostname": f"10.0.0.{number}",
        "database": {"host": f"10.0.0.{number}", "port": 5432},
        "patroni": {"url": f"http://10.0.0.{number}:8008"},
    }
    return node(node_id, role, region, **{**known, **fields})


def by_patroni(**fields: Any) -> Cluster:
    members = (member("e1", "primary"), member("e2"), member("w1"), member("w2"))
    nodes = fields.pop("nodes", members)
    return cluster(*nodes, **{"manager": "patroni", **fields})


HOOK = {"url": "http://power/{node_id}/{state}"}


def word(node_id: str, leader: str | None = None, **fields: Any) -> PatroniWord:
    """Of a member of a cluster that e1 leads, or of one that w1 leads and that follows e1."""
    east = node_id in EAST
    known = {
        "leader": leader or ("e1" if east else "w1"),
        "members": EAST if east else WEST,
        "standby_of": None if east else "10.0.0.1:5432",
    }
    return PatroniWord(**{**known, **fields})


def leads(node_id: str = "e1", lsn: int = 1000, **fields: Any) -> NodeState:
    return primary(node_id, lsn, **{"patroni": word(node_id), "epoch": 1, **fields})


def follows(node_id: str, lsn: int = 1000, **fields: Any) -> NodeState:
    return standby(node_id, lsn, **{"patroni": word(node_id), "epoch": 1, **fields})


def said(topology: Cluster, *states: NodeState) -> ClusterEvidence:
    return with_upstreams(topology, evidence(topology, *states))


WELL = (leads("e1"), follows("e2"), follows("w1"), follows("w2"))


@st.composite
def words(draw: st.DrawFn, node_id: str) -> PatroniWord | None:
    if draw(st.integers(0, 9)) == 0:
        return None
    own = EAST if node_id in EAST else WEST
    return word(
        node_id,
        leader=draw(st.sampled_from([*own, *own, own[0], own[0]])),
        paused=draw(st.integers(0, 9)) == 0,
        synchronous=draw(st.booleans()),
        sync_standby=draw(st.booleans()),
        nofailover=draw(st.integers(0, 5)) == 0,
        max_lag_bytes=draw(st.sampled_from([None, 0, 500])),
        standby_of=draw(st.sampled_from(["10.0.0.1:5432"] * 5 + [None])) if node_id in WEST else None,
        members=draw(st.sampled_from([own] * 6 + [(*own, "x9")])),
    )


@st.composite
def worlds(draw: st.DrawFn, topology: Cluster) -> ClusterEvidence:
    """Any answers: silent members, unknown words, lags, and more than one that writes."""
    states = []
    for node_id in (*EAST, *WEST):
        if draw(st.integers(0, 4)) == 0:
            continue
        writes = draw(st.integers(0, 9)) < (8 if node_id == "e1" else 1)
        lsn = draw(st.sampled_from([1000, 1000, 900, 0]))
        said_so = draw(words(node_id))
        states.append(
            leads(node_id, lsn, patroni=said_so) if writes else follows(node_id, lsn, patroni=said_so)
        )
    return said(topology, *states)
