from __future__ import annotations

from math import ceil

import pytest

from clinical_reasoner.serving.rates import Rates


def spend(rates: Rates, per_minute: int, now: float, tries: int = 1000) -> int:
    return sum(rates.allow("a", per_minute, now) == 0 for _ in range(tries))


@pytest.mark.parametrize("per_minute", [1, 7, 120])
def test_exactly_the_rate_passes_at_once(per_minute: int) -> None:
    assert spend(Rates(), per_minute, now=5.0) == per_minute


def test_bucket_fills_evenly_and_not_above_the_rate() -> None:
    rates = Rates()
    assert spend(rates, 60, now=0.0) == 60
    assert spend(rates, 60, now=0.9) == 0
    assert spend(rates, 60, now=10.0) == 10
    assert spend(rates, 60, now=10_000.0) == 60


@pytest.mark.parametrize("per_minute", [1, 7, 60, 119])
def test_the_wait_that_is_told_is_just_long_enough(per_minute: int) -> None:
    rates = Rates()
    spend(rates, per_minute, now=0.0)
    wait_s = rates.allow("a", per_minute, 0.0)
    assert wait_s == pytest.approx(60 / per_minute)
    assert rates.allow("a", per_minute, wait_s * 0.99) > 0
    assert rates.allow("a", per_minute, wait_s) == 0
    assert rates.allow("a", per_minute, wait_s) > 0


def test_refusals_cost_nothing() -> None:
    rates = Rates()
    spend(rates, 60, now=0.0)
    for _ in range(500):
        assert rates.allow("a", 60, 0.5) > 0
    assert rates.allow("a", 60, 1.0) == 0


def test_keys_have_buckets_of_their_own() -> None:
    rates = Rates()
    spend(rates, 5, now=0.0)
    assert rates.allow("a", 5, 0.0) > 0
    assert rates.allow("b", 5, 0.0) == 0


def test_a_lower_rate_holds_at_once() -> None:
    rates = Rates()
    rates.allow("a", 100, 0.0)
    assert spend(rates, 10, now=0.0) == 10


def test_batch_counts_each_patient() -> None:
    rates = Rates()
    assert rates.allow("a", 60, 0.0, cost=45) == 0
    assert rates.allow("a", 60, 0.0, cost=16) == pytest.approx(1.0)
    assert rates.allow("a", 60, 0.0, cost=15) == 0


@pytest.mark.parametrize("per_minute", [1, 10, 120])
@pytest.mark.parametrize("cost", [1, 2, 9, 10, 11, 120, 1000])
def test_batch_of_any_size_passes_after_the_wait_that_is_told(per_minute: int, cost: int) -> None:
    rates, now = Rates(), 0.0
    spend(rates, per_minute, now)
    for attempt in range(3):
        wait_s = rates.allow("a", per_minute, now) or rates.allow("a", per_minute, now, cost=cost, paid=1)
        if wait_s == 0:
            break
        assert attempt < 2, "once for the place of the request, once for the batch"
        now += ceil(wait_s)


def test_what_a_batch_takes_on_credit_is_paid_back_first() -> None:
    rates = Rates()
    assert rates.allow("a", 60, 0.0, cost=600) == 0
    assert rates.allow("a", 60, 0.0) == pytest.approx(541)
    assert rates.allow("a", 60, 540.0) > 0
    assert rates.allow("a", 60, 541.0) == 0
