"""When the teacher is asked, and whose answer stands where one of the two gives none."""

from __future__ import annotations

import pytest

from clinical_reasoner.serving.cascade import Outcome, Routing, fall_back, route

UNSURE = Routing("teacher", "student below threshold: 0.55 < 0.80")
GONE = Routing("teacher", "student not available")


@pytest.mark.parametrize(
    ("probabilities", "threshold", "routing"),
    [
        ((0.05, 0.04, 0.91), 0.8, Routing("student", "student confident: 0.91 >= 0.80")),
        ((0.55, 0.40, 0.05), 0.8, UNSURE),
        ((0.8, 0.2, 0.0), 0.8, Routing("student", "student confident: 0.80 >= 0.80")),
        ((0.7996, 0.2004), 0.8, Routing("teacher", "student below threshold: 0.7996 < 0.8000")),
        ((0.4, 0.3, 0.3), 0.0, Routing("student", "student confident: 0.40 >= 0.00")),
        ((0.999, 0.001), 1.0, Routing("teacher", "student below threshold: 0.999 < 1.000")),
        (None, 0.0, Routing("teacher", "student gave no usable answer")),
        ((), 0.0, Routing("teacher", "student gave no usable answer")),
    ],
)
def test_an_answer_stands_when_it_is_sure(
    probabilities: tuple[float, ...] | None, threshold: float, routing: Routing
) -> None:
    assert route("answer", probabilities, threshold) == routing


@pytest.mark.parametrize(
    ("student", "routing"), [("unreadable", Routing("teacher", "student gave no usable answer")), ("unavailable", GONE)]
)
def test_no_answer_goes_to_the_teacher(student: Outcome, routing: Routing) -> None:
    assert route(student, None, 0.0) == routing


@pytest.mark.parametrize(
    ("routing", "student", "teacher", "stands"),
    [
        (UNSURE, "answer", "answer", UNSURE),
        (UNSURE, "answer", "unavailable", Routing("student", f"{UNSURE.reason}; teacher not available", True)),
        (UNSURE, "answer", "unreadable", Routing("student", f"{UNSURE.reason}; teacher gave no usable answer", True)),
        (GONE, "unavailable", "answer", GONE),
        (GONE, "unavailable", "unavailable", GONE),
        (GONE, "unreadable", "unavailable", GONE),
    ],
)
def test_an_unsure_student_is_better_than_none(
    routing: Routing, student: Outcome, teacher: Outcome, stands: Routing
) -> None:
    assert fall_back(routing, student, teacher) == stands
