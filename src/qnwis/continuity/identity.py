"""Identity: who asks through the API, and whether the roles that they came with allow it.

Roles come from a token's claims or a service token's entry; permissions are exactly those of
`config/rbac/continuity.yaml`. The specification's `admin` and `service` stand for roles of that file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

from pydantic import Field, JsonValue

from .access import Rbac
from .model import Model
from .refusal import Refusal


class Permission(StrEnum):
    """Every permission of `config/rbac/continuity.yaml`; each guards something."""

    READ_STATUS = "continuity:read_status"
    VIEW_AUDIT = "continuity:view_audit"
    LIST_PLANS = "continuity:list_plans"
    GENERATE_PLAN = "continuity:generate_plan"
    SIMULATE = "continuity:simulate"
    TRIGGER = "continuity:trigger_manual_failover"
    CONFIGURE_POLICY = "continuity:configure_policy"
    OVERRIDE_CONSTRAINTS = "continuity:override_constraints"
    MANAGE_CLUSTER = "continuity:manage_cluster"
    EMERGENCY_OVERRIDE = "continuity:emergency_override"


class Identity(Model):
    """A person or a service whose credentials were good."""

    name: str = Field(min_length=1)
    roles: tuple[str, ...]
    by: str
    """What showed it: `jwt <issuer>` or `service token <id>`."""


def may(identity: Identity, permission: Permission, rbac: Rbac) -> bool:
    """Whether one of the roles gives it. An unknown role gives nothing."""
    roles = map(rbac.role, identity.roles)
    return any(role is not None and role.allows(permission.value) for role in roles)


def permission_refusal(identity: Identity, permissions: Sequence[Permission], rbac: Rbac) -> Refusal | None:
    """Why the identity may not do what needs all of these."""
    missing = [permission.value for permission in permissions if not may(identity, permission, rbac)]
    if not missing:
        return None
    values: dict[str, JsonValue] = {
        "identity": identity.name,
        "roles": [*identity.roles],
        "missing": [*missing],
        "roles_that_allow": [role.name for role in rbac.roles if all(role.allows(one) for one in missing)],
    }
    return Refusal(
        rule="permission_missing",
        message=f"{identity.name} ({', '.join(identity.roles) or 'no role'}) lacks {', '.join(missing)}",
        values=values,
        remedy="Let somebody with a role that allows it do this (config/rbac/continuity.yaml).",
    )


def claimed_roles(claims: Mapping[str, Any], path: str, names: Mapping[str, str]) -> tuple[str, ...]:
    """The roles at a dotted path of a token's claims, renamed by `names`; anything but texts is no role."""
    found: Any = claims
    for part in path.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    listed = found.split() if isinstance(found, str) else found if isinstance(found, list) else []
    return tuple(dict.fromkeys(names.get(role, role) for role in listed if isinstance(role, str)))
