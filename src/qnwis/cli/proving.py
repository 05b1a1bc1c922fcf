"""Who types, for what a command does and records without Temporal: proved by key, or only claimed."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from qnwis.config.access import AccessFiles
from qnwis.continuity.access import Deed, Person
from qnwis.continuity.refusal import Refusal
from qnwis.continuity.tokens import Expected, Token, proved
from qnwis.providers.keys import verify as verify_signature

from .output import refuse
from .signing import Me

PeopleDir = Annotated[
    Path | None,
    typer.Option(envvar="QNWIS_CONFIG_DIR", help="Where people.yaml is, to prove who you are by --key."),
]


def proved_here(
    who: Me, expected: Expected, reason: str, config_dir: Path | None, *, as_json: bool
) -> tuple[Person | None, Token | None]:
    """Who it is, by their key and people.yaml; without both, a name that the record calls unauthenticated.
    Ends the command where the proof is none."""
    token = who.token(
        Deed.RECORD,
        cluster_id=expected.cluster_id,
        run_id=expected.run_id,
        digest=expected.digest,
        reason=reason,
    )
    if token is None or config_dir is None:
        return None, token
    access = AccessFiles(config_dir).load()
    person = proved(token, expected, who.name, access, datetime.now(UTC), verify_signature)
    if isinstance(person, Refusal):
        refuse(person, as_json=as_json)
    return person, token
