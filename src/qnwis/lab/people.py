"""The lab's people and their keys, made with the lab: one of each role, and enough who may override."""

from __future__ import annotations

import yaml

from qnwis.continuity.access import People, Person
from qnwis.providers.keys import new_key, public_key_of, write_key

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
