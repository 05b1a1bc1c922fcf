"""Access: who may do what. Roles and approval workflows as `config/rbac/continuity.yaml` has them, people as
`config/continuity/people.yaml` has them.

Source: specification, "Access Control & RBAC". Missing means no: an unknown person, role or permission
allows nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from .model import LONGEST_S, Identifier, Model, at_most_if_stored

EVERYTHING = "continuity:*"
OVERRIDE_CONSTRAINTS = "continuity:override_constraints"

PublicKey = Annotated[str, Field(pattern=r"^ed25519:[A-Za-z0-9+/]{43}=$")]
"""`ed25519:` and the 32 bytes of the key in base64."""


class Deed(StrEnum):
    """What a person does to a run, a guardian or a cluster, and proves by a token signed for it."""

    START = "start"
    SCHEDULE = "schedule"
    """To have a schedule start it, again and again; of a person who starts it now it proves nothing."""
    APPROVE = "approve"
    REJECT = "reject"
    PAUSE = "pause"
    RESUME = "resume"
    ABORT = "abort"
    SKIP = "skip"
    EXTEND = "extend"
    CONFIRM = "confirm"
    ACKNOWLEDGE = "acknowledge"
    OVERRIDE = "override"
    RECORD = "record"
    CLOSE_REVIEW = "close_review"


PERMISSIONS: Mapping[Deed, str] = {
    Deed.START: "continuity:trigger_manual_failover",
    Deed.SCHEDULE: "continuity:trigger_manual_failover",
    Deed.PAUSE: "continuity:trigger_manual_failover",
    Deed.RESUME: "continuity:trigger_manual_failover",
    Deed.ABORT: "continuity:trigger_manual_failover",
    Deed.SKIP: "continuity:trigger_manual_failover",
    Deed.EXTEND: "continuity:trigger_manual_failover",
    Deed.CONFIRM: "continuity:trigger_manual_failover",
    Deed.ACKNOWLEDGE: "continuity:trigger_manual_failover",
    Deed.OVERRIDE: "continuity:emergency_override",
    Deed.CLOSE_REVIEW: "continuity:emergency_override",
}
"""What a deed needs. A vote needs none: the approval workflow names the roles that may cast it.
Nor does the record of what was done without a control plane: it happened, whoever did it."""


class Role(Model):
    name: Identifier
    permissions: tuple[str, ...] = ()
    description: str = ""

    def allows(self, permission: str) -> bool:
        return permission in self.permissions or EVERYTHING in self.permissions


SRE_ONCALL = Role(
    name="sre_oncall",
    permissions=("continuity:read_status", "continuity:view_audit", "continuity:list_plans"),
    description="Reads like a viewer, and votes where an approval workflow allows the role",
)
"""The specification lets this role approve and does not define it; a file that does goes before."""
ALIASES: Mapping[str, str] = {"admin": "continuity_admin", "service": "continuity_operator"}
"""The specification's "All endpoints require `admin` or `service` role". A file that defines a role of such a
name goes before. A service needs to start runs, and never to change what governs them."""


class ApprovalWorkflow(Model):
    """How many people of which roles must agree within which time."""

    required_approvers: int = Field(ge=1)
    allowed_roles: tuple[Identifier, ...] = Field(min_length=1)
    timeout_sec: float = Field(gt=0, le=LONGEST_S)
    """The approval window, seconds."""

    @field_validator("timeout_sec", mode="before")
    @classmethod
    def _at_most(cls, seconds: object, info: ValidationInfo) -> object:
        return at_most_if_stored(LONGEST_S, seconds, info)


class Rbac(Model):
    """Roles and approval workflows."""

    roles: tuple[Role, ...]
    approval_workflows: Mapping[Identifier, ApprovalWorkflow] = {}

    def role(self, name: str) -> Role | None:
        """The role of that name, or the one that the specification's name stands for."""
        return self._defined(name) or self._defined(ALIASES.get(name, ""))

    def _defined(self, name: str) -> Role | None:
        found = next((role for role in self.roles if role.name == name), None)
        return SRE_ONCALL if found is None and name == SRE_ONCALL.name else found

    @model_validator(mode="after")
    def _roles_exist(self) -> Self:
        known = {SRE_ONCALL.name, *(role.name for role in self.roles)}
        for name, workflow in self.approval_workflows.items():
            unknown = sorted(set(workflow.allowed_roles) - known)
            if unknown:
                raise ValueError(
                    f"approval_workflows.{name}.allowed_roles names {', '.join(unknown)}; expected roles that"
                    f" this file defines: {', '.join(sorted(known))}"
                )
        return self


class RbacFile(Model):
    """The content of `config/rbac/continuity.yaml`."""

    rbac: Rbac


class Person(Model):
    """Somebody, or a service, who proves to be it by a signature of their own, or is vouched for."""

    name: str = Field(min_length=1)
    """As records and approvals name them, for example an address."""
    roles: tuple[Identifier, ...] = Field(min_length=1)
    public_key: PublicKey | None = None
    """None for whoever is only vouched for."""
    issuers: tuple[Identifier, ...] = ()
    """Who may say that it is them (`issuers.yaml`), for example an API that they sign in to. By default
    nobody: then only their own key counts."""

    @model_validator(mode="after")
    def _can_prove_it(self) -> Self:
        if self.public_key is None and not self.issuers:
            raise ValueError("expected public_key, or issuers who may vouch for them")
        return self


class People(Model):
    """The content of `config/continuity/people.yaml`."""

    people: tuple[Person, ...] = ()

    @model_validator(mode="after")
    def _told_apart(self) -> Self:
        for what in ("name", "public_key"):
            values = [value for person in self.people if (value := getattr(person, what)) is not None]
            twice = sorted({value for value in values if values.count(value) > 1})
            if twice:
                raise ValueError(
                    f"{what} {twice[0]} is there twice; expected each person once, with a key of their own"
                )
        return self

    def named(self, name: str) -> Person | None:
        return next((person for person in self.people if person.name == name), None)


class Issuer(Model):
    """Who signs in people and then vouches for who it was: the API. It says who, never what they may do."""

    name: Identifier
    public_key: PublicKey


class Issuers(Model):
    """The content of `config/continuity/issuers.yaml`."""

    issuers: tuple[Issuer, ...] = ()

    @model_validator(mode="after")
    def _told_apart(self) -> Self:
        names = [issuer.name for issuer in self.issuers]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"name {twice[0]} is there twice; expected each issuer once")
        return self

    def named(self, name: str) -> Issuer | None:
        return next((issuer for issuer in self.issuers if issuer.name == name), None)


class Access(Model):
    """The files together: what a decision about a person is made from."""

    rbac: Rbac
    people: People = People()
    issuers: Issuers = Issuers()

    @field_validator("people")
    @classmethod
    def _with_the_roles_that_are_meant(cls, people: People, info: ValidationInfo) -> People:
        """Whoever votes is looked up by the names that an approval workflow has, which are the file's own."""
        if (rbac := info.data.get("rbac")) is None:
            return people  # it was refused already
        return People(people=tuple(_meant(person, rbac) for person in people.people))

    def allows(self, person: Person, deed: Deed) -> bool:
        """Whether one of the person's roles gives the permission that the deed needs."""
        permission = PERMISSIONS.get(deed)
        return permission is not None and self.gives(person, permission)

    def gives(self, person: Person, permission: str) -> bool:
        """Whether one of the person's roles gives it."""
        return any(role is not None and role.allows(permission) for role in map(self.rbac.role, person.roles))

    def voters(self, workflow: ApprovalWorkflow, *, initiator: str) -> tuple[Person, ...]:
        """Who may vote in a window of this workflow."""
        return tuple(
            person
            for person in self.people.people
            if person.name != initiator and set(person.roles) & set(workflow.allowed_roles)
        )


def _meant(person: Person, rbac: Rbac) -> Person:
    roles = [name if (role := rbac.role(name)) is None else role.name for name in person.roles]
    return person.model_copy(update={"roles": tuple(dict.fromkeys(roles))})
