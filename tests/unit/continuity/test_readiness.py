"""Readiness: a row a check, and that what is not known is never Ready."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qnwis.continuity.allowlist import RefusedCallers
from qnwis.continuity.backups import Backup
from qnwis.continuity.evidence import ClusterEvidence, StandbyConnection
from qnwis.continuity.model import sha256_digest
from qnwis.continuity.planner import topology_digest
from qnwis.continuity.readiness import CHECKS, DRILL_DUE, evaluate
from qnwis.continuity.readiness_facts import (
    CertificateSeen,
    Check,
    DnsRecord,
    DnsTrial,
    Facts,
    Grade,
    Guarded,
    Past,
    RecordAnswer,
    UpdateAnswer,
    Verified,
)
from qnwis.continuity.topology import Cluster
from qnwis.continuity.upkeep import Archiving, IdleSlot, LogicalSlot, Upkeep

from .scenes import (
    DEGRADED,
    NOON,
    SPEC_CLUSTER,
    UNKNOWN,
    changed,
    cluster,
    clusters,
    evidence,
    live_evidence,
    node,
    on_file,
    policy,
    primary,
    standby,
    with_dns,
)

READY, WARNING, NOT_EVALUATED, NOT_READY = Grade.READY, Grade.WARNING, Grade.NOT_EVALUATED, Grade.NOT_READY
FIRST, SECOND = "10.0.9.1:53", "10.0.9.2:53"
PRIMARY, OTHER = "node-1.example", "node-2.example"
POLICY = policy(max_lag_bytes=100)
WIDE = with_dns(
    cluster(
        node("node-1", "primary", "region-1"),
        node("node-2", region="region-1"),
        node("node-3", region="region-2"),
        node("node-4", region="region-2"),
        node("node-5", "witness", "region-3"),
    ),
    servers=(FIRST, SECOND),
)
"""Survives the loss of any node and of any region."""
SAID = (primary("node-1"), *(standby(f"node-{number}") for number in (2, 3, 4)))


def seen(topology: Cluster = WIDE, **nodes: Any) -> ClusterEvidence:
    """Every node healthy; `node_2={…}` changes what node-2 says, `node_2=None` silences it."""
    said, statuses = [], {n.node_id: n.status for n in topology.nodes}
    for state in SAID:
        change = nodes.get(state.node_id.replace("-", "_"), {})
        if change is None:
            statuses[state.node_id] = UNKNOWN
        else:
            said.append(state.model_copy(update=change))
    return evidence(topology, *said, statuses=statuses)


def answers(**refused: str) -> DnsTrial:
    made = {"first": FIRST, "second": SECOND}
    return DnsTrial(
        tried_at=NOON,
        answers=tuple(
            UpdateAnswer(server=server, accepted=name not in refused, reason=refused.get(name, ""))
            for name, server in made.items()
        ),
    )


def record(
    first: tuple[str, ...] | None = (PRIMARY,),
    second: tuple[str, ...] | None = (PRIMARY,),
    ttl_s: int = 1,
) -> DnsRecord:
    """What the servers answer to clients; None for one that does not."""
    made = {FIRST: first, SECOND: second}
    return DnsRecord(
        asked_at=NOON,
        answers=tuple(
            RecordAnswer(
                server=server,
                addresses=found,
                ttl_s=ttl_s if found else None,
                reason=f"{server}: no answer" if found is None else "",
            )
            for server, found in made.items()
        ),
    )


def verified(topology: Cluster = WIDE, rules: Any = POLICY) -> Verified:
    return Verified(
        run_id="run-7",
        at=NOON - timedelta(days=1),
        topology_digest=topology_digest(topology),
        policy_digest=sha256_digest(rules),
    )


ARCHIVED = {
    "mode": "on",
    "by_something": True,
    "waiting": 0,
    "oldest_waiting_s": None,
    "last_archived_at": NOON,
    "last_failed_at": None,
    "last_failed_file": None,
}
FAILED: dict[str, Any] = {
    "waiting": 3,
    "oldest_waiting_s": 40.0,
    "last_failed_at": NOON + timedelta(seconds=1),
    "last_failed_file": "000000010000000000000007",
}
BACKED_UP = policy(max_lag_bytes=100, max_backup_age_s=3600)


def kept(*slots: str, synced: bool = False, backup: Backup | None = None, **archiving: Any) -> Upkeep:
    return Upkeep(
        archiving=Archiving(**{**ARCHIVED, **archiving}),
        backup=backup,
        logical_slots=tuple(LogicalSlot(name=name, database="app", synced=synced) for name in slots),
    )


def idle() -> Upkeep:
    return kept().model_copy(update={"idle_slots": (IdleSlot(name="old", kept_bytes=7),)})


def saying(first: Upkeep | None, second: Upkeep | None = None) -> Facts:
    """What the agents of the primary and of the target say."""
    said = {"node-1": first, "node-2": second or kept()}
    return but(upkeep={node_id: one for node_id, one in said.items() if one is not None})


def backed_up(*ages_s: float | None) -> Facts:
    """What each agent that was told whom to ask found."""
    made = [
        Backup(
            last_good_at=None if age_s is None else GOOD.now - timedelta(seconds=age_s),
            detail="no answer" if age_s is None else f"backup {age_s:g}",
        )
        for age_s in ages_s
    ]
    upkeep = {f"node-{number}": kept(backup=one) for number, one in enumerate(made, start=1)}
    return but(policy=BACKED_UP, upkeep={"node-1": kept(), "node-2": kept(), **upkeep})


GOOD = Facts(
    cluster=WIDE,
    policy=POLICY,
    evidence=seen(),
    dns=answers(),
    record=record(),
    past=Past(last_drill_at=NOON - timedelta(days=10), verified=verified()),
    certificates=(CertificateSeen(owner="node-1", not_after=NOON + timedelta(days=365)),),
    upkeep={"node-1": kept(), "node-2": kept()},
    guarded=Guarded(heard=WIDE.vantages),
    now=NOON + timedelta(seconds=5),
)


def but(**changes: Any) -> Facts:
    return GOOD.model_copy(update=changes)


PAUSED = Guarded(heard=WIDE.vantages, paused="by ann: test")


def watched_from(*vantages: str, **abstaining: str) -> Facts:
    heard = tuple(vantage for vantage in vantages if vantage not in abstaining)
    guarded = Guarded(heard=heard, abstaining={v: why for v, why in abstaining.items() if why})
    return but(cluster=changed(WIDE, vantages=vantages), guarded=guarded)


def check(facts: Facts, name: str) -> Check:
    return next(check for check in evaluate(facts).checks if check.name == name)


def test_a_cluster_of_which_all_is_known_and_good_is_ready() -> None:
    found = evaluate(GOOD)
    assert found.grade is READY and found.headline == "ready", found
    assert {c.name: c.grade for c in found.checks if c.counts and c.grade is not READY} == {}
    assert len(found.checks) == len(CHECKS)
    assert check(GOOD, "target exists").age_s == 5 and check(GOOD, "last drill").age_s == 10 * 86400 + 5


def waited_for(*states: str, mode: str = "synchronous", required_acks: int = 1) -> Facts:
    """How the primary has its standbys, and what the topology says of its commits."""
    standbys = [
        StandbyConnection(application_name=f"node-{number}", state="streaming", sync_state=state)
        for number, state in enumerate(states, start=2)
    ]
    replication = {"mode": mode, "required_acks": required_acks}
    topology = Cluster.model_validate({**WIDE.model_dump(), "replication": replication})
    return but(cluster=topology, evidence=seen(node_1={"standbys": standbys}))


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        (waited_for("async", "async"), True),
        (waited_for("async", "potential"), True),
        (waited_for("async", "quorum"), False),
        (waited_for("sync", "async"), False),
        (waited_for("async", "async", mode="asynchronous"), False),
        (waited_for(), False),
    ],
)
def test_a_synchronous_topology_whose_commits_wait_for_nobody_is_not_ready(facts: Facts, said: bool) -> None:
    """Else each failover is planned as one without a loss, and loses what no standby had."""
    found = check(facts, "standbys")
    assert (found.grade is NOT_READY) == said
    assert (
        "commits of node-1 wait for no standby, and by the topology they wait for 1" in found.reason
    ) == said


ROWS: list[tuple[str, Callable[[], Facts], Grade, str]] = [
    ("target exists", lambda: GOOD, READY, "node-2 would take over from node-1"),
    ("target exists", lambda: but(policy=policy(min_healthy_nodes=9)), NOT_READY, "too_few_healthy_nodes"),
    ("target exists", lambda: but(evidence=None), NOT_EVALUATED, "no agent was asked"),
    ("target exists", lambda: but(evidence=on_file(WIDE)), NOT_EVALUATED, "no agent was asked"),
    ("standbys", lambda: GOOD, READY, "3 of 3 standbys stream"),
    ("standbys", lambda: but(evidence=seen(node_3=None)), WARNING, "2 of 3 standbys stream: node-3 does not"),
    ("standbys", lambda: but(evidence=seen(node_1={"writable": False})), NOT_EVALUATED, "no primary accepts"),
    ("replication lag", lambda: but(evidence=seen(node_2={"receive_lsn": 900})), READY, "node-2 is 100"),
    ("replication lag", lambda: but(evidence=seen(node_2={"receive_lsn": 899})), WARNING, "101 bytes behind"),
    ("replication lag", lambda: but(evidence=seen(node_1={"write_lsn": 1101})), NOT_READY, "101 bytes"),
    ("replication lag", lambda: but(evidence=seen(node_3=None)), WARNING, "node-3 does not say"),
    (
        "replication lag",
        lambda: but(evidence=seen(node_2=None, node_3=None, node_4=None)),
        NOT_EVALUATED,
        "does not say its position",
    ),
    ("replication lag", lambda: but(evidence=seen(node_1=None)), NOT_EVALUATED, "node-1 does not say"),
    ("loss of any node", lambda: GOOD, READY, "5 losses"),
    ("loss of any node", lambda: but(evidence=seen(node_2=None)), READY, "5 losses"),
    (
        "loss of any node",
        lambda: but(evidence=seen(node_2=None, node_3=None)),
        NOT_READY,
        "2 voting nodes would be left, the quorum is 3",
    ),
    ("loss of any node", lambda: but(evidence=None), NOT_EVALUATED, "no agent was asked"),
    ("loss of any region", lambda: GOOD, READY, "3 losses"),
    (
        "loss of any region",
        lambda: but(cluster=SPEC_CLUSTER, evidence=evidence(SPEC_CLUSTER, *SAID[:3])),
        WARNING,
        "region region-1: 1 of 3 members are left",
    ),
    (
        "loss of any region",
        lambda: but(cluster=one_region(), evidence=evidence(one_region(), *SAID[:3])),
        WARNING,
        "all nodes are in one region",
    ),
    ("loss of any region", lambda: but(evidence=None), NOT_EVALUATED, "no agent was asked"),
    ("DNS credentials", lambda: GOOD, READY, f"{FIRST} would take an update"),
    ("DNS credentials", lambda: but(dns=answers(first="bad key")), NOT_READY, "bad key"),
    ("DNS credentials", lambda: but(dns=answers(second="I am a secondary")), READY, "would take an update"),
    ("DNS credentials", lambda: but(dns=None), NOT_EVALUATED, f"not tried: {FIRST}"),
    ("DNS credentials", lambda: but(dns=DnsTrial(answers=(), tried_at=NOON)), NOT_EVALUATED, "not tried"),
    ("DNS credentials", lambda: but(cluster=SPEC_CLUSTER, dns=None), WARNING, "no DNS service is configured"),
    ("DNS record", lambda: GOOD, READY, "every server answers node-1.example for 1 s, which is node-1"),
    (
        "DNS record",
        lambda: but(record=record((OTHER,))),
        NOT_READY,
        f"{FIRST} answers {OTHER}, and node-1 is at",
    ),
    ("DNS record", lambda: but(record=record(second=(OTHER,))), NOT_READY, f"{SECOND} answers {OTHER}"),
    ("DNS record", lambda: but(record=record((PRIMARY, OTHER))), NOT_READY, f"{PRIMARY}, {OTHER}"),
    ("DNS record", lambda: but(record=record(())), NOT_READY, "answers no address"),
    ("DNS record", lambda: but(record=record(ttl_s=60)), WARNING, "a TTL of 60 s, not 1 s"),
    ("DNS record", lambda: but(record=record(second=None)), NOT_EVALUATED, f"{SECOND}: no answer"),
    ("DNS record", lambda: but(record=record((OTHER,), None)), NOT_READY, f"{SECOND}: no answer"),
    ("DNS record", lambda: but(record=None), NOT_EVALUATED, f"{FIRST} was not asked"),
    ("DNS record", lambda: but(evidence=None), NOT_EVALUATED, "the primary is not known"),
    ("DNS record", lambda: but(cluster=SPEC_CLUSTER), NOT_EVALUATED, "no DNS service is configured"),
    ("standby capacity", lambda: GOOD, READY, "node-2 has 100, node-1 has 100"),
    ("standby capacity", lambda: small_target(), WARNING, "node-2 has 90, node-1 has 100"),
    ("standby capacity", lambda: but(evidence=None), NOT_EVALUATED, "there is no target"),
    ("last drill", lambda: but(past=Past(verified=verified())), WARNING, "no drill yet"),
    ("last drill", lambda: but(past=Past(last_drill_at=GOOD.now - DRILL_DUE)), READY, "90.0 days ago"),
    (
        "last drill",
        lambda: but(past=Past(last_drill_at=GOOD.now - DRILL_DUE - timedelta(hours=3))),
        WARNING,
        "90.1 days ago",
    ),
    ("last drill", lambda: but(past=None), NOT_EVALUATED, "audit trail could not be read"),
    ("configuration", lambda: GOOD, READY, "verified by run run-7 of 2025-01-10 12:00 UTC"),
    ("configuration", lambda: but(past=Past()), WARNING, "no run or drill has verified it yet"),
    ("configuration", lambda: but(policy=policy(max_lag_bytes=99)), WARNING, "since edit: policy_digest"),
    (
        "configuration",
        lambda: but(past=Past(verified=verified(changed(WIDE, name="Old")))),
        WARNING,
        "since edit: topology_digest",
    ),
    ("configuration", lambda: but(past=None), NOT_EVALUATED, "audit trail could not be read"),
    ("guardian", lambda: watched_from("v", "w", "x"), READY, "it watches from v, w, x"),
    ("guardian", lambda: watched_from("v", "w", "x", x="cut off"), WARNING, "x: cut off"),
    (
        "guardian",
        lambda: watched_from("v", "w", "x", w="ended", x="cut off"),
        WARNING,
        "no failure is found: 1 of 3 vantages speak, and it takes 2; w: ended; x: cut off",
    ),
    ("guardian", lambda: watched_from("v", "w", w=""), WARNING, "w: not heard from yet"),
    ("guardian", lambda: watched_from("v", gone="it left the topology"), READY, "it watches from v"),
    (
        "guardian",
        lambda: but(guarded=Guarded(heard=WIDE.vantages, paused="by ann: test")),
        WARNING,
        "paused by ann: test",
    ),
    (
        "guardian",
        lambda: but(guarded=Guarded(missing="g has ended")),
        WARNING,
        "nobody watches: g has ended",
    ),
    ("guardian", lambda: but(guarded=None), NOT_EVALUATED, "does not answer"),
    ("files", lambda: GOOD, READY, "can be read"),
    ("files", lambda: but(unusable=("hooks.yaml:3: bad",)), NOT_READY, "hooks.yaml:3: bad"),
    ("certificates", lambda: but(certificates=None), WARNING, "whoever reaches node-1, node-2, node-3,"),
    ("certificates", lambda: but(cluster=on_loopback(), certificates=None), NOT_EVALUATED, "plain HTTP"),
    ("certificates", lambda: shown(365), READY, "the first to end is that of node-1"),
    ("certificates", lambda: shown(29), WARNING, "within 30 days ends that of node-1"),
    ("certificates", lambda: shown(-1), NOT_READY, "ended: node-1"),
    ("callers", lambda: GOOD, NOT_EVALUATED, "answer whoever asks"),
    ("callers", lambda: but(refused={"node-1": RefusedCallers()}), READY, "no agent refused anybody"),
    ("callers", lambda: knocked(hours=25), READY, "no agent refused anybody"),
    ("callers", lambda: knocked(hours=23), WARNING, "node-1 (certificate_not_listed 3)"),
    ("certificates", lambda: shown(None), NOT_EVALUATED, "not seen: node-1 (silent)"),
    ("archive", lambda: GOOD, READY, "node-1: all that is full is archived"),
    ("archive", lambda: saying(None), NOT_EVALUATED, "the agent of node-1 does not say it"),
    ("archive", lambda: but(evidence=None), NOT_EVALUATED, "the primary is not known"),
    ("archive", lambda: saying(kept(mode="off")), NOT_EVALUATED, "does not archive its log"),
    ("archive", lambda: saying(kept(by_something=False)), WARNING, "its log piles up"),
    (
        "archive",
        lambda: saying(kept(**FAILED)),
        WARNING,
        "000000010000000000000007 could not be archived at 2025-01-11 12:00:01 UTC; 3 files wait, the first",
    ),
    ("archive", lambda: saying(kept(**FAILED, last_archived_at=None)), WARNING, "could not be archived"),
    (
        "archive",
        lambda: saying(kept(**{**FAILED, "last_archived_at": NOON + timedelta(seconds=2)})),
        READY,
        "all that is full",
    ),
    ("archive", lambda: saying(kept(waiting=2, oldest_waiting_s=601)), WARNING, "the first for 601 s"),
    ("archive", lambda: saying(kept(waiting=2, oldest_waiting_s=599)), READY, "node-1"),
    ("logical slots", lambda: GOOD, READY, "node-1 has none"),
    ("logical slots", lambda: saying(kept("a", "b")), WARNING, "to node-2: a (app), b (app); what reads"),
    ("logical slots", lambda: saying(kept("a"), kept("a", synced=True)), READY, "node-2 keeps all 1 in step"),
    ("logical slots", lambda: saying(kept("a"), kept("a")), WARNING, "a (app)"),
    ("logical slots", lambda: saying(None), NOT_EVALUATED, "the agent of node-1 does not say it"),
    ("logical slots", lambda: but(upkeep={"node-1": kept("a")}), NOT_EVALUATED, "node-2 does not say it"),
    ("logical slots", lambda: but(evidence=None), NOT_EVALUATED, "the primary is not known"),
    ("idle slots", lambda: GOOD, READY, "every slot has its reader"),
    ("idle slots", lambda: but(upkeep={}), NOT_EVALUATED, "no agent says it"),
    ("idle slots", lambda: saying(kept(), idle()), WARNING, "nobody reads them: old on node-2 keeps 7 bytes"),
    ("backup", lambda: GOOD, NOT_EVALUATED, "sets no max_backup_age_s"),
    ("backup", lambda: backed_up(), NOT_EVALUATED, "no agent that answers is told whom to ask"),
    ("backup", lambda: backed_up(3600), READY, "backup 3600, by node-1, is 1.0 h old; allowed are 1.0 h"),
    ("backup", lambda: backed_up(7200, 60), READY, "backup 60, by node-2"),
    ("backup", lambda: backed_up(3601), NOT_READY, "is 1.0 h old"),
    ("backup", lambda: backed_up(None), NOT_READY, "no good backup is found: node-1: no answer"),
    ("backup", lambda: backed_up(None, 60), READY, "backup 60, by node-2"),
]


def one_region() -> Cluster:
    return cluster(node("node-1", "primary"), node("node-2"), node("node-3"))


def on_loopback() -> Cluster:
    """Whose agents nobody else reaches."""
    return cluster(
        node("node-1", "primary", endpoint="http://127.0.0.1:8443"), node("node-2", hostname="localhost")
    )


def shown(days: int | None) -> Facts:
    """node-1 shows a certificate that ends then, and the worker's own ends later."""
    end = None if days is None else NOON + timedelta(days=days)
    own = CertificateSeen(owner="this worker", not_after=NOON + timedelta(days=400))
    return but(certificates=(own, CertificateSeen(owner="node-1", not_after=end, reason="silent")))


def knocked(hours: int) -> Facts:
    refused = RefusedCallers(counts={"certificate_not_listed": 3}, last_at=NOON - timedelta(hours=hours))
    return but(refused={"node-1": refused})


def small_target() -> Facts:
    nodes = [{**n.model_dump(), "capacity": 100.0 if n.node_id == "node-1" else 90.0} for n in WIDE.nodes]
    return but(cluster=changed(WIDE, nodes=nodes))


@pytest.mark.parametrize(("name", "facts", "grade", "reason"), ROWS)
def test_a_check(name: str, facts: Callable[[], Facts], grade: Grade, reason: str) -> None:
    found = check(facts(), name)
    assert found.grade is grade and reason in found.reason, found


def test_every_check_has_its_rows() -> None:
    assert {row[0] for row in ROWS} == {check.name for check in evaluate(GOOD).checks}


def test_an_edit_is_named_by_its_digests_and_an_evaluation_does_not_verify_it() -> None:
    edited = but(policy=policy(max_lag_bytes=99), cluster=changed(WIDE, name="New"))
    found = evaluate(edited)
    assert found.unverified_since_edit == ("topology_digest", "policy_digest")
    assert found.headline == "warning, unverified since edit (topology_digest, policy_digest)"
    assert found.topology_digest == topology_digest(edited.cluster) != topology_digest(WIDE)
    statuses = changed(WIDE, nodes=[{**n.model_dump(), "status": DEGRADED} for n in WIDE.nodes])
    assert evaluate(but(cluster=statuses)).unverified_since_edit == (), "a status is evidence, no edit"


@pytest.mark.parametrize(
    ("facts", "overall"),
    [
        (but(past=Past()), WARNING),
        (but(certificates=None), WARNING),
        (but(dns=None), NOT_EVALUATED),
        (but(record=None), NOT_EVALUATED),
        (but(dns=None, past=Past()), NOT_EVALUATED),
        (but(dns=None, evidence=seen(node_2=None, node_3=None)), NOT_READY),
    ],
)
def test_the_overall_is_the_worst_of_what_counts(facts: Facts, overall: Grade) -> None:
    assert evaluate(facts).grade is overall


NEEDS = {
    "evidence": {
        "target exists",
        "replication lag",
        "standbys",
        "loss of any node",
        "loss of any region",
        "standby capacity",
        "DNS record",
        "archive",
        "logical slots",
    },
    "dns": {"DNS credentials"},
    "record": {"DNS record"},
    "past": {"last drill", "configuration"},
}


@given(st.data(), st.sets(st.sampled_from(sorted(NEEDS)), min_size=1))
def test_what_is_not_known_is_never_ready(data: st.DataObject, missing: set[str]) -> None:
    topology = data.draw(clusters())
    facts = Facts(
        cluster=topology,
        policy=POLICY,
        evidence=data.draw(live_evidence(topology)),
        dns=data.draw(st.sampled_from([None, answers(), answers(first="no")])),
        record=data.draw(st.sampled_from([None, record(), record((OTHER,)), record(second=None)])),
        past=data.draw(st.sampled_from([None, Past(), GOOD.past])),
        now=NOON,
    ).model_copy(update=dict.fromkeys(missing))
    found = evaluate(facts)
    blind = {name for piece in missing for name in NEEDS[piece]}
    assert {c.name for c in found.checks if c.grade is READY} & blind == set()
    assert found.grade is not READY
    if missing & {"evidence", "past"}:
        assert found.grade is not WARNING


@given(st.sets(st.sampled_from([state.node_id for state in SAID]), min_size=1))
def test_the_silence_of_nodes_makes_nothing_better(silent: set[str]) -> None:
    grades = list(Grade)
    whole = evaluate(GOOD)
    part = evaluate(but(evidence=seen(**{name.replace("-", "_"): None for name in silent})))
    assert part.grade is not READY
    for before, after in zip(whole.checks, part.checks, strict=True):
        assert grades.index(after.grade) >= grades.index(before.grade), (before, after)
