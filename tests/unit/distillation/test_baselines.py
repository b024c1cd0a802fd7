"""The tabular baseline: sees what the descriptions say, copes with gaps, and learns."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from clinical_reasoner.distillation.baselines import evidence_frame, fit_logistic_regression, predict_probabilities
from clinical_reasoner.evidence.description import Evidence, describe, describe_evidence, parse_description
from clinical_reasoner.records import PatientRow
from clinical_reasoner.task import DiagnosisTask, NumberField

Cases = tuple[list[Evidence], list[str]]


@pytest.fixture(scope="module")
def training(drawn: list[PatientRow], drawn_evidence: list[Evidence]) -> Cases:
    return drawn_evidence[:600], [str(patient.label) for patient in drawn[:600]]


@pytest.fixture(scope="module")
def unseen(drawn: list[PatientRow], drawn_evidence: list[Evidence]) -> Cases:
    return drawn_evidence[3000:], [str(patient.label) for patient in drawn[3000:]]


def thinned(evidence: list[Evidence], seed: int, share: float) -> list[Evidence]:
    rng = np.random.default_rng(seed)
    return [
        Evidence(
            {name: value for name, value in one.fields.items() if rng.random() > share},
            {name: grade for name, grade in one.grades.items() if rng.random() > share},
        )
        for one in evidence
    ]


def predict(training: Cases, evidence: list[Evidence], task: DiagnosisTask, seed: int = 0) -> np.ndarray:
    model = fit_logistic_regression(evidence_frame(training[0], task), training[1], task, seed)
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


def test_baseline_beats_the_majority_by_far(task: DiagnosisTask, training: Cases, unseen: Cases) -> None:
    predicted = predict(training, unseen[0], task).argmax(1)
    truth = np.array([task.label_names.index(name) for name in unseen[1]])
    accuracy = (predicted == truth).mean()
    majority = max(np.mean(truth == index) for index in range(3))
    assert accuracy > majority + 0.25


def test_probabilities_are_in_the_order_of_the_task(task: DiagnosisTask, training: Cases) -> None:
    clear = {
        "AD": Evidence({"mmse": "14", "apoe4_copies": "2"}, {finding.name: "Severe" for finding in task.findings}),
        "NC": Evidence({"mmse": "30", "apoe4_copies": "0"}, {finding.name: "No" for finding in task.findings}),
    }
    for order in (task.labels, task.labels[::-1]):
        turned = task.model_copy(update={"labels": order})
        probabilities = predict(training, list(clear.values()), turned)
        for row, name in zip(probabilities, clear, strict=True):
            assert turned.label_names[int(row.argmax())] == name
            assert row.max() > 0.8


def test_missing_values_in_training_in_test_or_everywhere(task: DiagnosisTask, training: Cases, unseen: Cases) -> None:
    gappy = thinned(unseen[0][:100], seed=2, share=0.5)
    assert np.isfinite(predict(training, gappy, task)).all()
    assert np.isfinite(predict(training, [Evidence({}, {})], task)).all()
    trained_with_gaps = (thinned(training[0], seed=3, share=0.3), training[1])
    assert np.isfinite(predict(trained_with_gaps, unseen[0][:100], task)).all()


def test_field_that_no_one_has_in_training(task: DiagnosisTask, training: Cases, unseen: Cases) -> None:
    without = [
        Evidence({name: value for name, value in one.fields.items() if name == "mmse"}, {}) for one in training[0]
    ]
    probabilities = predict((without, training[1]), unseen[0], task)
    # Neither the grades nor the other fields were ever seen, so only MMSE can decide.
    by_mmse: dict[str, np.ndarray] = {}
    for row, one in zip(probabilities, unseen[0], strict=True):
        assert row == pytest.approx(by_mmse.setdefault(one.fields["mmse"], row))
    assert len(by_mmse) > 10


def test_category_that_training_never_saw(task: DiagnosisTask, training: Cases) -> None:
    men = [Evidence({**one.fields, "sex": "male"}, one.grades) for one in training[0]]
    one = training[0][0]
    asked = [Evidence({**one.fields, "sex": sex}, one.grades) for sex in ("male", "female")]
    assert np.isfinite(predict((men, training[1]), asked, task)).all()


def test_label_that_training_never_saw_has_probability_0(task: DiagnosisTask, training: Cases) -> None:
    kept = [index for index, name in enumerate(training[1]) if name != "MCI"]
    fewer = ([training[0][index] for index in kept], [training[1][index] for index in kept])
    probabilities = predict(fewer, training[0][:20], task)
    assert (probabilities[:, 1] == 0).all()


def test_baseline_is_deterministic_and_does_not_change_its_input(task: DiagnosisTask, training: Cases) -> None:
    frame = evidence_frame(training[0], task)
    before = frame.copy()
    first = predict_probabilities(fit_logistic_regression(frame, training[1], task, 1), frame, task)
    second = predict_probabilities(fit_logistic_regression(frame, training[1], task, 1), frame, task)
    assert (first == second).all()
    pd.testing.assert_frame_equal(frame, before)
