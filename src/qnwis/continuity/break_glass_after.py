"""The break-glass steps from the point of no return on."""

from __future__ import annotations

import json

from .break_glass_hands import AGAIN, HANDED_OVER, PROMOTED, Hands, Otherwise, Step
from .break_glass_shell import filled_in, look, psql, tell, tell_text
from .orders import FollowOrder, PromoteOrder, RejoinOrder
from .plan import (
    Action,
    FlipDns,
    PromoteTarget,
    RejoinOldPrimary,
    RepointStandbys,
    RestoreTtl,
    VerifyService,
)

PROMOTE_WITHIN_S, FOLLOW_WITHIN_S = 45.0, 20.0
REJOIN_WITHIN_S = 3600.0
"""A node that cannot be rewound takes a fresh copy of the whole database."""


def promote(action: PromoteTarget, h: Hands) -> Step:
    node, order = h.target, PromoteOrder.model_validate(h.order_head(action))
    if h.hands_over:
        body = filled_in(order, ".at = $from[0].token", f"{HANDED_OVER}.json")
        ordered = tell_text(PROMOTED, node, "/orders", body, within_s=PROMOTE_WITHIN_S)
    else:
        ordered = tell(PROMOTED, node, "/orders", order, within_s=PROMOTE_WITHIN_S)
    released = " released" if h.hands_over else ""
    others = [one for one in h.data_nodes() if one is not node]
    return Step(
        title=f"Promote {node.node_id}",
        does="Has the promises renewed, compares the standbys once more, now that nobody writes, and only"
        f" then orders {node.node_id} to become the primary.",
        commands=h.block(
            look(node),
            "if ! has_begun; then",
            *h.ask_promises(AGAIN),
            f"promised {AGAIN}{released}",
            *(look(one) for one in (node, *others)),
            "target_has_all",
            "fi",
            ordered,
        ),
        see=f"the receipt: {node.node_id} is the primary, on a new timeline. No answer, or 504: the order may"
        " have been obeyed. Paste the block again until it is answered; do not turn back and promote nothing"
        " else. As long as no line `promote:` was ever printed nothing has changed: turn back, and print"
        " the steps again.",
        past_return=True,
        otherwise=(
            Otherwise(
                when=f"UNFENCED, only if the agent of {node.node_id} is gone for good:",
                text="No lease watches over what follows: two primaries are kept apart by you alone. Be"
                f" certain before that {h.primary.node_id} has no power and gets none; that every agent of"
                f" the cluster is stopped and stays so; that no standby is further on than {node.node_id}"
                f" ({psql(node, 'SELECT pg_last_wal_receive_lsn()')} on each); that no order above is still"
                f" on its way. On {node.node_id}, as PostgreSQL's user:",
                commands='pg_ctl promote --wait --pgdata "$PGDATA"\n'
                + psql(node, "SELECT pg_is_in_recovery()"),
            ),
        ),
    )


def repoint(action: RepointStandbys, h: Hands) -> Step:
    lines, nodes = [], [h.cluster.node(node_id) for node_id in action.node_ids]
    for node in nodes:
        order = FollowOrder.model_validate(
            {**h.order_head(action, node.node_id), "upstream": action.upstream}
        )
        name = f"follow-{node.node_id}"
        lines.append(
            tell(name, node, "/orders", order, within_s=FOLLOW_WITHIN_S)
            + f" || echo '{node.node_id} does not follow: go on, and let it rejoin afterwards'"
        )
    target = h.target.database
    upstream = f"host={target.host} port={target.port}" if target else f"host={h.target.hostname}"
    return Step(
        title=f"Let {', '.join(action.node_ids) or 'no other standby'} follow {action.upstream}",
        does="Each standby that is left receives from the new primary. One that is away holds nothing up.",
        commands=h.block(*lines or [":"]),
        see="a receipt of each standby that is there.",
        otherwise=tuple(
            Otherwise(
                when=f"UNFENCED, only if the agent of {node.node_id} is gone and its database runs:",
                text=f"Be certain before that {action.upstream} is the primary (the step before). No agent"
                " keeps this standby's word; let it rejoin when its agent is back. REPLICATION_USER and"
                " STATE_DIR are those of its agent's file; the password is in a file of that directory.",
                commands=psql(
                    node,
                    f"ALTER SYSTEM SET primary_conninfo = '{upstream} user=REPLICATION_USER"
                    f" passfile=STATE_DIR/pgpass application_name={node.node_id}'",
                )
                + "\n"
                + psql(node, "SELECT pg_reload_conf()"),
            )
            for node in nodes
        ),
    )


def flip(action: FlipDns, h: Hands) -> Step:
    if action.record is None:
        return Step(
            title="Move the clients",
            does="No DNS service is configured for this cluster.",
            commands=h.block(f"echo 'move the clients from {action.from_address} to {action.to_address}'"),
            see=f"your clients reach {action.to_address}.",
        )
    return Step(
        title=f"Move {action.record} to {action.to_address}",
        does=f"Only if it is {action.from_address} still; {action.ttl_s} s later no client"
        " keeps the old one.",
        commands=h.block(*h.retold(action.from_address, action.to_address, action.ttl_s)),
        see=f"every server answers {action.to_address}. Where one holds a third address, find out who"
        " changed it.",
    )


def rejoin(action: RejoinOldPrimary, h: Hands) -> Step:
    return Step(
        title=f"Let {action.node_id} follow {action.upstream}",
        does="It ended where the new primary began, and comes back as its standby.",
        commands=h.block(*_rejoin_lines(action.node_id, action, h)),
        see="its receipt: it streams.",
    )


def restore_ttl(action: RestoreTtl, h: Hands) -> Step:
    address = h.flip.to_address
    return Step(
        title=f"Give {action.record} its TTL of {action.to_ttl_s} s again",
        does="The ordinary TTL.",
        commands=h.block(*h.retold(address, address, action.to_ttl_s)),
        see=f"every server answers {address}.",
    )


def verify(action: VerifyService, h: Hands) -> Step:
    came_back = {a.node_id for a in h.plan.actions if isinstance(a, RejoinOldPrimary)}
    repointed = {n for a in h.plan.actions if isinstance(a, RepointStandbys) for n in a.node_ids}
    there = {n for n in repointed | came_back if h.state(h.cluster.node(n)) is not None}
    looks = [look(node) for node in h.data_nodes()]
    writes = "SELECT NOT pg_is_in_recovery() AND NOT current_setting('transaction_read_only')::bool"
    away = ", ".join(sorted(repointed - there)) or "none"
    return Step(
        title=f"See that {action.node_id} serves",
        does=f"Reads the world again. Standbys that were away and may be so still: {away}.",
        commands=h.block(
            *looks,
            f"serves '{json.dumps(sorted(there))}'",
            f'[ "$({psql(h.target, writes)})" = t ]',
        ),
        see=f"`writable` is {action.node_id} alone, `streaming` has every standby that is there. A standby"
        " may need some seconds: paste it again.",
        otherwise=()
        if came_back
        else (
            Otherwise(
                when=f"Once {h.primary.node_id} is back:",
                text="Its agent keeps it down. Let it come back as a standby; what only it has is exported"
                " there first.",
                commands=h.block(*_rejoin_lines(h.primary.node_id, action, h)),
            ),
        ),
    )


def _rejoin_lines(node_id: str, action: Action, h: Hands) -> tuple[str, str]:
    """Under an epoch above what the node has promised, where that is higher: it obeys nothing else."""
    order = RejoinOrder.model_validate({**h.order_head(action, "rejoin"), "upstream": h.target.node_id})
    node = h.cluster.node(node_id)
    above = "if $from[0].epoch > .epoch then .epoch = $from[0].epoch + 1 else . end"
    body = filled_in(order, above, f"state-{node_id}.json")
    return look(node), tell_text(f"rejoin-{node_id}", node, "/orders", body, within_s=REJOIN_WITHIN_S)
