"""The operating point: thresholds and quantiles on small tables where the right one is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binom

from clinical_reasoner.config.evaluation import OperatingConfig
from clinical_reasoner.distillation.calibration import apply_temperature, fit_calibration
from clinical_reasoner.evaluation.cascade import TierAnswers
from clinical_reasoner.evaluation.operating import (
    FEWEST_VISITS,
    Names,
    conformal_quantile,
    cost_threshold,
    error_bound,
    error_threshold,
    fit_operating_point,
    fit_tier,
    refer_threshold,
    thresholds,
)
from clinical_reasoner.evaluation.resampling import Floats, Ints
from clinical_reasoner.evaluation.tiers import Tiers
from clinical_reasoner.operating_point import ALWAYS_TEACHER

NAMES = Names("t", ("A", "B"), "v1", "label_only", "direct", "big", "diagnose")


def sure(confidence: list[float], predicted: list[int]) -> TierAnswers:
    """Of two labels, the predicted one with this probability."""
    table = np.empty((len(predicted), 2))
    places = np.arange(len(predicted))
    table[places, predicted] = confidence
    table[places, 1 - np.array(predicted)] = 1 - np.array(confidence)
    return TierAnswers(np.array(predicted), table)


def tiers(truth: Ints, student: TierAnswers, teacher: TierAnswers | None) -> Tiers:
    none = np.zeros((len(truth), 2), dtype=np.int64)
    return Tiers(truth, np.arange(len(truth)), student, teacher, none, none)


def drawn(seed: int, visits: int = 400) -> Tiers:
    """A student that is right as often as it says, and a teacher that is right more often."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 2, visits)

    def model(low: float) -> TierAnswers:
        confidence = rng.uniform(low, 1, visits)
        right = rng.random(visits) < confidence
        return sure(confidence.tolist(), np.where(right, truth, 1 - truth).tolist())

    return tiers(truth, model(0.5), model(0.8))


@pytest.mark.parametrize(
    ("visits", "coverage", "expected"),
    [(9, 0.9, 9), (19, 0.9, 18), (99, 0.9, 90), (100, 0.9, 91), (99, 0.55, 55), (8, 0.9, None), (1, 0.9, None)],
)
def test_quantile_is_the_kth_smallest_score(visits: int, coverage: float, expected: int | None) -> None:
    scores = np.random.default_rng(1).permutation(np.arange(1, visits + 1) / 1000)
    found = conformal_quantile(scores, coverage)
    assert found is None if expected is None else found == expected / 1000


def test_quantile_covers_new_visits_as_often_as_it_says() -> None:
    rng = np.random.default_rng(2)
    covered = []
    for _ in range(400):
        quantile = conformal_quantile(rng.random(99), 0.9)
        assert quantile is not None
        covered.append((rng.random(200) <= quantile).mean())
    assert np.mean(covered) == pytest.approx(0.9, abs=0.01)


def test_thresholds_lie_between_confidences_and_ties_stay_together() -> None:
    assert thresholds(np.array([0.8, 0.6, 0.8, -np.inf])) == pytest.approx([0, 0.7, ALWAYS_TEACHER])


def test_cost_hands_over_only_as_many_as_it_takes_to_match_the_teacher() -> None:
    truth = np.array([0, 1, 0, 1, 0, 1])
    teacher = sure([0.9] * 6, [0, 1, 0, 1, 0, 1])
    student = sure([0.95, 0.9, 0.8, 0.7, 0.6, 0.55], [0, 1, 0, 1, 1, 0])  # wrong where it is least sure
    found = cost_threshold(truth, student, teacher, student.confidence(1.0), max_teacher_share=0.4)
    assert 0.6 < found.value < 0.7
    assert "1.000, teacher 1.000, 33.3 % to the teacher" in found.target


def test_cost_takes_the_lowest_threshold_where_the_student_is_as_good_alone() -> None:
    truth = np.array([0, 1, 0, 1])
    student, teacher = sure([0.9, 0.8, 0.7, 0.6], [0, 1, 0, 0]), sure([0.9] * 4, [0, 1, 1, 1])
    assert cost_threshold(truth, student, teacher, student.confidence(1.0), 0.4).value == 0.0


def test_cost_stops_at_the_share_that_may_reach_the_teacher_and_says_so() -> None:
    truth = np.array([0, 1, 0, 1])
    teacher = sure([0.9] * 4, [0, 1, 0, 1])
    student = sure([0.9, 0.8, 0.7, 0.6], [1, 0, 0, 0])  # its surest answers are wrong
    found = cost_threshold(truth, student, teacher, student.confidence(1.0), 0.4)
    assert 0.6 < found.value < 0.7, "the one visit of four that helps"
    assert "best macro-F1 with at most 40 %" in found.target
    assert cost_threshold(truth, student, teacher, student.confidence(1.0), 1.0).value > 0.9


def test_visits_without_probabilities_count_as_handed_over() -> None:
    truth = np.array([0, 1, 0, 1])
    student = sure([0.9, 0.8, 0.7, 0.6], [0, 1, 0, 1])
    student.probabilities[:2] = np.nan
    found = cost_threshold(truth, student, sure([0.9] * 4, [0, 1, 0, 1]), student.confidence(1.0), 0.4)
    assert found.value == 0.0 and "50.0 % to the teacher" in found.target


def test_error_keeps_as_many_answers_as_it_may() -> None:
    def many(*values: float) -> Floats:
        return np.repeat(values, FEWEST_VISITS)

    confidence, right = many(0.9, 0.8, 0.7, 0.6), many(1, 1, 0, 1) > 0
    assert error_threshold(confidence, right, 0.25).value == 0.0
    assert 0.7 < error_threshold(confidence, right, 0.2).value < 0.8
    assert error_threshold(confidence, ~right, 0.2).value == ALWAYS_TEACHER
    assert 0.8 < error_threshold(many(0.9, 0.8, 0.8), many(1, 0, 1) > 0, 0.1).value < 0.9, "a tie"
    assert error_threshold(np.full(30, -np.inf), np.full(30, True), 0.1).value == ALWAYS_TEACHER, "nothing can stand"


def test_error_is_not_read_off_a_few_answers_and_says_how_large_it_may_be() -> None:
    confidence = np.linspace(0.99, 0.5, 100)
    luck = np.arange(100) < FEWEST_VISITS - 1  # right where it is surest, wrong everywhere else
    found = error_threshold(confidence, luck, 0.04)
    assert found.value == ALWAYS_TEACHER and "at no threshold with 20 standing answers" in found.target
    enough = np.arange(100) < FEWEST_VISITS
    found = error_threshold(confidence, enough, 0.04)
    assert int((confidence >= found.value).sum()) == FEWEST_VISITS
    assert "0.0 % of 20 wrong, 95 % upper bound 13.9 %, 80.0 % to the teacher" in found.target


def test_error_bound_is_where_so_few_errors_become_unlikely() -> None:
    assert error_bound(0, 20) == pytest.approx(1 - 0.05 ** (1 / 20))
    bound = error_bound(3, 40)
    assert binom.cdf(3, 40, bound) == pytest.approx(0.05)
    assert error_bound(5, 5) == 1.0


def test_several_visits_of_a_person_are_said_in_the_note() -> None:
    one = drawn(8)
    assert "people" not in fit_operating_point(one, NAMES, OperatingConfig()).note
    twice = replace(one, subject=one.subject // 2)
    assert (
        "400 visits of the validation split are of 200 people"
        in fit_operating_point(twice, NAMES, OperatingConfig()).note
    )


def test_more_error_never_means_a_higher_threshold() -> None:
    one = drawn(3)
    confidence, right = one.student.confidence(1.0), one.student.predicted == one.truth
    found = [error_threshold(confidence, right, most).value for most in (0.01, 0.05, 0.1, 0.2, 0.3)]
    assert found == sorted(found, reverse=True) and len(set(found)) > 2


def test_referred_are_those_about_whom_the_teacher_is_wrong_half_of_the_time() -> None:
    confidence = np.linspace(0.5, 0.99, 100)
    right = np.arange(100) >= 30  # wrong below, right above
    everyone = np.full(100, True)
    value = refer_threshold(confidence, right, everyone)
    assert int((confidence < value).sum()) == 60, "thirty wrong ones and as many right ones above them"
    assert refer_threshold(confidence, everyone, everyone) == 0.0
    assert refer_threshold(confidence, ~everyone, everyone) == 1.0
    few = np.arange(100) < FEWEST_VISITS - 1
    assert refer_threshold(confidence, right, few) == 0.0, "too few to read a threshold off"


def test_tier_has_the_temperature_of_its_calibration_and_leaves_out_what_has_no_probabilities() -> None:
    one = drawn(5)
    student = replace(one.student, probabilities=one.student.probabilities.copy())
    student.probabilities[:50] = np.nan
    tier = fit_tier(student, one.truth, "m", "direct", 0.9)
    table: Floats = student.probabilities[50:]
    expected = fit_calibration(table.tolist(), one.truth[50:].tolist()).temperature
    scores = np.sort(1 - apply_temperature(table, expected)[np.arange(350), one.truth[50:]])
    assert (tier.temperature, tier.visits) == (expected, 350)
    assert tier.quantile == pytest.approx(scores[315])  # ceil(351 x 0.9) = 316


def test_operating_point_of_both_models_and_of_a_teacher_that_was_not_asked() -> None:
    both = drawn(6)
    point = fit_operating_point(both, NAMES, OperatingConfig(max_teacher_share=1.0), "A note.")
    assert point.teacher is not None and point.teacher.model == "big" and point.note == "A note."
    assert 0 < point.threshold <= 1 and point.target.startswith("cost: fewest")
    alone = fit_operating_point(replace(both, teacher=None), NAMES, OperatingConfig())
    assert alone.teacher is None and alone.refer_below == 0
    assert alone.target.startswith("error: ") and "target cost needs the teacher's answers" in alone.target
    assert "not asked 'diagnose'" in alone.note
    error = fit_operating_point(both, NAMES, OperatingConfig(target="error", max_error=0.1))
    assert error.threshold == alone.threshold and "cost" not in error.target
    assert point.version != error.version


def test_teacher_without_probabilities_still_sets_the_threshold() -> None:
    both = drawn(7)
    assert both.teacher is not None
    mute = TierAnswers(both.teacher.predicted, np.full_like(both.teacher.probabilities, np.nan))
    point = fit_operating_point(replace(both, teacher=mute), NAMES, OperatingConfig())
    with_them = fit_operating_point(both, NAMES, OperatingConfig())
    assert point.teacher is None and "not calibrated: calibration: 0 visits" in point.note
    assert (point.threshold, point.refer_below) == (with_them.threshold, 0.0)


@pytest.mark.parametrize("truth", [np.zeros(30, dtype=np.int64), np.zeros(0, dtype=np.int64)])
def test_student_that_cannot_be_calibrated_raises_with_the_reason(truth: Ints) -> None:
    student = sure([0.8] * len(truth), [0] * len(truth)) if len(truth) else TierAnswers(truth, np.zeros((0, 2)))
    with pytest.raises(ValueError, match="calibration: "):
        fit_operating_point(tiers(truth, student, None), NAMES, OperatingConfig())
