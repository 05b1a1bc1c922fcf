"""When the steady state is breached, and what that does."""

from __future__ import annotations

from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qnwis.continuity.steady_state import Answer, DueProbe, Moment, Streaks, Verdict, verdict

NAMES = ("shop", "mail")
probes_of_two = st.tuples(st.integers(1, 4), st.integers(1, 4)).map(
    lambda failures: tuple(
        DueProbe(name=name, timeout_s=1, every_s=1, failures=n)
        for name, n in zip(NAMES, failures, strict=True)
    )
)
answers_of_two = st.lists(st.tuples(st.sampled_from(NAMES), st.booleans()), max_size=20)


@given(probes_of_two, answers_of_two)
def test_a_breach_is_so_many_failures_in_a_row_of_one_probe_up_to_now(
    probes: tuple[DueProbe, ...], answers: list[tuple[str, bool]]
) -> None:
    streaks = Streaks()
    for number, (name, ok) in enumerate(answers):
        streaks = streaks.observe(Answer(probe=name, ok=ok, detail=str(number)))
    breached = []
    for probe in probes:
        own = [ok for name, ok in answers if name == probe.name]
        runs = [(ok, len(list(run))) for ok, run in groupby(own)]
        if runs and not runs[-1][0] and runs[-1][1] >= probe.failures:
            breached.append(probe.name)
    breach = streaks.breach(probes)
    assert (breach.probe if breach is not None else None) == (breached[0] if breached else None)
    if breach is not None:
        assert not breach.ok and answers[int(breach.detail)] == (breach.probe, False)
        assert streaks.settled(probes)


@given(probes_of_two, answers_of_two)
def test_nothing_is_settled_while_a_probe_has_not_answered_well_and_none_is_in_breach(
    probes: tuple[DueProbe, ...], answers: list[tuple[str, bool]]
) -> None:
    streaks = Streaks()
    for name, ok in answers:
        streaks = streaks.observe(Answer(probe=name, ok=ok, detail=""))
    last = dict(answers)
    well = all(last.get(probe.name, False) for probe in probes)
    assert streaks.settled(probes) == (well or streaks.breach(probes) is not None)


@pytest.mark.parametrize(
    ("moment", "past_return", "wanted"),
    [
        (Moment.BEFORE, False, Verdict.REFUSE),
        (Moment.BEFORE, True, Verdict.NOTE),
        (Moment.DURING, False, Verdict.STOP),
        (Moment.DURING, True, Verdict.NOTE),
        (Moment.AFTER, False, Verdict.NOTE),
        (Moment.AFTER, True, Verdict.NOTE),
    ],
)
def test_the_truth_table_of_breaches(moment: Moment, past_return: bool, wanted: Verdict) -> None:
    assert verdict(moment, past_return=past_return) is wanted
