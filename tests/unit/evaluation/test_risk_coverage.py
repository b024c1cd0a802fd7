"""Risk and coverage on cases where the answer is known by hand."""

from __future__ import annotations

import numpy as np
import pytest

from clinical_reasoner.evaluation.risk_coverage import areas, risk_coverage

ONCE = np.ones((1, 4), dtype=np.int64)


def test_risk_rises_as_less_sure_answers_are_kept() -> None:
    coverage, risk = risk_coverage(np.array([0.6, 0.9, 0.7, 0.8]), np.array([True, False, True, False]))
    assert coverage.tolist() == [0.25, 0.5, 0.75, 1.0]
    assert risk.tolist() == pytest.approx([0, 0, 1 / 3, 0.5])


def test_answers_of_the_same_confidence_are_kept_together() -> None:
    coverage, risk = risk_coverage(np.array([0.5, 0.9, 0.5, -np.inf]), np.array([True, False, False, True]))
    assert coverage.tolist() == [0.25, 0.75, 1.0]
    assert risk.tolist() == pytest.approx([0, 1 / 3, 0.5])


def test_area_of_a_perfect_order_of_none_and_of_the_worst() -> None:
    wrong = np.array([False, False, True, True])
    best = areas(np.array([0.9, 0.8, 0.7, 0.6]), wrong, ONCE)
    worst = areas(np.array([0.6, 0.7, 0.8, 0.9]), wrong, ONCE)
    blind = areas(np.full(4, 0.5), wrong, ONCE)
    assert best[0] == pytest.approx((0 + 0 + 1 / 3 + 1 / 2) / 4)
    assert worst[0] == pytest.approx((1 + 1 + 2 / 3 + 1 / 2) / 4)
    assert blind[0] == pytest.approx(0.5), "the error rate"


def test_area_does_not_depend_on_the_order_of_ties() -> None:
    confidence = np.array([0.9, 0.5, 0.5, 0.1])
    one = areas(confidence, np.array([False, True, False, True]), ONCE)
    other = areas(confidence, np.array([False, False, True, True]), ONCE)
    assert one[0] == other[0] == pytest.approx((0 + 0.5 / 2 + 1 / 3 + 1 / 2) / 4)


def test_a_draw_weighs_its_visits() -> None:
    wrong = np.array([False, True])
    drawn = areas(np.array([0.9, 0.1]), wrong, np.array([[1, 1], [2, 0], [0, 2]]))
    assert drawn.tolist() == pytest.approx([0.25, 0.0, 1.0])
