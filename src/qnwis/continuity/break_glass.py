"""Break glass: the plan of a run as steps for a person with psql and a shell, when the control plane is gone.

The same planner, the same plan, the same digest, and the same fence: a majority of the agents promises the
epoch before anything is promoted, and what a person leaves out no agent makes up for by serving without a
lease. `break_glass_steps` has the step of each action, `break_glass_shell` what they are written in.
"""

from __future__ import annotations

from collections.abc import Mapping

from .break_glass_hands import Hands, Step
from .break_glass_steps import first_step, step_of
from .evidence import ClusterEvidence
from .lease_messages import Membership
from .membership import MembershipView
from .model import Model
from .plain_text import plain
from .plan import Plan
from .policy import Policy
from .refusal import Refusal
from .run import Assessment
from .targets import survey
from .topology import Cluster


class BreakGlass(Model):
    """What `break-glass plan` prints, and `break-glass record` reads when it was carried out."""

    run_id: str
    """`break-glass-<digest>-<epoch>`: a plan that is carried out again has another epoch."""
    epoch: int
    digest: str
    """Of the plan; the same as every other reader's."""
    plan: Plan
    cluster: Cluster
    policy: Policy
    membership: Membership
    before: ClusterEvidence
    """What the agents said when it was printed."""
    predicted_loss_bytes: int | None
    notes: tuple[str, ...]
    steps: tuple[Step, ...]


def agreed_membership(cluster: Cluster, views: Mapping[str, MembershipView]) -> Membership | Refusal:
    """The newest membership that is known of, if a majority of its agents answers; else why nothing
    can be fenced.

    `views` are the answers by node_id.
    """
    newest = max((view.membership for view in views.values()), key=lambda m: m.version, default=Membership())
    answering = [member for member in newest.members if member in views]
    if newest.members and len(answering) >= newest.majority:
        return newest
    expected = newest.members or tuple(node.node_id for node in cluster.nodes)
    silent = [node_id for node_id in expected if node_id not in views]
    needed = len(expected) // 2 + 1
    return Refusal(
        rule="no_majority_of_agents",
        message=f"{len(answering)} of the {len(expected)} agents of {cluster.cluster_id} answer as members,"
        f" {needed} must: without a majority's promise nothing keeps the old primary from writing.",
        values={"answering": [*answering], "silent": [*silent], "needed": needed},
        remedy=f"Reach or start more of the agents of {', '.join(silent) or 'the cluster'} (each needs only"
        " its own machine), and print the steps again. Promote nothing by hand before.",
    )


def break_glass(
    made: Assessment, cluster: Cluster, policy: Policy, evidence: ClusterEvidence, membership: Membership
) -> BreakGlass:
    """The steps of a plan that `assess` made on this evidence."""
    plan = made.plan
    assert plan is not None, "a refused plan has no steps"
    run_id = f"break-glass-{plan.digest.removeprefix('sha256:')[:12]}-{made.epoch}"
    view = survey(cluster, policy, evidence, plan.primary_node_id)
    hands = Hands(
        run_id=run_id,
        epoch=made.epoch,
        plan=plan,
        cluster=cluster,
        evidence=evidence,
        membership=membership,
        needed=view.coverage().needed if view.synchronous else 1,
        allowed_lag_bytes=0 if view.synchronous else policy.max_lag_bytes,
    )
    return BreakGlass(
        run_id=run_id,
        epoch=made.epoch,
        digest=plan.digest,
        plan=plan,
        cluster=cluster,
        policy=policy,
        membership=membership,
        before=evidence,
        predicted_loss_bytes=made.predicted_loss_bytes,
        notes=made.notes,
        steps=(first_step(hands), *(step_of(action, hands) for action in plan.actions)),
    )


def markdown(paper: BreakGlass, *, record: str) -> str:
    """The steps to print. Blocks marked `bash` are pasted in order; those marked `console` only when their
    text applies. `record` is the command that records it afterwards."""
    return "\n".join([*_head(paper), *(line for n, s in enumerate(paper.steps) for line in _told(n, s))]) + (
        f"\n## Afterwards\n\nWhen the world can be written down again, record what was done:\n\n"
        f"```console\n{record}\n```\n"
    )


def _head(paper: BreakGlass) -> list[str]:
    plan, loss = paper.plan, paper.predicted_loss_bytes
    taken_at = paper.before.taken_at
    said = [(e.node_id, e.error or _in_words(paper.before, e.node_id)) for e in paper.before.nodes]
    return [
        f"# Break glass: {plan.cluster_id}, {plan.primary_node_id} → {plan.failover_target_id}",
        "",
        f"Plan `{plan.plan_id}`, digest `{paper.digest}`.",
        f"Run id `{paper.run_id}`, epoch {paper.epoch}.",
        f"Predicted loss: {'not known' if loss is None else f'{loss} bytes of write-ahead log'}.",
        f"Made from what the agents said at {'-' if taken_at is None else taken_at.isoformat()}:",
        "",
        *(f"- {node_id}: {plain(text)}" for node_id, text in said),
        *(f"- {plain(note)}" for note in paper.notes),
        "",
        "Read all of it first. One person carries it out, in bash, in one directory, block after block, and"
        " goes on only when the last line of a block says `==> go on` and what is to be seen is seen. A block"
        " may be pasted again. If the cluster changed since it was printed, print it anew. Nobody else may"
        " act on this cluster meanwhile; a control plane that comes back has to be paused first"
        " (`qnwis-continuity guardian pause`).",
        "",
    ]


def _in_words(evidence: ClusterEvidence, node_id: str) -> str:
    state = evidence.of(node_id).state
    if state is None or not state.database_up:
        return f"its agent answers, epoch {state.epoch}" if state else "does not answer"
    does = "accepts writes" if state.writable else f"follows {state.upstream}"
    return f"{does}, timeline {state.timeline}, epoch {state.epoch}"


def _told(number: int, step: Step) -> list[str]:
    mark = (
        ["**Point of no return.** From the order on there is only forward.", ""] if step.past_return else []
    )
    told = [f"## {number}. {step.title}", "", step.does, "", *mark, "```bash", step.commands, "```", ""]
    told += [f"To be seen: {step.see}", ""]
    for other in step.otherwise:
        told += [f"*{other.when}* {other.text}", "", "```console", other.commands, "```", ""]
    return told
