"""w-scores of findings: who the norm is fitted on, and which visits have none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from clinical_reasoner.evidence.grading import grade_patient
from clinical_reasoner.evidence.w_scores import cohort_norms, control_rows, finding_value, norm_row, w_scores
from clinical_reasoner.imaging.norms import Norms
from clinical_reasoner.records import Measure, PatientRow
from clinical_reasoner.task import DiagnosisTask, RegionalMeasure

HIPPOCAMPUS, VENTRICLES, VASCULAR = "hippocampal_atrophy", "ventricle_enlargement", "vascular_disease"
FEWEST = 20


def patient(number: int = 0, **fields: Any) -> PatientRow:
    """A control of the training split with a hippocampus of 7000 mm3 and some; larger in men and smaller with age."""
    rng = np.random.default_rng(number)
    age, male, icv = rng.uniform(60, 85), bool(number % 2), rng.uniform(1.3e6, 1.7e6)
    size = np.exp(0.1 * rng.normal()) * (icv / 1.5e6) * np.exp(-0.008 * (age - 72)) * (1.02 if male else 1.0)
    volumes = {"hippocampus": 7000 * size, "lateral_ventricle": 36000 / size, "icv": icv}
    own: dict[str, Any] = {
        "patient_id": f"p{number}",
        "visit_id": "bl",
        "cohort": "c",
        "split": "train",
        "label": "NC",
        "age_years": float(age),
        "sex": "male" if male else "female",
        "segmenter": "freesurfer-6.0",
        "field_strength_t": 3.0,
        "measures": tuple(Measure(name=name, value=float(value), unit="mm3") for name, value in volumes.items()),
    }
    return PatientRow(**own | fields)


@pytest.fixture(scope="module")
def controls() -> list[PatientRow]:
    return [patient(number) for number in range(60)]


def fitted(patients: list[PatientRow], task: DiagnosisTask) -> Norms:
    return cohort_norms(control_rows(patients, task), task, FEWEST)


@pytest.fixture(scope="module")
def norms(controls: list[PatientRow], task: DiagnosisTask) -> Norms:
    return fitted(controls, task)


def with_volume(one: PatientRow, name: str, factor: float) -> PatientRow:
    measures = [
        measure.model_copy(update={"value": measure.value * factor}) if measure.name == name else measure
        for measure in one.measures
    ]
    return one.model_copy(update={"measures": tuple(measures)})


def test_only_findings_that_were_measured_have_a_norm(norms: Norms) -> None:
    assert {norm.measure for norm in norms.norms} == {HIPPOCAMPUS, VENTRICLES}
    assert {(norm.segmenter, norm.field_strength_t, norm.controls) for norm in norms.norms} == {
        ("freesurfer-6.0", 3.0, 60)
    }
    assert {norm.measure: norm.worse for norm in norms.norms} == {HIPPOCAMPUS: "low", VENTRICLES: "high"}


def test_controls_have_a_mean_of_0_and_an_sd_of_1(
    controls: list[PatientRow], norms: Norms, task: DiagnosisTask
) -> None:
    for finding in (HIPPOCAMPUS, VENTRICLES):
        scores = np.array([w_scores(one, task, norms)[finding][1] for one in controls])
        assert abs(scores.mean()) < 1e-6 and scores.std() == pytest.approx(1, abs=0.05)


def test_smaller_hippocampus_and_larger_ventricles_are_worse(norms: Norms, task: DiagnosisTask) -> None:
    usual = w_scores(patient(), task, norms)
    for finding, region, factor in ((HIPPOCAMPUS, "hippocampus", 0.7), (VENTRICLES, "lateral_ventricle", 1.6)):
        affected = with_volume(patient(), region, factor)
        value, w = w_scores(affected, task, norms)[finding]
        assert w < usual[finding][1] - 2
        assert value == pytest.approx(usual[finding][0] * factor)
        grades = {one.name: one for one in grade_patient(affected, task, (-1.0, -2.0), w_scores(affected, task, norms))}
        assert grades[finding].source == "w-score of freesurfer-6.0"
        assert (grades[finding].unit, grades[finding].w_score) == ("mm3", w)


@pytest.mark.parametrize(
    "change", [{"split": "test"}, {"split": "validation"}, {"label": "AD"}, {"label": None}, {"segmenter": "synthseg"}]
)
def test_norm_is_fitted_on_controls_of_the_training_split_alone(
    controls: list[PatientRow], norms: Norms, task: DiagnosisTask, change: dict[str, Any]
) -> None:
    others = [with_volume(patient(number, **change), "hippocampus", 0.5) for number in range(100, 115)]
    assert fitted([*controls, *others], task) == norms


def test_later_visits_of_a_control_do_not_count_again(
    controls: list[PatientRow], norms: Norms, task: DiagnosisTask
) -> None:
    later = [with_volume(one.model_copy(update={"visit_id": "m12"}), "hippocampus", 0.9) for one in controls]
    assert fitted([*controls, *later], task) == norms


def test_too_few_controls_give_no_norm(controls: list[PatientRow], task: DiagnosisTask) -> None:
    assert fitted(controls[: FEWEST - 1], task) == Norms()
    assert w_scores(patient(), task, Norms()) == {}


def test_task_without_controls_has_no_norms(controls: list[PatientRow], task: DiagnosisTask) -> None:
    assert fitted(controls, task.model_copy(update={"controls": None})) == Norms()


@pytest.mark.parametrize(
    "change",
    [
        {"age_years": None},
        {"age_years": 40.0},
        {"sex": None},
        {"segmenter": None},
        {"segmenter": "freesurfer-7.1"},
        {"field_strength_t": 1.5},
        {"field_strength_t": None},
        {"measures": ()},
        {"measures": (Measure(name="hippocampus", value=7000.0, unit="mm3"),)},
    ],
)
def test_visit_that_the_norm_does_not_cover_is_not_graded(
    norms: Norms, task: DiagnosisTask, change: dict[str, Any]
) -> None:
    assert w_scores(patient(1, **change), task, norms) == {}


def test_scanner_of_about_3_tesla_is_one_of_3(norms: Norms, task: DiagnosisTask) -> None:
    assert w_scores(patient(1, field_strength_t=2.893), task, norms) == w_scores(patient(1), task, norms)


@pytest.mark.parametrize(
    ("regions", "over", "value"),
    [
        (("a",), (), 2.0),
        (("a", "b"), (), 5.0),
        (("a", "c"), (), None),
        (("a",), ("b", "a"), 0.4),
        (("a",), ("c",), None),
        (("a",), ("zero",), None),
    ],
)
def test_value_of_a_finding(regions: tuple[str, ...], over: tuple[str, ...], value: float | None) -> None:
    measure = RegionalMeasure(regions=regions, over=over, worse="low")
    assert finding_value(measure, {"a": 2.0, "b": 3.0, "zero": 0.0}) == value


def test_ratings_and_unknown_measures_are_no_values(task: DiagnosisTask) -> None:
    measures = (Measure(name="mta", value=3.0, unit="rating"), Measure(name="whole_brain", value=1e6, unit="mm3"))
    assert norm_row(patient(1, measures=measures), task).values == {}
