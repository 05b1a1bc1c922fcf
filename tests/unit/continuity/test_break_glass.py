"""Break glass: the printed steps are the planner's plan, their bodies are what agents understand, and what
their shell lets pass is what the run's own gates let pass."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from qnwis.continuity.assessment import assess
from qnwis.continuity.audit import Approval
from qnwis.continuity.break_glass import BreakGlass, agreed_membership, break_glass, markdown
from qnwis.continuity.break_glass_record import Recorded, artefacts_of, draft_of, elapsed_ms, fencing_of
from qnwis.continuity.break_glass_shell import TOOLS
from qnwis.continuity.evidence import ClusterEvidence, NodeState
from qnwis.continuity.lease_messages import LastGrant, Membership, Promised, PromiseRequest, Withdrawal
from qnwis.continuity.membership import MembershipView
from qnwis.continuity.orders import AnyOrder, FencingEvidenceType, PromoteOrder, Receipt
from qnwis.continuity.plan import PromoteTarget
from qnwis.continuity.planner import make_plan
from qnwis.continuity.promises import promotion_gate
from qnwis.continuity.promotion import promotion_refusal
from qnwis.continuity.refusal import Refusal
from qnwis.continuity.run import FailoverRequest, Maintenance
from qnwis.continuity.topology import Cluster, FencingHook
from qnwis.continuity.verifier import verify
from tests.unit.continuity.scenes import (
    NOON,
    SPEC_CLUSTER,
    SPEC_POLICY,
    SYNCHRONOUS,
    changed,
    evidence,
    primary,
    standby,
    with_dns,
)

PROJECT = Path(__file__).parents[3]
CLUSTER = changed(
    with_dns(SPEC_CLUSTER, ttl_s=20, tsig_key_file="/etc/a key.conf"), replication=SYNCHRONOUS.model_dump()
)
LIMITS = SPEC_POLICY.model_copy(update={"min_healthy_nodes": 1})
MEMBERS = Membership(version=3, members=("node-1", "node-2", "node-3"))
DEAD = evidence(CLUSTER, standby("node-2", epoch=4), standby("node-3", epoch=4))
WELL = evidence(CLUSTER, primary("node-1", epoch=4), standby("node-2", epoch=4), standby("node-3", epoch=4))
ORDER: TypeAdapter[AnyOrder] = TypeAdapter(AnyOrder)

MISSING = [tool for tool in ("jq", "bash") if shutil.which(tool) is None]
needs_shell = pytest.mark.skipif(bool(MISSING), reason=f"no {', '.join(MISSING)}: make install-system")


def paper_of(
    said: ClusterEvidence = DEAD, topology: Cluster = CLUSTER, *, maintenance: bool = False
) -> BreakGlass:
    request = FailoverRequest(
        cluster_id=topology.cluster_id,
        initiated_by="break-glass",
        reason="test",
        maintenance=Maintenance() if maintenance else None,
    )
    made = assess(request, topology, LIMITS, said)
    assert made.plan is not None, made.refusal
    return break_glass(made, topology, LIMITS, said, MEMBERS)


FAILOVER, SWITCHOVER = paper_of(), paper_of(WELL, maintenance=True)
BOTH = pytest.mark.parametrize("paper", [FAILOVER, SWITCHOVER], ids=["failover", "switchover"])


# What is printed


def test_the_steps_are_of_the_same_plan_and_digest_that_the_planner_makes() -> None:
    plan = make_plan(CLUSTER, LIMITS, DEAD, trigger_reason="test").plan
    assert plan is not None and (FAILOVER.plan, FAILOVER.digest) == (plan, plan.digest)
    assert FAILOVER.run_id == f"break-glass-{plan.digest.removeprefix('sha256:')[:12]}-5"
    assert FAILOVER.epoch == 5, "above the highest that any agent has obeyed"
    printed = markdown(FAILOVER, record="record it")
    assert plan.digest in printed and "record it" in printed
    assert len(FAILOVER.steps) == 1 + len(plan.actions)


@BOTH
def test_every_body_is_one_that_an_agent_understands(paper: BreakGlass) -> None:
    told = [words for commands in all_commands(paper) for words in tells(commands)]
    assert told
    for words in told:
        url, body = words[2], words[3]
        node = next(n for n in paper.cluster.nodes if url.startswith(n.agent_url))
        match url.removeprefix(node.agent_url):
            case "/lease/promise":
                asked = PromiseRequest.model_validate_json(body)
                assert (asked.membership_version, asked.former_holder) == (MEMBERS.version, None)
            case "/lease/withdraw":
                asked = Withdrawal.model_validate_json(body)
            case "/orders":
                order = ORDER.validate_json(body)
                assert order.effect_id.startswith(f"{paper.run_id}/")
                assert order.run_id == paper.run_id and order.epoch in (paper.epoch, paper.epoch - 1)
                continue
            case other:
                raise AssertionError(other)
        assert (asked.epoch, asked.run_id) == (paper.epoch, paper.run_id)


@BOTH
def test_a_promotion_stands_after_the_promises_of_every_member_and_is_marked_as_past_return(
    paper: BreakGlass,
) -> None:
    (place,) = [n for n, step in enumerate(paper.steps) if step.past_return]
    assert isinstance(paper.plan.actions[place - 1], PromoteTarget)
    before = "\n".join(step.commands for step in paper.steps[:place])
    block = paper.steps[place].commands
    for text in (before, block):
        asked = [words[2] for words in tells(text) if words[2].endswith("/lease/promise")]
        assert {url.removesuffix("/lease/promise") for url in asked} == {
            node.agent_url for node in paper.cluster.nodes
        }
    lines = block.splitlines()
    assert lines.index("target_has_all") < next(n for n, x in enumerate(lines) if "tell promote" in x)
    assert "PromoteOrder" not in before and not [w for w in tells(before) if '"kind":"promote"' in w[3]]
    assert markdown(paper, record="").count("**Point of no return.**") == 1


@BOTH
def test_what_changes_before_the_promotion_says_how_to_turn_back(paper: BreakGlass) -> None:
    place = next(n for n, step in enumerate(paper.steps) if step.past_return)
    kinds = {"fence_primary", "release_primary", "lower_ttl"}
    changing = [n for n in range(1, place) if paper.plan.actions[n - 1].kind in kinds]
    assert changing
    for n in changing:
        assert [o for o in paper.steps[n].otherwise if o.when == "To turn back:"], paper.steps[n].title


@BOTH
def test_only_what_the_promotion_and_the_standbys_have_no_agent_for_is_unfenced(paper: BreakGlass) -> None:
    unfenced = [(s.title, o.text) for s in paper.steps for o in s.otherwise if "UNFENCED" in o.when]
    assert [title for title, _ in unfenced] == ["Promote node-2", "Let node-3 follow node-2"]
    assert all("Be certain" in text for _, text in unfenced)
    assert not any("pg_ctl" in step.commands for step in paper.steps)


@BOTH
def test_a_standby_that_is_repointed_without_its_agent_has_what_it_authenticates_with(
    paper: BreakGlass,
) -> None:
    """The agent takes the upstream away when it promises, so nothing of it is left to keep."""
    (repoint,) = [
        o
        for s in paper.steps
        for o in s.otherwise
        if "UNFENCED" in o.when and "primary_conninfo" in o.commands
    ]
    for placeholder in ("user=REPLICATION_USER", "passfile=STATE_DIR/pgpass"):
        assert placeholder in repoint.commands
        assert placeholder.partition("=")[2].partition("/")[0] in repoint.text


@BOTH
@needs_shell
def test_bash_understands_every_block(paper: BreakGlass) -> None:
    for commands in all_commands(paper):
        checked = subprocess.run(["bash", "-n"], input=commands, text=True, capture_output=True)
        assert (checked.returncode, checked.stderr) == (0, ""), commands


def test_the_tools_of_the_steps_are_among_the_system_packages() -> None:
    packages = {
        "curl": "curl",
        "jq": "jq",
        "psql": "postgresql-client",
        "nsupdate": "bind9-dnsutils",
        "dig": "bind9-dnsutils",
    }
    listed = [
        line.split("#")[0].strip() for line in (PROJECT / "requirements/debian.txt").read_text().splitlines()
    ]
    assert {packages[tool] for tool in TOOLS} <= set(listed)


def test_a_power_switch_is_asked_too_and_the_lease_decides() -> None:
    hook = FencingHook(url="http://power/{node_id}/{state}")
    paper = paper_of(topology=changed(CLUSTER, fencing=hook.model_dump()))
    fence = paper.steps[1].commands
    assert "http://power/node-1/off" in fence and "the lease decides" in fence and "promised promise" in fence


def test_what_only_a_provider_can_do_is_left_to_people_by_name() -> None:
    dns = {"zone": "lab.test", "name": "db", "provider": {"name": "ours"}}
    topology = changed(CLUSTER, fencing={"provider": {"name": "ipmi"}}, dns=dns)
    paper = paper_of(topology=topology)
    fence = paper.steps[1]
    assert "have ipmi switch it off; these steps cannot" in fence.does and "power-off" not in fence.commands
    text = "".join(step.commands for step in paper.steps)
    assert "By hand: ours holds db.lab.test." in text and "update add" not in text


# Without a majority of the agents


@given(
    answering=st.sets(st.sampled_from(["node-1", "node-2", "node-3"])),
    newer=st.booleans(),
)
def test_without_a_majority_of_the_newest_membership_nothing_is_printed(
    answering: set[str], newer: bool
) -> None:
    old = Membership(version=2, members=("node-1", "node-2", "node-9"))
    views = {
        n: MembershipView(node_id=n, disk_id="d", membership=MEMBERS if newer or n == "node-3" else old)
        for n in answering
    }
    found = agreed_membership(CLUSTER, views)
    newest = max((v.membership for v in views.values()), key=lambda m: m.version, default=Membership())
    if newest.members and len(answering & set(newest.members)) >= newest.majority:
        assert found == newest
        return
    assert isinstance(found, Refusal) and found.rule == "no_majority_of_agents"
    assert found.values["answering"] == [m for m in newest.members if m in answering]
    assert "Promote nothing by hand" in found.remedy


# What the shell lets pass


HOLDERS = st.fixed_dictionaries({epoch: st.sampled_from(["node-1", "node-1", "node-3"]) for epoch in (3, 4)})
"""Of each epoch that was granted: one."""


def promise_of(
    member: str, granted: LastGrant | None, *, epoch: int = 5, remaining_s: float = 0.0
) -> Promised:
    return Promised(
        member=member,
        epoch=epoch,
        run_id=FAILOVER.run_id,
        membership_version=MEMBERS.version,
        granted=granted,
        remaining_s=remaining_s,
    )


@needs_shell
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    holders=HOLDERS,
    said=st.dictionaries(
        st.sampled_from(MEMBERS.members),
        st.tuples(
            st.sampled_from([None, 3, 4, 4]),
            st.booleans(),
            st.sampled_from([5, 5, 5, 6]),
            st.sampled_from([0.0, 0.5, 2.25]),
        ),
    ),
)
@example(
    holders={3: "node-1", 4: "node-1"},
    said={
        "node-1": (4, False, 5, 2.25),
        "node-2": (4, False, 5, 0.5),
        "node-3": (4, False, 5, 0.0),
    },
)
def test_the_shell_takes_the_promises_that_the_runs_gate_takes(
    tmp_path: Path, holders: Mapping[int, str], said: Mapping[str, tuple[int | None, bool, int, float]]
) -> None:
    def granted(epoch: int | None, released: bool) -> LastGrant | None:
        if epoch is None:
            return None
        return LastGrant(epoch=epoch, holder=holders[epoch], duration_s=3.0, released=released)

    answers = [
        promise_of(m, granted(of, released), epoch=epoch, remaining_s=0.0 if of is None else left_s)
        for m, (of, released, epoch, left_s) in said.items()
    ]
    asked = PromiseRequest(epoch=5, run_id=FAILOVER.run_id, membership_version=MEMBERS.version)
    gate = promotion_gate(MEMBERS, asked, answers, "node-2")
    fences = not isinstance(gate, Refusal) and gate.holder == "node-1"
    files = {f"promise-{a.member}.json": a.model_dump_json() for a in answers}
    slept = "sleep() { echo slept for $1; }"
    ran = goes_on(tmp_path, files, f"{slept}\npromised promise")
    assert (ran.returncode == 0) is fences
    if fences and not isinstance(gate, Refusal):
        assert f"slept for {gate.wait_s:g}\n" in ran.stdout, "not before the old lease has run out"
        released = gate.evidence is FencingEvidenceType.RELEASED
        ran = goes_on(tmp_path, files, f"{slept}\npromised promise released")
        assert (ran.returncode == 0) is released


@needs_shell
def test_the_shell_takes_no_promise_of_another_membership_or_run(tmp_path: Path) -> None:
    granted = LastGrant(epoch=4, holder="node-1", duration_s=3.0)
    good = [promise_of(member, granted) for member in ("node-2", "node-3")]
    for change in ({}, {"membership_version": 2}, {"run_id": "another"}):
        kept = [good[0], good[1].model_copy(update=change)]
        files = {f"promise-{a.member}.json": a.model_dump_json() for a in kept}
        assert passes(tmp_path, files, "promised promise") is (change == {}), change


@needs_shell
@pytest.mark.parametrize(
    "states",
    [
        (standby("node-2"), standby("node-3")),
        (standby("node-2", 2000), standby("node-3", 1000)),
        (standby("node-2", 1000), standby("node-3", 1001)),
        (standby("node-2"),),
        (standby("node-3"),),
        (standby("node-2"), standby("node-3", timeline=2)),
        (standby("node-2"), standby("node-3", receive_lsn=None)),
        (standby("node-2"), standby("node-3", database_up=False)),
        (standby("node-2"), standby("node-3", system_identifier="7002")),
        (standby("node-2"), standby("node-3"), primary("node-1")),
        (standby("node-2"), standby("node-3"), primary("node-1", writable=False)),
    ],
)
def test_the_shell_lets_the_target_be_promoted_that_the_run_would_promote(
    tmp_path: Path, states: tuple[NodeState, ...]
) -> None:
    refusal = promotion_refusal(FAILOVER.plan, CLUSTER, LIMITS, evidence(CLUSTER, *states))
    files = {f"state-{state.node_id}.json": state.model_dump_json() for state in states}
    assert passes(tmp_path, files, "target_has_all") is (refusal is None), refusal


@needs_shell
def test_a_promotion_that_was_obeyed_is_known_again(tmp_path: Path) -> None:
    before = {"state-node-2.json": standby("node-2", epoch=5).model_dump_json()}
    after = {"state-node-2.json": primary("node-2", epoch=5).model_dump_json()}
    assert not passes(tmp_path, before, "has_begun") and passes(tmp_path, after, "has_begun")
    granted = LastGrant(epoch=5, holder="node-2", duration_s=3.0)
    halfway = {f"again-{m}.json": promise_of(m, granted).model_dump_json() for m in MEMBERS.members[1:]}
    assert passes(tmp_path, halfway, "promised again"), "its lease was granted, so it had passed here"


CURL = """#!{python}
import pathlib, sys
url = next(word for word in sys.argv if word.startswith("http"))
answer = pathlib.Path("{answers}") / url.rpartition("//")[2].replace("/", "_")
with open("{asked}", "a") as log:
    log.write(url + "\\n")
if not answer.exists():
    sys.exit(7)
pathlib.Path(sys.argv[sys.argv.index("-o") + 1]).write_text(answer.read_text())
print(200, end="")
"""


@needs_shell
@pytest.mark.parametrize(
    ("promising", "other_lsn", "ordered"),
    [
        (("node-2", "node-3"), 1000, True),
        (("node-2",), 1000, False),
        ((), 1000, False),
        (("node-2", "node-3"), 1001, False),
        (("node-2", "node-3"), None, False),
    ],
)
def test_the_pasted_promotion_sends_its_order_only_past_every_gate(
    tmp_path: Path, promising: tuple[str, ...], other_lsn: int | None, ordered: bool
) -> None:
    answers, asked, program = tmp_path / "answers", tmp_path / "asked", tmp_path / "bin" / "curl"
    answers.mkdir()
    program.parent.mkdir()
    program.write_text(CURL.format(python=sys.executable, answers=answers, asked=asked))
    program.chmod(0o755)

    def answer(node_id: str, path: str, text: str) -> None:
        url = CLUSTER.node(node_id).agent_url + path
        (answers / url.rpartition("//")[2].replace("/", "_")).write_text(text)

    granted = LastGrant(epoch=4, holder="node-1", duration_s=3.0)
    for member in promising:
        answer(member, "/lease/promise", promise_of(member, granted).model_dump_json())
    answer("node-2", "/state", standby("node-2", 1000).model_dump_json())
    if other_lsn is not None:
        answer("node-3", "/state", standby("node-3", other_lsn).model_dump_json())
    answer("node-2", "/orders", "{}")
    (promotion,) = [step.commands for step in FAILOVER.steps if step.past_return]

    ran = paste(tmp_path, {}, promotion, path=str(program.parent))

    assert (ran.returncode == 0) is ordered, ran.stdout
    assert any(url.endswith("/orders") for url in asked.read_text().splitlines()) is ordered


def test_a_promote_order_takes_the_token_of_the_hand_over() -> None:
    (place,) = [n for n, step in enumerate(SWITCHOVER.steps) if step.past_return]
    line = next(x for x in SWITCHOVER.steps[place].commands.splitlines() if "tell promote" in x)
    assert ".at = $from[0].token" in line and "hand-over.json" in line
    (words,) = tells(line)
    assert isinstance(ORDER.validate_json(words[3]), PromoteOrder)


# The record


def test_kept_promises_are_the_fencing_evidence_and_else_a_persons_word_is() -> None:
    granted = LastGrant(epoch=4, holder="node-1", duration_s=3.0)
    kept = {f"promise-{m}": promise_of(m, granted).model_dump_json() for m in ("node-2", "node-3")}

    def found(answers: dict[str, str], attested: str | None = None) -> FencingEvidenceType | None:
        evidence = fencing_of(FAILOVER, answers, attested=attested, by="bob", at=NOON)
        return None if evidence is None else evidence.type

    assert found(kept) is FencingEvidenceType.LEASE_EXPIRED
    assert found(kept, "it is off") is FencingEvidenceType.LEASE_EXPIRED
    one = {"promise-node-2": kept["promise-node-2"]}
    assert found(one) is None and found(one, "the plug is out") is FencingEvidenceType.ATTESTED
    others = {name: text.replace('"epoch":5', '"epoch":6') for name, text in kept.items()}
    assert found(others) is None, "they were given to another run"
    assert found({"promise-node-2": '{"rule":"epoch_gone"}', "promise-node-3": "half a fi"}) is None


def test_the_record_says_that_it_was_written_afterwards_and_what_was_found() -> None:
    fencing = fencing_of(FAILOVER, {}, attested="the plug is out", by="bob", at=NOON)
    later = NOON + timedelta(minutes=5)
    new = primary("node-2", timeline=2, epoch=5)
    after = evidence(CLUSTER, new, standby("node-3", upstream="node-2", timeline=2), at=later)
    receipt = Receipt(
        effect_id="e", changed=True, epoch=5, detail="d", at=NOON + timedelta(seconds=30)
    ).model_dump_json()
    took_ms = elapsed_ms(FAILOVER, {"promote": receipt}, now=later)
    assert took_ms == 30_000
    report = verify(
        *(FAILOVER.plan, CLUSTER, LIMITS, DEAD, after),
        fencing=fencing,
        dns={"127.0.0.1:53": ("10.0.1.11",)},
        elapsed_ms=took_ms,
        epoch=5,
    )
    recorded = Recorded(
        by="bob",
        roles=(),
        recorded_at=later,
        reason="no Temporal",
        attested="the plug is out",
        read_again_and_found=tuple(c.name for c in report.checks if c.ok),
        read_again_and_missed=tuple(c.name for c in report.failures),
    )
    answers = {"promote": receipt, "broken": "{"}
    draft = draft_of(FAILOVER, answers, recorded, report)
    assert report.passed, report.failures
    assert (draft.operation, draft.initiated_by, draft.role) == ("break_glass", "bob", "unauthenticated")
    assert draft.result.success and (draft.result.duration_ms, draft.result.actions_executed) == (30_000, 1)
    assert draft.approval == Approval(required=True), "the policy asks for it, and nobody was asked"
    assert draft.reason == "no Temporal (carried out by hand, and recorded afterwards by bob)"
    texts = artefacts_of(FAILOVER, answers, recorded, report, fencing=fencing, after=after)
    assert json.loads(texts["recorded"])["recorded_afterwards"] is True
    assert "one_writable_node" in json.loads(texts["recorded"])["read_again_and_found"]
    assert json.loads(texts["answers"])["broken"] == "{"
    assert BreakGlass.model_validate_json(texts["steps"]) == FAILOVER


# What the above need


def all_commands(paper: BreakGlass) -> list[str]:
    return [c for s in paper.steps for c in (s.commands, *(o.commands for o in s.otherwise))]


def tells(commands: str) -> list[list[str]]:
    """Every `tell` as the shell splits it; a body that jq fills in is as it begins."""
    found = []
    for line in commands.splitlines():
        start = line.find("tell ")
        if start < 0 or line.lstrip().startswith("tell()") or "http" not in line:
            continue
        if "<<< " in line:
            name, url = line[start:].split()[1:3]
            body = shlex.split(line.split("<<< ")[1].removesuffix(')"'))[0]
            found.append(["tell", name, url, body])
        else:
            found.append(shlex.split(line[start:])[:4])
    return [words for words in found if "power-off" not in words[1]]


def passes(folder: Path, files: Mapping[str, str], check: str) -> bool:
    """Whether bash goes on after this check, with these answers kept."""
    return goes_on(folder, files, check).returncode == 0


def goes_on(folder: Path, files: Mapping[str, str], check: str) -> subprocess.CompletedProcess[str]:
    return paste(folder, files, f"( . ./{FAILOVER.run_id}/functions.sh\n{check}\n)")


def paste(
    folder: Path, files: Mapping[str, str], block: str, *, path: str = ""
) -> subprocess.CompletedProcess[str]:
    """What bash comes to with this block, with these answers kept; `path` goes before its own."""
    here = folder / FAILOVER.run_id
    shutil.rmtree(here, ignore_errors=True)
    make = FAILOVER.steps[0].commands.partition("\n( . ")[0]
    subprocess.run(["bash", "-c", make], cwd=folder, check=True)
    for name, text in files.items():
        (here / name).write_text(text)
    env = {**os.environ, "PATH": f"{path}:{os.environ['PATH']}"}
    ran = subprocess.run(["bash", "-c", block], cwd=folder, env=env, capture_output=True, text=True)
    assert ran.stdout.endswith("==> go on\n" if ran.returncode == 0 else "==> STOP\n"), ran
    return ran
