"""Each action of a plan as a step for a person: the same orders, ids and checks as a run's own effects."""

from __future__ import annotations

from . import break_glass_after as after
from . import break_glass_before as before
from .break_glass_hands import Hands, Step
from .break_glass_shell import functions, prepare, psql
from .http_actions import HttpDemote, HttpFence, HttpPromote
from .patroni_actions import (
    PatroniDemoteCluster,
    PatroniFailover,
    PatroniFenceCluster,
    PatroniPromoteCluster,
    PatroniSwitchover,
)
from .plan import (
    Action,
    FencePrimary,
    FlipDns,
    ForceMembership,
    LowerTtl,
    PrepareNodes,
    PromoteTarget,
    RejoinOldPrimary,
    ReleasePrimary,
    RepointStandbys,
    RestoreTtl,
    VerifyService,
)


def first_step(h: Hands) -> Step:
    text = functions(
        run_id=h.run_id,
        epoch=h.epoch,
        version=h.membership.version,
        majority=h.membership.majority,
        primary=h.primary.node_id,
        target=h.target.node_id,
        needed=h.needed,
        allowed_lag_bytes=h.allowed_lag_bytes,
    )
    log_in = f'[ "$({psql(h.target, "SELECT pg_is_in_recovery()")})" = t ]'
    return Step(
        title="Make ready",
        does=f"Makes the folder `{h.run_id}`, in which every answer is kept, and checks the tools and the"
        f" login to {h.target.node_id}. Changes nothing. Before: let psql log in by itself (PGUSER and"
        " PGPASSWORD, or ~/.pgpass), and stand on a machine that reaches every agent"
        + (" and can read the TSIG key." if h.cluster.dns and h.cluster.dns.tsig_key_file else "."),
        commands=prepare(h.run_id, text, [log_in]),
        see="the path of each tool, and `==> go on`.",
    )


def step_of(action: Action, h: Hands) -> Step:
    match action:
        case FencePrimary():
            return before.fence(action, h)
        case ForceMembership():
            raise AssertionError("a plan by hand gives no node up")
        case LowerTtl():
            return before.lower_ttl(action, h)
        case PrepareNodes():
            return before.prepare(action, h)
        case ReleasePrimary():
            return before.release(action, h)
        case PromoteTarget():
            return after.promote(action, h)
        case RepointStandbys():
            return after.repoint(action, h)
        case FlipDns():
            return after.flip(action, h)
        case RejoinOldPrimary():
            return after.rejoin(action, h)
        case RestoreTtl():
            return after.restore_ttl(action, h)
        case (
            PatroniSwitchover()
            | PatroniFailover()
            | PatroniDemoteCluster()
            | PatroniFenceCluster()
            | PatroniPromoteCluster()
        ):
            raise AssertionError("by hand, Patroni is driven by patronictl")
        case HttpDemote() | HttpFence() | HttpPromote():
            raise AssertionError("by hand, an application is asked by its own means")
        case VerifyService():
            return after.verify(action, h)
