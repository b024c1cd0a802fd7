"""When the teacher is asked, whose answer stands where one of the two gives none, and when neither is enough."""

from __future__ import annotations

import pytest

from clinical_reasoner.operating_point import ALWAYS_TEACHER
from clinical_reasoner.serving.cascade import Outcome, Routing, route, settle

UNSURE = Routing("teacher", "student_unsure", "student below threshold: 0.55 < 0.80")
GONE = Routing("teacher", "student_unavailable", "student not available")


def sure(reason: str) -> Routing:
    return Routing("student", "student_confident", f"student confident: {reason}")


def unsure(reason: str) -> Routing:
    return Routing("teacher", "student_unsure", f"student below threshold: {reason}")


@pytest.mark.parametrize(
    ("probabilities", "threshold", "routing"),
    [
        ((0.05, 0.04, 0.91), 0.8, sure("0.91 >= 0.80")),
        ((0.55, 0.40, 0.05), 0.8, UNSURE),
        ((0.8, 0.2, 0.0), 0.8, sure("0.80 >= 0.80")),
        ((0.7996, 0.2004), 0.8, unsure("0.7996 < 0.8000")),
        ((0.4, 0.3, 0.3), 0.0, sure("0.40 >= 0.00")),
        ((0.999, 0.001), 1.0, unsure("0.999 < 1.000")),
        ((1.0, 0.0), ALWAYS_TEACHER, unsure("1.00 < 1.01")),
        (None, 0.0, Routing("teacher", "student_unsure", "student gave no probabilities")),
        ((), 0.0, Routing("teacher", "student_unsure", "student gave no probabilities")),
    ],
)
def test_an_answer_stands_when_it_is_sure(
    probabilities: tuple[float, ...] | None, threshold: float, routing: Routing
) -> None:
    assert route("answer", probabilities, threshold) == routing


@pytest.mark.parametrize(
    ("student", "code"), [("unreadable", "student_unreadable"), ("unavailable", "student_unavailable")]
)
def test_no_answer_goes_to_the_teacher(student: Outcome, code: str) -> None:
    routing = route(student, None, 0.0)
    assert (routing.model, routing.code, routing.degraded, routing.refer) == ("teacher", code, False, False)


@pytest.mark.parametrize("teacher", ["unavailable", "unreadable"])
def test_an_unsure_student_is_better_than_none_but_not_enough(teacher: Outcome) -> None:
    settled = settle(UNSURE, "answer", teacher, None, 0.0)
    said = {"unavailable": "not available", "unreadable": "gave no usable answer"}[teacher]
    reason = f"{UNSURE.reason}; teacher {said}"
    assert settled == Routing("student", "student_unsure", reason, degraded=True, refer=True)


@pytest.mark.parametrize("student", ["unavailable", "unreadable"])
def test_without_any_answer_nothing_changes(student: Outcome) -> None:
    assert settle(GONE, student, "unavailable", None, 0.6) == GONE


@pytest.mark.parametrize(
    ("probabilities", "refer_below", "refer", "said"),
    [
        ((0.7, 0.2, 0.1), 0.6, False, ""),
        ((0.6, 0.2, 0.2), 0.6, False, ""),
        ((0.59, 0.3, 0.11), 0.6, True, "; teacher unsure: 0.59 < 0.60; refer to a clinician"),
        (None, 0.6, True, "; teacher gave no probabilities; refer to a clinician"),
        ((0.4, 0.3, 0.3), 0.0, False, ""),
        (None, 0.0, False, ""),
    ],
)
def test_where_both_are_unsure_a_clinician_is_asked(
    probabilities: tuple[float, ...] | None, refer_below: float, refer: bool, said: str
) -> None:
    settled = settle(UNSURE, "answer", "answer", probabilities, refer_below)
    assert (settled.model, settled.refer, settled.degraded) == ("teacher", refer, False)
    assert settled.reason == UNSURE.reason + said
