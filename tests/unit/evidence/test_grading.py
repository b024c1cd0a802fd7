"""Grades from w-scores: the cut points, their ends, and where a grade comes from."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clinical_reasoner.cohort.tables import GRADE_UNIT
from clinical_reasoner.evidence.grading import grade_patient, grade_w_score
from clinical_reasoner.records import FindingValue, Measure, PatientRow
from clinical_reasoner.task import DiagnosisTask

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
