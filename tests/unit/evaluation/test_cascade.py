"""The cascade over a table of visits: serving's rule, and prediction sets as serving makes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from clinical_reasoner.distillation.calibration import apply_temperature
from clinical_reasoner.evaluation.cascade import TierAnswers, prediction_sets, route_visits
from clinical_reasoner.operating_point import prediction_set
from clinical_reasoner.serving import cascade as serving

NAN = float("nan")
LABELS = ("AD", "MCI", "NC")


def answers(predicted: list[int], probabilities: Sequence[list[float] | None]) -> TierAnswers:
    table = [[NAN] * 3 if one is None else one for one in probabilities]
    return TierAnswers(np.array(predicted), np.array(table, dtype=np.float64))


STUDENT = answers(
    [0, 0, 1, 3, 2],
    [[0.9, 0.05, 0.05], [0.8, 0.1, 0.1], [0.3, 0.4, 0.3], [0.98, 0.01, 0.01], None],
)
"""Sure, on the threshold, unsure, unread, without probabilities."""
TEACHER = answers([1, 1, 2, 0, 3], [[0.1, 0.8, 0.1], [0.1, 0.8, 0.1], [0.3, 0.3, 0.4], None, None])


def outcome(predicted: bool, given: bool) -> Callable[[tuple[float, ...]], tuple[TierAnswers, serving.Outcome]]:
    """One visit, of which the most probable label is named."""

    def made(probabilities: tuple[float, ...]) -> tuple[TierAnswers, serving.Outcome]:
        label = 0 if probabilities[0] >= 0.5 else 1  # 0 is what the student says, 1 what the teacher says.
        table = [list(probabilities) if given else None]
        return answers([label if predicted else 3], table), "answer" if predicted else "unreadable"

    return made


OUTCOMES = {
    "answer": outcome(predicted=True, given=True),
    "no probabilities": outcome(predicted=True, given=False),
    "unreadable": outcome(predicted=False, given=True),
}


def probabilities_of(one: TierAnswers) -> list[float] | None:
    return one.probabilities[0].tolist() if one.answered[0] and one.has_probabilities[0] else None


def test_confidence_is_the_largest_calibrated_probability_and_none_without_an_answer() -> None:
    found = STUDENT.confidence(2.0)
    assert found[:3] == pytest.approx(
        [apply_temperature(STUDENT.probabilities[place], 2.0).max() for place in range(3)]
    )
    assert found[0] < 0.9, "a temperature above 1 makes it less sure"
    assert np.isneginf(found[3:]).all()


def test_student_stands_at_the_threshold_and_the_teacher_gets_the_rest() -> None:
    confidence = STUDENT.confidence(1.0)
    threshold = float(confidence[1])
    routed = route_visits(STUDENT, confidence, TEACHER, TEACHER.confidence(1.0), threshold, refer_below=0.5)
    assert routed.stands.tolist() == [True, True, False, False, False]
    assert routed.predicted.tolist() == [0, 0, 2, 0, 2], "of the last the teacher has no answer: the student's holds"
    assert routed.from_student.tolist() == [True, True, False, False, True]
    assert routed.referred.tolist() == [False, False, True, True, True], "no probabilities count as unsure"


def test_nobody_is_referred_without_a_threshold_for_it_nor_without_an_answer() -> None:
    confidence = STUDENT.confidence(1.0)
    never = route_visits(STUDENT, confidence, TEACHER, TEACHER.confidence(1.0), 1.01)
    assert not never.stands.any()
    assert never.referred.tolist() == [False] * 4 + [True], "of the last the teacher has no answer"
    mute = answers([3] * 5, [None] * 5)
    silent = route_visits(mute, mute.confidence(1.0), mute, mute.confidence(1.0), 0.0, refer_below=1.0)
    assert silent.predicted.tolist() == [3] * 5 and not silent.referred.any() and not silent.stands.any()


@pytest.mark.parametrize("refer_below", [0.0, 0.5])
@pytest.mark.parametrize("said_by_teacher", OUTCOMES)
@pytest.mark.parametrize("said_by_student", OUTCOMES)
def test_every_visit_is_routed_as_serving_routes_it(
    said_by_student: str, said_by_teacher: str, refer_below: float
) -> None:
    for confidence in ((0.4, 0.3, 0.3), (0.2, 0.7, 0.1)):
        student, first = OUTCOMES[said_by_student]((0.5, 0.3, 0.2))
        teacher, second = OUTCOMES[said_by_teacher](confidence)
        routed = route_visits(student, student.confidence(1.0), teacher, teacher.confidence(1.0), 0.6, refer_below)
        routing = serving.route(first, probabilities_of(student), 0.6)
        settled = serving.settle(routing, first, second, probabilities_of(teacher), refer_below)
        nobody = first == second == "unreadable"
        assert routed.predicted.tolist() == [3 if nobody else {"student": 0, "teacher": 1}[settled.model]]
        assert routed.from_student.tolist() == [settled.model == "student"]
        assert routed.referred.tolist() == [settled.refer]
        sure, _ = OUTCOMES[said_by_student]((0.9, 0.05, 0.05))
        stands = route_visits(sure, sure.confidence(1.0), teacher, teacher.confidence(1.0), 0.6, refer_below).stands
        assert stands.tolist() == [serving.route(first, probabilities_of(sure), 0.6).model == "student"]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_student_stands_exactly_where_serving_lets_it_stand(temperature: float) -> None:
    rng = np.random.default_rng(4)
    table = rng.dirichlet(np.ones(3), size=200)
    student = TierAnswers(table.argmax(axis=1), table)
    confidence = student.confidence(temperature)
    threshold = float(np.median(confidence)) + 1e-9
    stands = route_visits(student, confidence, student, confidence, threshold).stands
    served = [
        serving.route("answer", apply_temperature(one, temperature).tolist(), threshold).model == "student"
        for one in table
    ]
    assert stands.tolist() == served and 0 < stands.sum() < 200


def test_prediction_sets_are_those_of_serving_and_never_empty() -> None:
    table = np.vstack([np.random.default_rng(5).dirichlet(np.ones(3), size=300), [[0.4, 0.4, 0.2], [0.5, 0.3, 0.2]]])
    for quantile in (0.0, 0.3, 0.6, 0.7, 1.0):
        for row, admitted in zip(table, prediction_sets(table, quantile), strict=True):
            served = prediction_set(dict(zip(LABELS, row.tolist(), strict=True)), quantile)
            assert served is not None and {LABELS[place] for place in np.flatnonzero(admitted)} == set(served)
    assert prediction_sets(np.array([[0.4, 0.4, 0.2]]), 0.0).tolist() == [[True, False, False]]
