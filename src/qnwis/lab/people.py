"""The lab's people and their keys, made with the lab: one of each role, and enough who may override."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime, timedelta

import yaml

from qnwis.continuity.access import Deed, People, Person
from qnwis.continuity.approvals import PendingApproval, VoteRequest
from qnwis.continuity.tokens import Claim, Token
from qnwis.providers.keys import new_key, public_key_of, read_key, sign_claim, write_key

from .layout import Folder

ROLES = {
    "ann": ("continuity_admin",),
    "bob": ("continuity_operator",),
    "carl": ("sre_oncall",),
    "dora": ("continuity_admin",),
    "eve": ("continuity_viewer",),
    "fay": ("continuity_admin",),
}


def make_people(folder: Folder) -> None:
    """Write people.yaml, and a key file for each person."""
    people = []
    for name, roles in ROLES.items():
        key = new_key()
        write_key(folder.key(name), key, person=name)
        people.append(Person(name=name, roles=roles, public_key=public_key_of(key)))
    data = People(people=tuple(people)).model_dump(mode="json")
    (folder.config / "people.yaml").write_text(yaml.safe_dump(data, sort_keys=False))


def token_of(folder: Folder, cluster_id: str, person: str, deed: Deed, **claim: str) -> Token:
    """What this person signs with the key that was made for them."""
    fields = {
        "person": person,
        "deed": deed,
        "cluster_id": cluster_id,
        "nonce": secrets.token_hex(16),
        "expires_at": datetime.now(UTC) + timedelta(minutes=5),
        **claim,
    }
    return sign_claim(Claim.model_validate(fields), read_key(folder.key(person)))


def vote_of(
    folder: Folder, cluster_id: str, person: str, pending: PendingApproval, reason: str
) -> VoteRequest:
    """This person's agreement to the plan that waits."""
    about = {"run_id": pending.run_id, "digest": pending.window.digest, "reason": reason}
    return VoteRequest(token=token_of(folder, cluster_id, person, Deed.APPROVE, **about))
