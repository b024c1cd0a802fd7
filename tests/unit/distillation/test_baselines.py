"""The tabular baselines: they see what the descriptions say, cope with gaps, and learn."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import pytest
from sklearn.pipeline import Pipeline

from clinical_reasoner.distillation.baselines import (
    evidence_frame,
    fit_gradient_boosting,
    fit_logistic_regression,
    majority_probabilities,
    predict_probabilities,
)
from clinical_reasoner.evidence.description import Evidence, describe, describe_evidence, parse_description
from clinical_reasoner.records import PatientRow
from clinical_reasoner.task import ChoiceField, DiagnosisTask, NumberField

Cases = tuple[list[Evidence], list[str]]
Fit = Callable[[pd.DataFrame, Sequence[str], DiagnosisTask, int], Pipeline]


@pytest.fixture(scope="module")
def training(drawn: list[PatientRow], drawn_evidence: list[Evidence]) -> Cases:
    return drawn_evidence[:600], [str(patient.label) for patient in drawn[:600]]


@pytest.fixture(scope="module")
def unseen(drawn: list[PatientRow], drawn_evidence: list[Evidence]) -> Cases:
    return drawn_evidence[3000:], [str(patient.label) for patient in drawn[3000:]]


@pytest.fixture(params=[fit_logistic_regression, fit_gradient_boosting], ids=lambda fit: fit.__name__)
def fit(request: pytest.FixtureRequest) -> Fit:
    chosen: Fit = request.param
    return chosen


def thinned(evidence: list[Evidence], seed: int, share: float) -> list[Evidence]:
    rng = np.random.default_rng(seed)
    return [
        Evidence(
            {name: value for name, value in one.fields.items() if rng.random() > share},
            {name: grade for name, grade in one.grades.items() if rng.random() > share},
        )
        for one in evidence
    ]


def predict(fit: Fit, training: Cases, evidence: list[Evidence], task: DiagnosisTask, seed: int = 0) -> np.ndarray:
    model = fit(evidence_frame(training[0], task), training[1], task, seed)
    probabilities = predict_probabilities(model, evidence_frame(evidence, task), task)
    assert probabilities.shape == (len(evidence), len(task.labels))
    assert probabilities.sum(1) == pytest.approx(np.ones(len(evidence)))
    return probabilities


def test_frame_holds_values_ranks_and_gaps(task: DiagnosisTask) -> None:
    frame = evidence_frame(
        [
            Evidence(
                {"age_years": "74", "education_years": "12.5", "sex": "male", "apoe4_copies": "2"},
                {"hippocampal_atrophy": "Severe", "frontal_atrophy": "No"},
            ),
            Evidence({}, {}),
        ],
        task,
    )
    assert list(frame.columns) == [field.name for field in task.fields] + [finding.name for finding in task.findings]
    known = frame.iloc[0].dropna().to_dict()
    assert known == {
        "age_years": 74.0,
        "education_years": 12.5,
        "sex": "male",
        "apoe4_copies": "2",
        "hippocampal_atrophy": 2.0,
        "frontal_atrophy": 0.0,
    }
    assert frame.iloc[1].isna().all()
    numbers = [field.name for field in task.fields if isinstance(field, NumberField)]
    assert {str(kind) for kind in frame[[*numbers, "hippocampal_atrophy"]].dtypes} == {"float64"}


def test_frame_is_the_same_from_the_description(task: DiagnosisTask, training: Cases) -> None:
    evidence = thinned(training[0][:50], seed=1, share=0.3)
    read = [parse_description(describe_evidence(one, task), task) for one in evidence]
    pd.testing.assert_frame_equal(evidence_frame(read, task), evidence_frame(evidence, task))


def test_capped_age_is_its_lower_bound(task: DiagnosisTask) -> None:
    old = PatientRow(
        patient_id="p", visit_id="v", cohort="c", split="train", age_years=90, at_least=("age_years",), mmse=21
    )
    read = parse_description(describe(old, {}, task), task)
    assert read.fields == {"age_years": "90+", "mmse": "21"}
    assert evidence_frame([read], task).iloc[0].dropna().to_dict() == {"age_years": 90.0, "mmse": 21.0}


def test_baseline_beats_the_majority_by_far(fit: Fit, task: DiagnosisTask, training: Cases, unseen: Cases) -> None:
    predicted = predict(fit, training, unseen[0], task).argmax(1)
    truth = np.array([task.label_names.index(name) for name in unseen[1]])
    accuracy = (predicted == truth).mean()
    majority = max(np.mean(truth == index) for index in range(3))
    assert accuracy > majority + 0.25


def test_probabilities_are_in_the_order_of_the_task(fit: Fit, task: DiagnosisTask, training: Cases) -> None:
    clear = {
        "AD": Evidence({"mmse": "14", "apoe4_copies": "2"}, {finding.name: "Severe" for finding in task.findings}),
        "NC": Evidence({"mmse": "30", "apoe4_copies": "0"}, {finding.name: "No" for finding in task.findings}),
    }
    for order in (task.labels, task.labels[::-1]):
        turned = task.model_copy(update={"labels": order})
        probabilities = predict(fit, training, list(clear.values()), turned)
        for row, name in zip(probabilities, clear, strict=True):
            assert turned.label_names[int(row.argmax())] == name
            assert row.max() > 0.8


def test_missing_values_in_training_in_test_or_everywhere(
    fit: Fit, task: DiagnosisTask, training: Cases, unseen: Cases
) -> None:
    gappy = thinned(unseen[0][:100], seed=2, share=0.5)
    assert np.isfinite(predict(fit, training, gappy, task)).all()
    assert np.isfinite(predict(fit, training, [Evidence({}, {})], task)).all()
    trained_with_gaps = (thinned(training[0], seed=3, share=0.3), training[1])
    assert np.isfinite(predict(fit, trained_with_gaps, unseen[0][:100], task)).all()


def test_field_that_no_one_has_in_training(fit: Fit, task: DiagnosisTask, training: Cases, unseen: Cases) -> None:
    without = [
        Evidence({name: value for name, value in one.fields.items() if name == "mmse"}, {}) for one in training[0]
    ]
    probabilities = predict(fit, (without, training[1]), unseen[0], task)
    # Neither the grades nor the other fields were ever seen, so only MMSE can decide.
    by_mmse: dict[str, np.ndarray] = {}
    for row, one in zip(probabilities, unseen[0], strict=True):
        assert row == pytest.approx(by_mmse.setdefault(one.fields["mmse"], row))
    assert len(by_mmse) > 10


def test_category_that_training_never_saw(fit: Fit, task: DiagnosisTask, training: Cases) -> None:
    men = [Evidence({**one.fields, "sex": "male"}, one.grades) for one in training[0]]
    one = training[0][0]
    asked = [Evidence({**one.fields, "sex": sex}, one.grades) for sex in ("male", "female")]
    assert np.isfinite(predict(fit, (men, training[1]), asked, task)).all()


def test_label_that_training_never_saw_has_probability_0(fit: Fit, task: DiagnosisTask, training: Cases) -> None:
    kept = [index for index, name in enumerate(training[1]) if name != "MCI"]
    fewer = ([training[0][index] for index in kept], [training[1][index] for index in kept])
    probabilities = predict(fit, fewer, training[0][:20], task)
    assert (probabilities[:, 1] == 0).all()


def test_baseline_is_deterministic_and_does_not_change_its_input(
    fit: Fit, task: DiagnosisTask, training: Cases
) -> None:
    frame = evidence_frame(training[0], task)
    before = frame.copy()
    first = predict_probabilities(fit(frame, training[1], task, 1), frame, task)
    second = predict_probabilities(fit(frame, training[1], task, 1), frame, task)
    assert (first == second).all()
    pd.testing.assert_frame_equal(frame, before)


def test_majority_is_the_shares_of_the_training_split(task: DiagnosisTask) -> None:
    assert majority_probabilities(["NC", "AD", "NC", "NC"], task).tolist() == [0.25, 0.0, 0.75]


def test_boosting_splits_choices_as_categories(task: DiagnosisTask) -> None:
    """The outer two of three values against the middle one, in the order of the alphabet: no single cut parts them."""
    field = next(field for field in task.fields if isinstance(field, ChoiceField) and len(field.clauses) > 2)
    first, middle, last = sorted(field.clauses)[:3]
    evidence = [Evidence({field.name: value}, {}) for value in (first, middle, last) * 40]
    labels = ["AD", "NC", "AD"] * 40
    probabilities = predict(fit_gradient_boosting, (evidence, labels), evidence[:3], task)
    assert [task.label_names[int(row.argmax())] for row in probabilities] == labels[:3]
    assert probabilities.max(axis=1).min() > 0.9


def test_boosting_learns_from_what_is_missing(task: DiagnosisTask) -> None:
    evidence = [Evidence({"mmse": "25"} if number % 2 else {"age_years": "70"}, {}) for number in range(100)]
    labels = ["AD" if number % 2 else "NC" for number in range(100)]
    probabilities = predict(fit_gradient_boosting, (evidence, labels), evidence[:2], task)
    assert [task.label_names[int(row.argmax())] for row in probabilities] == labels[:2]
