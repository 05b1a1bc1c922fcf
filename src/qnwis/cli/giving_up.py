"""The options of an emergency override, the same for `plan` and `execute`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from qnwis.continuity.override import GiveUp

from .output import Exit, fail

Override = Annotated[
    bool,
    typer.Option(
        "--override", help="Go past the policy's limits; awaits the approval workflow emergency_override."
    ),
]
Lost = Annotated[
    list[str] | None,
    typer.Option(
        "--lost",
        help="With --override: a node that is gone, once for each, the primary among them. The cluster goes"
        " on without them and without a majority's word: the guarantee of a single primary is suspended.",
    ),
]
AttestOff = Annotated[
    bool,
    typer.Option("--attest-off", help="With --lost: you state that these nodes are off; recorded by name."),
]


def given_up(lost: Sequence[str] | None, attest_off: bool, who: str, *, override: bool) -> GiveUp | None:
    """Ends the command where the options do not go together."""
    if not lost and not attest_off:
        return None
    if not lost or not override:
        fail(Exit.USAGE, "--lost goes with --override, and --attest-off with --lost")
    return GiveUp(node_ids=tuple(lost), attested_by=who if attest_off else None)
