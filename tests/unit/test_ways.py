"""Every kind of action can be asked for, and what the stepper undoes can be undone."""

from __future__ import annotations

from typing import get_args

from qnwis.continuity.executor import REVERSIBLE
from qnwis.continuity.plan import Action, VerifyService
from workflows.ways import WAYS

KINDS = {kind.model_fields["kind"].default: kind for kind in get_args(get_args(Action)[0])}


def test_every_kind_of_action_but_the_verification_has_a_way() -> None:
    assert set(WAYS) == set(KINDS.values()) - {VerifyService}


def test_exactly_what_the_stepper_undoes_can_be_undone() -> None:
    undone = {name for name, kind in KINDS.items() if kind in WAYS and WAYS[kind].undo is not None}
    assert undone == REVERSIBLE
