"""Grades from w-scores and ratings: the cut points, their ends, and where a grade comes from."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clinical_reasoner.cohort.tables import GRADE_UNIT
from clinical_reasoner.evidence.grading import RATING_UNIT, grade_patient, grade_rating, grade_w_score
from clinical_reasoner.records import FindingValue, Measure, PatientRow
from clinical_reasoner.task import DiagnosisTask, RatingScale

CUTS = (-1.0, -2.0)
GRADES = ("No", "Mild", "Severe")


def patient(*measures: Measure, cohort: str = "mine") -> PatientRow:
    return PatientRow(patient_id="p", visit_id="bl", cohort=cohort, split="test", measures=measures)


@pytest.mark.parametrize(
    ("w_score", "grade"),
    [
        (3.0, "No"),
        (0.0, "No"),
        (-0.9999, "No"),
        (-1.0, "Mild"),
        (-1.9999, "Mild"),
        (-2.0, "Severe"),
        (-9.0, "Severe"),
    ],
)
def test_cut_point_belongs_to_the_worse_grade(w_score: float, grade: str) -> None:
    assert grade_w_score(w_score, CUTS, GRADES) == grade


@given(first=st.floats(-10, 10), second=st.floats(-10, 10))
def test_lower_w_score_is_never_a_better_grade(first: float, second: float) -> None:
    low, high = sorted((first, second))
    ranks = [GRADES.index(grade_w_score(value, CUTS, GRADES)) for value in (low, high)]
    assert ranks[0] >= ranks[1]


@given(w_score=st.floats(-10, 10), cuts=st.lists(st.floats(-5, 5), min_size=3, max_size=3))
def test_grade_counts_the_cut_points_that_are_reached(w_score: float, cuts: list[float]) -> None:
    cuts.sort(reverse=True)
    assert grade_w_score(w_score, cuts, "0123") == str(sum(w_score <= cut for cut in cuts))


def test_findings_say_where_they_come_from(task: DiagnosisTask) -> None:
    measures = (
        Measure(name="frontal_atrophy", value=-1.5, unit="w"),
        Measure(name="hippocampal_atrophy", value=2.0, unit=GRADE_UNIT),
        Measure(name="temporal_atrophy", value=31000.0, unit="mm3"),
        Measure(name="insular_atrophy", value=-3.0, unit="w"),
    )
    expected = (
        FindingValue(name="hippocampal_atrophy", grade="Severe", source="cohort"),
        FindingValue(name="frontal_atrophy", value=-1.5, unit="w", w_score=-1.5, grade="Mild", source="w-score"),
    )
    assert grade_patient(patient(*measures), task, CUTS) == expected
    assert grade_patient(patient(*reversed(measures)), task, CUTS) == expected


def test_synthetic_findings_are_called_synthetic(task: DiagnosisTask) -> None:
    measure = Measure(name="frontal_atrophy", value=0.5, unit="w")
    (finding,) = grade_patient(patient(measure, cohort="synthetic-clinic"), task, CUTS)
    assert (finding.source, finding.grade) == ("synthetic", "No")


def test_other_cut_points_give_other_grades(task: DiagnosisTask) -> None:
    measure = Measure(name="frontal_atrophy", value=-1.2, unit="w")
    grades = [grade_patient(patient(measure), task, cuts)[0].grade for cuts in (CUTS, (-1.5, -2.5), (-0.5, -1.1))]
    assert grades == ["Mild", "No", "Severe"]


def scale(task: DiagnosisTask, name: str) -> RatingScale:
    (found,) = (one.rating for one in task.findings if one.rating and one.rating.name == name)
    return found


@pytest.mark.parametrize(
    ("rating", "age", "grade"),
    [
        (0, 60, "No"),
        (0.5, 64.9, "No"),
        (1, 64.9, "Mild"),
        (1, 65, "No"),
        (1.5, 65, "Mild"),
        (1.5, 74.9, "Mild"),
        (1.5, 75, "No"),
        (2, 75, "Mild"),
        (2.5, 90, "Mild"),
        (3, 60, "Severe"),
        (3, 95, "Severe"),
        (4, 80, "Severe"),
    ],
)
def test_medial_temporal_rating_by_age(task: DiagnosisTask, rating: float, age: float, grade: str) -> None:
    assert grade_rating(rating, scale(task, "mta"), age, task.grade_names) == grade


@pytest.mark.parametrize(("rating", "grade"), [(0, None), (1, None), (2.5, None), (3, "Severe"), (4, "Severe")])
def test_without_an_age_only_what_every_age_has_in_common(
    task: DiagnosisTask, rating: float, grade: str | None
) -> None:
    assert grade_rating(rating, scale(task, "mta"), None, task.grade_names) == grade


@pytest.mark.parametrize(
    ("name", "grades"),
    [
        ("gca", ("No", "Mild", "Severe", "Severe")),
        ("koedam", ("No", "Mild", "Severe", "Severe")),
        ("fazekas", ("No", "No", "Mild", "Severe")),
    ],
)
@pytest.mark.parametrize("age", [None, 50.0, 90.0])
def test_ratings_that_do_not_depend_on_age(
    task: DiagnosisTask, name: str, grades: tuple[str, ...], age: float | None
) -> None:
    assert tuple(grade_rating(rating, scale(task, name), age, task.grade_names) for rating in range(4)) == grades


def test_rating_below_every_grade_has_none() -> None:
    assert grade_rating(0.5, RatingScale(name="x", lowest={"Mild": {0: 1}}), 70, GRADES) is None
    assert grade_rating(2, RatingScale(name="x", lowest={"Mild": {80: 1}}), 70, GRADES) is None


@given(first=st.floats(0, 4), second=st.floats(0, 4), age=st.floats(40, 100))
def test_higher_rating_is_never_a_better_grade(task: DiagnosisTask, first: float, second: float, age: float) -> None:
    grades = [grade_rating(rating, scale(task, "mta"), age, GRADES) for rating in sorted((first, second))]
    ranks = [GRADES.index(grade or "") for grade in grades]
    assert ranks[0] <= ranks[1]


def test_rating_is_used_where_nothing_was_measured(task: DiagnosisTask) -> None:
    rating = Measure(name="mta", value=3.0, unit=RATING_UNIT)
    name = "medial_temporal_atrophy"
    rated = FindingValue(name=name, value=3.0, unit=RATING_UNIT, grade="Severe", source="rating mta")
    assert grade_patient(patient(rating), task, CUTS) == (rated,)
    volume = Measure(name="hippocampus", value=6000.0, unit="mm3")
    (measured,) = grade_patient(patient(rating, volume), task, CUTS, {name: (12000.0, -0.5)})
    assert (measured.grade, measured.w_score, measured.unit) == ("No", -0.5, "mm3")
    (brought,) = grade_patient(patient(rating, Measure(name=name, value=1.0, unit=GRADE_UNIT)), task, CUTS)
    assert (brought.grade, brought.source) == ("Mild", "cohort")
    assert grade_patient(patient(Measure(name="mta", value=3.0, unit="mm3")), task, CUTS) == ()
    assert grade_patient(patient(Measure(name="mta", value=1.0, unit=RATING_UNIT)), task, CUTS) == ()
