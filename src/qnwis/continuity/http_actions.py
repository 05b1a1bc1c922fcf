"""The actions by which an application that brings its own promote and demote is moved."""

from __future__ import annotations

from typing import Literal

from .model import Model


class HttpDemote(Model):
    """Have the old node's application demote itself, and see that it does not accept writes afterwards; where
    both nodes tell a position, wait until the target has all. Brings the fencing evidence: the application's
    own word."""

    kind: Literal["http_demote"] = "http_demote"
    action_id: str
    node_id: str
    target: str
    """node_id of whoever takes over."""
    estimate_ms: int


class HttpFence(Model):
    """Make certain that the old node cannot write, without asking its application: by the power switch, or on
    a person's word. Brings the fencing evidence."""

    kind: Literal["http_fence"] = "http_fence"
    action_id: str
    node_id: str
    attested_by: str | None = None
    """Who states that it is off; None where the fencing hook switches it off."""
    estimate_ms: int


class HttpPromote(Model):
    """Have the target's application accept writes, and see that it alone does. The point of no return."""

    kind: Literal["http_promote"] = "http_promote"
    action_id: str
    node_id: str
    left: str
    """node_id of the old node, which may not accept writes."""
    estimate_ms: int


HttpAction = HttpDemote | HttpFence | HttpPromote
