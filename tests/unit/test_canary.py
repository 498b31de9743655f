"""When a canary is withdrawn: exact numbers, no clock, no database."""

from __future__ import annotations

import random
from fractions import Fraction
from itertools import combinations
from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotage.wms.canary import Outcomes, likelihood, withdraw

FEW = st.integers(0, 25)
SIDE = st.builds(Outcomes, FEW, FEW)


def test_the_lady_tasting_tea() -> None:
    """Fisher's own example: 8 cups, 4 of them told rightly by chance once in 70."""
    assert likelihood(Outcomes(good=0, failed=4), Outcomes(good=4, failed=0)) == pytest.approx(1 / 70)
    assert likelihood(Outcomes(good=1, failed=3), Outcomes(good=3, failed=1)) == pytest.approx(17 / 70)


def test_it_is_the_part_of_all_ways_to_deal_out_the_failures() -> None:
    """Every way counted by hand."""
    canary, other = Outcomes(good=2, failed=3), Outcomes(good=5, failed=1)
    pilots, failed = range(11), 4  # the first five are the canary's
    ways = [sum(pilot < 5 for pilot in chosen) for chosen in combinations(pilots, failed)]
    assert likelihood(canary, other) == sum(n >= 3 for n in ways) / len(ways)


@given(canary=SIDE, other=SIDE)
def test_it_is_the_sum_of_its_terms(canary: Outcomes, other: Outcomes) -> None:
    mine, theirs, failed = sum(canary), sum(other), canary.failed + other.failed
    terms = [comb(mine, n) * comb(theirs, failed - n) for n in range(canary.failed, min(mine, failed) + 1)]
    assert likelihood(canary, other) == float(Fraction(sum(terms), comb(mine + theirs, failed)))


@given(canary=SIDE, other=SIDE)
def test_one_more_failure_never_speaks_for_the_canary(canary: Outcomes, other: Outcomes) -> None:
    worse = Outcomes(canary.good, canary.failed + 1)
    if withdraw(canary, other):
        assert withdraw(worse, other)
    assert withdraw(Outcomes(canary.good, min(canary.failed, 4)), other) is None, "fewer than five say nothing"


def test_nobody_to_be_compared_with() -> None:
    assert Outcomes().rate is None
    assert withdraw(Outcomes(0, 100), Outcomes()) is None
    assert withdraw(Outcomes(), Outcomes(0, 100)) is None


@pytest.mark.parametrize(
    "canary,other,gone",
    [
        (Outcomes(0, 5), Outcomes(5, 0), True),
        (Outcomes(0, 5), Outcomes(2, 0), False),  # chance would do that once in 21
        (Outcomes(0, 4), Outcomes(1000, 0), False),  # four are not enough, however sure it is
        (Outcomes(95, 5), Outcomes(1000, 0), True),
        (Outcomes(900, 100), Outcomes(9400, 600), False),  # sure, but not twice as many
        (Outcomes(800, 200), Outcomes(9400, 600), True),
        (Outcomes(5, 5), Outcomes(50, 50), False),
        (Outcomes(100, 0), Outcomes(0, 100), False),  # better
    ],
)
def test_what_is_markedly_more_often(canary: Outcomes, other: Outcomes, gone: bool) -> None:
    assert (withdraw(canary, other) is not None) == gone


def test_the_reason_is_a_sentence_with_its_numbers() -> None:
    assert withdraw(Outcomes(1, 9), Outcomes(40, 2)) == (
        "9 of 10 pilots failed, against 2 of 42 of the current configuration (p = 1.4e-07)"
    )


def test_a_hundred_thousand_pilots_are_no_work() -> None:
    """Exact, and asked for every few seconds: the terms follow from one another."""
    assert withdraw(Outcomes(45_000, 5_000), Outcomes(54_000, 2_400)) is not None
    assert withdraw(Outcomes(45_000, 2_200), Outcomes(54_000, 2_400)) is None


def test_looking_again_and_again_seldom_withdraws_a_good_one() -> None:
    """Looked at after each pilot, up to a thousand: what the page says of wrong withdrawals holds."""
    drawn = random.Random(7)
    gone = sum(_tried(drawn, share=0.2, rate=0.1, n=1000) for _ in range(200))
    assert gone <= 0.08 * 200


def _tried(drawn: random.Random, share: float, rate: float, n: int) -> bool:
    sides = {True: [0, 0], False: [0, 0]}
    for _ in range(n):
        mine = drawn.random() < share
        sides[mine][drawn.random() < rate] += 1
        if mine and withdraw(Outcomes(*sides[True]), Outcomes(*sides[False])):
            return True
    return False
