"""The RBAC table: the shipped roles, approval workflows and deeds are those of the specification."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from qnwis.config.access import RBAC
from qnwis.config.load import load_rbac
from qnwis.config.shipped import shipped
from qnwis.continuity.access import PERMISSIONS, Deed, Rbac

from .found import Found, Measured, found

NAME = "rbac"
HOLDS = (
    "roles, permissions and approval workflows are the specification's table; operators start and steer runs,"
    " only admins override, viewers change nothing, and a role or permission that is not there allows nothing"
)
VIEWER, OPERATOR, ADMIN, ONCALL = "continuity_viewer", "continuity_operator", "continuity_admin", "sre_oncall"
ROLES: Mapping[str, frozenset[str]] = {
    VIEWER: frozenset({"continuity:read_status", "continuity:view_audit", "continuity:list_plans"}),
    OPERATOR: frozenset(
        {
            "continuity:read_status",
            "continuity:generate_plan",
            "continuity:simulate",
            "continuity:trigger_manual_failover",
            "continuity:view_audit",
        }
    ),
    ADMIN: frozenset(
        {
            "continuity:*",
            "continuity:configure_policy",
            "continuity:override_constraints",
            "continuity:manage_cluster",
            "continuity:emergency_override",
        }
    ),
}
WORKFLOWS: Mapping[str, tuple[int, frozenset[str], float]] = {
    "manual_failover": (1, frozenset({ADMIN, ONCALL}), 600),
    "emergency_override": (2, frozenset({ADMIN}), 300),
}
"""Approvers, their roles, seconds."""
OVERRIDING = frozenset({Deed.OVERRIDE, Deed.CLOSE_REVIEW})
VOTES = frozenset({Deed.APPROVE, Deed.REJECT})
"""The approval workflow names who may cast one."""
REPORTS = frozenset({Deed.RECORD})
"""What was done without a control plane happened, whoever did it."""


def check(rbac: Rbac | None = None, permissions: Mapping[Deed, str] = PERMISSIONS) -> Found:
    rbac = rbac or load_rbac(shipped("config") / RBAC)
    misses = [*_roles(rbac), *_workflows(rbac), *_deeds(rbac, permissions)]
    return found(NAME, HOLDS, misses, [Measured(what="deeds", value=len(Deed))])


def _roles(rbac: Rbac) -> Iterator[str]:
    for name, expected in ROLES.items():
        role = rbac.role(name)
        given = frozenset(role.permissions) if role is not None else frozenset()
        if given != expected:
            yield f"{name} has {_names(given)}, expected {_names(expected)}"
    if (further := {role.name for role in rbac.roles} - ROLES.keys() - {ONCALL}) != set():
        yield f"there are roles beyond the specification's: {_names(further)}"


def _workflows(rbac: Rbac) -> Iterator[str]:
    for name, expected in WORKFLOWS.items():
        workflow = rbac.approval_workflows.get(name)
        if workflow is None:
            yield f"there is no approval workflow {name}"
            continue
        given = (workflow.required_approvers, frozenset(workflow.allowed_roles), workflow.timeout_sec)
        if given != expected:
            yield f"{name} is {_in_words(given)}, expected {_in_words(expected)}"


def _deeds(rbac: Rbac, permissions: Mapping[Deed, str]) -> Iterator[str]:
    for deed in Deed:
        if deed in VOTES | REPORTS:
            if deed in permissions:
                yield f"{deed.value} needs {permissions[deed]}, expected no permission"
            continue
        if deed not in permissions:
            yield f"{deed.value} needs no permission, expected one"
            continue
        allowed = {
            name
            for name in (*ROLES, ONCALL)
            if (role := rbac.role(name)) is not None and role.allows(permissions[deed])
        }
        expected = {ADMIN} if deed in OVERRIDING else {ADMIN, OPERATOR}
        if allowed != expected:
            yield f"{deed.value} is allowed to {_names(allowed)}, expected {_names(expected)}"
    viewer = rbac.role(VIEWER)
    if rbac.role("nobody") is not None or (viewer is not None and viewer.allows("continuity:unheard_of")):
        yield "a role or a permission that is not there allows something"


def _names(names: frozenset[str] | set[str]) -> str:
    return ", ".join(sorted(names)) or "nothing"


def _in_words(workflow: tuple[int, frozenset[str], float]) -> str:
    approvers, roles, timeout_s = workflow
    return f"{approvers} of {_names(roles)} within {timeout_s:g} s"
