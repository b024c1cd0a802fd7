"""Temperature scaling: a known temperature is found again, and what cannot be calibrated says why."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from clinical_reasoner.distillation.calibration import (
    FLOOR,
    HIGHEST,
    LOWEST,
    Calibration,
    apply_temperature,
    expected_calibration_error,
    fit_calibration,
    negative_log_likelihood,
)

Cases = tuple[list[tuple[float, ...]], list[int]]


def answered(temperature: float, visits: int = 10_000, labels: int = 3, seed: int = 0) -> Cases:
    """Probabilities that say how often they are right, made surer than that by `temperature` > 1, or less sure."""
    rng = np.random.default_rng(seed)
    honest = rng.dirichlet(np.ones(labels), size=visits)  # few below the floor once they are too sure
    truth = [int(rng.choice(labels, p=one)) for one in honest]
    return [tuple(one) for one in apply_temperature(honest, 1 / temperature).tolist()], truth


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7, 3.0])
def test_a_known_temperature_is_found_again(temperature: float) -> None:
    found = fit_calibration(*answered(temperature))
    assert found.temperature == pytest.approx(temperature, rel=0.05)
    assert found.nll_after <= found.nll_before
    assert found.ece_after < 0.02
    assert (found.visits, found.without_probabilities) == (10_000, 0)
    if temperature != 1.0:
        assert found.ece_before > 2 * found.ece_after


def test_fitted_temperature_is_the_best_of_a_grid() -> None:
    probabilities, truth = answered(2.0, visits=300)
    found = fit_calibration(probabilities, truth)
    grid = np.exp(np.linspace(np.log(LOWEST), np.log(HIGHEST), 2001))
    losses = [negative_log_likelihood(apply_temperature(probabilities, one), truth) for one in grid]
    assert found.nll_after <= min(losses) + 1e-9
    assert found.temperature == pytest.approx(grid[int(np.argmin(losses))], rel=0.01)


def test_ece_by_hand() -> None:
    probabilities = [(0.95, 0.05), (0.95, 0.05), (0.62, 0.38), (0.39, 0.61)]
    # Two bins: confidence 0.95 with accuracy 1/2, and 0.62 and 0.61 with accuracy 1.
    expected = 2 / 4 * (0.95 - 0.5) + 2 / 4 * (1 - 0.615)
    assert expected_calibration_error(probabilities, [0, 1, 0, 1]) == pytest.approx(expected)
    assert expected_calibration_error([(1.0, 0.0), (0.0, 1.0)], [0, 1]) == 0
    assert expected_calibration_error([(1.0, 0.0), (0.0, 1.0)], [1, 0]) == 1
    # An edge belongs to the bin below it: 0.6 and 0.59 are together, in (8/15, 9/15].
    edge = expected_calibration_error([(0.6, 0.4), (0.59, 0.41)], [0, 1])
    assert edge == pytest.approx(abs((0.6 - 1) + 0.59) / 2)


def test_visits_without_probabilities_are_left_out_and_counted() -> None:
    probabilities, truth = answered(2.0, visits=200)
    gaps: list[tuple[float, ...] | None] = [None, *probabilities, None]
    found = fit_calibration(gaps, [0, *truth, 1])
    assert found.without_probabilities == 2
    assert found.model_copy(update={"without_probabilities": 0}) == fit_calibration(probabilities, truth)


def test_probabilities_of_0_count_as_the_floor() -> None:
    probabilities, truth = answered(1.0, visits=50)
    sure = fit_calibration([(1.0, 0.0, 0.0), *probabilities], [1, *truth])
    assert np.isfinite([sure.nll_before, sure.nll_after]).all()
    smaller = fit_calibration([(1.0, FLOOR / 10, 0.0), *probabilities], [1, *truth])
    assert sure.model_dump() == pytest.approx(smaller.model_dump(), rel=1e-5)
    assert negative_log_likelihood([(1.0, 0.0)], [1]) == pytest.approx(-np.log(FLOOR))
    assert apply_temperature([1.0, 0.0], 2.0) == pytest.approx([1 / (1 + FLOOR**0.5), FLOOR**0.5 / (1 + FLOOR**0.5)])


def test_a_model_that_is_never_wrong_ends_at_the_edge() -> None:
    found = fit_calibration([(0.8, 0.2), (0.3, 0.7)] * 20, [0, 1] * 20)
    assert found.temperature == pytest.approx(LOWEST, rel=0.01)
    assert found.nll_after < found.nll_before


@settings(max_examples=50, deadline=None)
@given(
    p=st.lists(st.floats(0, 1), min_size=2, max_size=6).filter(lambda p: sum(p) > 0.01),
    temperature=st.floats(LOWEST, HIGHEST),
)
def test_temperature_keeps_the_order_and_adds_up_to_1(p: list[float], temperature: float) -> None:
    scaled = apply_temperature(p, temperature)
    assert scaled.sum() == pytest.approx(1) and (scaled >= 0).all()
    assert scaled[int(np.argmax(p))] == pytest.approx(scaled.max())
    order = np.argsort(p, kind="stable")
    assert (np.diff(scaled[order]) >= -1e-12).all()


def test_temperature_1_gives_the_probabilities_back() -> None:
    probabilities = np.random.default_rng(0).dirichlet([1, 1, 1], size=20)
    np.testing.assert_allclose(apply_temperature(probabilities, 1.0), probabilities, rtol=1e-5, atol=2 * FLOOR)


@pytest.mark.parametrize(
    ("probabilities", "truth", "message"),
    [
        ([], [], "0 visits have probabilities"),
        ([None, (0.5, 0.5)], [0, 1], "1 visits have probabilities"),
        ([(0.5, 0.5), (0.4, 0.6)], [1, 1], "same diagnosis"),
        ([(0.5, 0.5), (0.4, 0.6)], [1], "2 visits, but 1 true labels"),
        ([(0.5, 0.5), (0.4, 0.6)], [0, 2], "none of the 2 labels"),
        ([(0.5, 0.5), (0.4, 0.3, 0.3)], [0, 1], "two or more labels"),
        ([(0.5, 0.5), (float("nan"), 0.6)], [0, 1], "must be finite"),
        ([(0.5, 0.5), (-0.1, 1.1)], [0, 1], "not negative"),
        ([(0.5, 0.5), (0.0, 0.0)], [0, 1], "not all 0"),
    ],
)
def test_what_cannot_be_calibrated_says_why(
    probabilities: list[tuple[float, ...] | None], truth: list[int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        fit_calibration(probabilities, truth)


def test_temperature_must_be_above_0() -> None:
    for temperature in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="must be above 0"):
            apply_temperature([0.5, 0.5], temperature)


def test_calibration_is_written_and_read_as_json() -> None:
    found = fit_calibration(*answered(2.0, visits=100))
    assert Calibration.model_validate_json(found.model_dump_json()) == found
    with pytest.raises(ValidationError):
        Calibration.model_validate({**found.model_dump(), "temperature": 0})
