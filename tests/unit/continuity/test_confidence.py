"""The table of confidence: what full marks, half marks and ceilings come to."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qnwis.continuity.confidence import Band, Signs, band_of, rate
from qnwis.continuity.orders import FencingEvidenceType

PERFECT = Signs(
    checks_passed=9,
    checks_total=9,
    consistent=True,
    fencing=FencingEvidenceType.RELEASED,
    lag_share=0.0,
    quorum_margin=1,
    evidence_age_s=0.1,
)

signs = st.builds(
    lambda total, failed, **others: Signs(
        checks_total=total, checks_passed=max(0, total - failed), **{**others, "consistent": failed == 0}
    ),
    total=st.integers(0, 50),
    failed=st.integers(0, 5),
    fencing=st.none() | st.sampled_from(FencingEvidenceType),
    lag_share=st.none() | st.floats(0, 5),
    quorum_margin=st.integers(-5, 5),
    evidence_age_s=st.none() | st.floats(0, 100),
)


@pytest.mark.parametrize(
    ("score", "band"),
    [
        (100, Band.VERY_HIGH),
        (95, Band.VERY_HIGH),  # the specification's example
        (90, Band.VERY_HIGH),
        (89, Band.HIGH),
        (75, Band.HIGH),
        (74, Band.MEDIUM),
        (50, Band.MEDIUM),
        (49, Band.LOW),
        (25, Band.LOW),
        (24, Band.VERY_LOW),
        (0, Band.VERY_LOW),
    ],
)
def test_the_bands(score: int, band: Band) -> None:
    assert band_of(score) is band


def test_all_that_can_be_known_is_a_hundred() -> None:
    assert rate(PERFECT).score == 100


def test_a_three_node_cluster_that_lost_one_and_fenced_by_hook_is_very_high() -> None:
    confidence = rate(replace(PERFECT, fencing=FencingEvidenceType.HOOK, quorum_margin=0))
    assert (confidence.score, confidence.band) == (95, Band.VERY_HIGH)


@pytest.mark.parametrize(
    ("sign", "value", "lost"),
    [
        ("fencing", FencingEvidenceType.LEASE_EXPIRED, 0),
        ("fencing", FencingEvidenceType.HOOK, 2),
        ("fencing", FencingEvidenceType.ATTESTED, 15),
        ("fencing", FencingEvidenceType.NONE, 25),
        ("fencing", None, 25),
        ("lag_share", 0.1, 0),
        ("lag_share", 0.11, 7),
        ("lag_share", 1.01, 15),
        ("lag_share", None, 15),
        ("quorum_margin", 0, 3),
        ("quorum_margin", -1, 10),
        ("evidence_age_s", 5.0, 0),
        ("evidence_age_s", 6.0, 5),
        ("evidence_age_s", 31.0, 10),
        ("evidence_age_s", None, 10),
    ],
)
def test_each_row_of_the_table(sign: str, value: Any, lost: int) -> None:
    assert rate(replace(PERFECT, **{sign: value})).score == 100 - lost


def test_one_failed_check_among_a_thousand_is_still_low() -> None:
    assert rate(replace(PERFECT, checks_passed=999, checks_total=1000)).band is Band.LOW


def test_an_inconsistent_world_is_very_low_whatever_else_is_well() -> None:
    assert (
        rate(replace(PERFECT, checks_passed=999, checks_total=1000, consistent=False)).band is Band.VERY_LOW
    )


def test_no_checks_earn_nothing() -> None:
    assert rate(replace(PERFECT, checks_passed=0, checks_total=0)).score == 60


@given(signs)
def test_a_score_is_the_sum_of_its_marks_below_its_ceiling(given_signs: Signs) -> None:
    confidence = rate(given_signs)
    assert 0 <= confidence.score <= 100
    assert confidence.score <= sum(mark.points for mark in confidence.marks)
    assert all(0 <= mark.points <= mark.of for mark in confidence.marks)
    assert sum(mark.of for mark in confidence.marks) == 100
    assert confidence.band is band_of(confidence.score)


@given(signs)
def test_knowing_less_is_never_worth_more(given_signs: Signs) -> None:
    known = rate(given_signs).score
    for forgotten in (
        replace(given_signs, fencing=None),
        replace(given_signs, lag_share=None),
        replace(given_signs, evidence_age_s=None),
    ):
        assert rate(forgotten).score <= known
