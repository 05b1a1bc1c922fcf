"""Which orders of a switchover are of the present epoch, and where a promotion may begin."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from qnwis.continuity.handing_over import PresentOrder, epoch_refusal, token_refusal
from qnwis.continuity.orders import DemotionToken, HandOverOrder, PrepareOrder, QuiesceOrder, ResumeOrder

EPOCHS = st.integers(min_value=1, max_value=5)
POSITIONS = st.one_of(st.none(), st.integers(min_value=0, max_value=5))


def orders(epoch: int) -> dict[str, PresentOrder]:
    head = {"effect_id": "e", "run_id": "r", "epoch": epoch}
    return {
        "quiesce": QuiesceOrder(standby="n2", drain_s=1, for_s=2, **head),
        "hand_over": HandOverOrder(return_after_s=1, **head),
        "prepare": PrepareOrder(**head),
        "resume": ResumeOrder(**head),
    }


@given(EPOCHS, EPOCHS, EPOCHS)
def test_a_primary_is_stopped_only_under_the_epoch_that_it_serves_and_nobody_was_promised_another(
    epoch: int, obeyed: int, serves: int
) -> None:
    for kind, order in orders(epoch).items():
        present = epoch == obeyed and (epoch == serves or kind in ("prepare", "resume"))
        refusal = epoch_refusal("n1", order, obeyed=obeyed, serves=serves)
        assert (refusal is None) is present
        assert refusal is None or refusal.rule == "epoch_not_present"


@given(EPOCHS, POSITIONS, POSITIONS, EPOCHS, st.integers(min_value=0, max_value=5))
def test_a_standby_reaches_a_token_by_its_last_record_on_its_timeline(
    timeline: int, receive_lsn: int | None, replay_lsn: int | None, token_timeline: int, token_lsn: int
) -> None:
    token = DemotionToken(timeline=token_timeline, lsn=token_lsn)
    refusal = token_refusal("n2", token, timeline=timeline, receive_lsn=receive_lsn, replay_lsn=replay_lsn)
    if timeline != token_timeline or receive_lsn is None or replay_lsn is None:
        assert refusal is not None and refusal.rule == "token_not_reached"
    else:
        assert (refusal is None) is (receive_lsn > token_lsn and replay_lsn > token_lsn)


def test_a_quiesce_that_ends_before_it_has_drained_is_no_order() -> None:
    with pytest.raises(ValidationError, match="below for_s"):
        QuiesceOrder(effect_id="e", run_id="r", epoch=1, standby="n2", drain_s=2, for_s=2)
