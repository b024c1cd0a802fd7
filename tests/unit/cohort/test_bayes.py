"""The Bayes rule against brute force: the ceiling that every model is reported against must be right."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from math import sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clinical_reasoner.cohort import bayes
from clinical_reasoner.cohort.bayes import BayesRule
from clinical_reasoner.cohort.population import FindingEffect, LabelDistribution, Normal, Population
from clinical_reasoner.cohort.synthetic import draw_patient
from clinical_reasoner.distillation.baselines import evidence_frame, fit_logistic_regression, predict_probabilities
from clinical_reasoner.evidence.description import Evidence
from clinical_reasoner.evidence.grading import grade_w_score
from clinical_reasoner.records import PatientRow
from clinical_reasoner.task import DiagnosisTask

GRADES = ("No", "Mild", "Severe")
DRAWN = 24_000
Z = 4.5
"""Standard errors allowed; some two hundred cells are compared."""
Key = Callable[[dict[str, str], dict[str, str]], tuple[dict[str, str], dict[str, str]]]


def label(share: float, severity: float, mmse: float, age: float, female: float, carriers: float) -> LabelDistribution:
    return LabelDistribution(
        share=share,
        severity=Normal(mean=severity, sd=0.3 + 0.3 * severity),
        age_years=Normal(mean=age, sd=14),
        education_years=Normal(mean=8 + 6 * severity, sd=4),
        mmse=Normal(mean=mmse, sd=1.5),
        mmse_range=(27, 30) if severity == 0 else (20, 28),
        female_share=female,
        apoe4_carriers=carriers,
    )


SMALL = Population(
    name="synthetic-small",
    shared_variance=0.6,
    missing_share=0.0,
    mmse_severity_correlation=0.7,
    cut_points=(-0.5, -1.5),
    labels={
        "sick": label(0.3, severity=1.0, mmse=27, age=82, female=0.8, carriers=0.7),
        "well": label(0.7, severity=0.0, mmse=29, age=68, female=0.3, carriers=0.3),
    },
    marital_status={"female": {"married": 0.3, "widowed": 0.7}, "male": {"married": 0.9, "widowed": 0.1}},
    findings={
        "a": FindingEffect(effect=1.5, domain="x"),
        "b": FindingEffect(effect=1.2, domain="x"),
        "c": FindingEffect(effect=0.8, domain="y"),
    },
)
"""Few values, labels that overlap, a strong shared factor, and much mass at the clipped ends."""


@pytest.fixture(scope="module")
def small() -> list[tuple[str, dict[str, str], dict[str, str]]]:
    """(label, fields, grades) of many patients, as a description states them."""
    return [stated(draw_patient(SMALL, index, 11, {"train": 1.0}), SMALL) for index in range(DRAWN)]


def stated(patient: PatientRow, population: Population) -> tuple[str, dict[str, str], dict[str, str]]:
    assert patient.age_years is not None and patient.label is not None
    fields = {
        "age_years": str(int(patient.age_years)),
        "sex": str(patient.sex),
        "education_years": f"{patient.education_years:g}",
        "marital_status": str(patient.marital_status),
        "mmse": str(patient.mmse),
        "apoe4_copies": str(patient.apoe4_copies),
    }
    grades = {measure.name: grade_w_score(measure.value, population.cut_points, GRADES) for measure in patient.measures}
    return patient.label, fields, grades


def only(*names: str) -> Key:
    """What is left of the evidence when everything else is missing."""
    return lambda fields, grades: (
        {name: value for name, value in fields.items() if name in names},
        {name: grade for name, grade in grades.items() if name in names},
    )


@pytest.mark.parametrize(
    "names",
    [
        ("a",),
        ("c",),
        ("a", "b"),
        ("a", "b", "c"),
        ("mmse",),
        ("mmse", "a"),
        ("mmse", "a", "b"),
        ("mmse", "b", "c"),
        ("age_years",),
        ("education_years",),
        ("sex",),
        ("marital_status",),
        ("sex", "marital_status"),
        ("apoe4_copies",),
        ("apoe4_copies", "sex", "a", "b"),
        ("mmse", "apoe4_copies", "marital_status"),
    ],
    ids=" ".join,
)
def test_posterior_is_the_share_among_drawn_patients_of_that_evidence(
    small: list[tuple[str, dict[str, str], dict[str, str]]], names: tuple[str, ...]
) -> None:
    rule, keep = BayesRule(SMALL, GRADES), only(*names)
    cells: dict[tuple[tuple[str, str], ...], Counter[str]] = defaultdict(Counter)
    for true, fields, grades in small:
        kept_fields, kept_grades = keep(fields, grades)
        cells[(*kept_fields.items(), *kept_grades.items())][true] += 1
    large = {cell: counts for cell, counts in cells.items() if counts.total() >= 150}
    assert sum(counts.total() for counts in large.values()) > 0.6 * DRAWN
    for cell, counts in large.items():
        fields, grades = keep(dict(cell), dict(cell))
        posterior = rule.posterior(
            {name: value for name, value in fields.items() if name not in SMALL.findings},
            {name: value for name, value in grades.items() if name in SMALL.findings},
        )
        assert posterior.sum() == pytest.approx(1)
        share = counts["sick"] / counts.total()
        expected = float(posterior[rule.labels.index("sick")])
        error = sqrt(max(expected * (1 - expected), 0.001) / counts.total())
        assert abs(share - expected) < Z * error, f"{cell}: {share:.3f} of {counts.total()}, not {expected:.3f}"


@pytest.fixture(scope="module")
def rule(population: Population, task: DiagnosisTask) -> BayesRule:
    return BayesRule(population, task.grade_names)


def test_no_evidence_leaves_the_prior(rule: BayesRule, population: Population) -> None:
    prior = [population.labels[name].share for name in rule.labels]
    assert rule.posterior({}, {}) == pytest.approx(prior, abs=1e-9)


def test_finding_that_the_population_does_not_have_says_nothing(population: Population, task: DiagnosisTask) -> None:
    fewer = population.model_copy(update={"findings": dict(list(population.findings.items())[1:])})
    rule = BayesRule(fewer, task.grade_names)
    known = {"entorhinal_atrophy": "Mild"}
    with_unknown = rule.posterior({}, {**known, "hippocampal_atrophy": "Severe"})
    assert with_unknown == pytest.approx(rule.posterior({}, known))


@given(data=st.data())
@settings(max_examples=40)
def test_posterior_is_a_distribution_whatever_is_missing(
    rule: BayesRule, drawn_evidence: list[Evidence], data: st.DataObject
) -> None:
    evidence = drawn_evidence[data.draw(st.integers(0, len(drawn_evidence) - 1))]
    names = data.draw(st.sets(st.sampled_from([*evidence.fields, *evidence.grades])))
    fields, grades = only(*names)(dict(evidence.fields), dict(evidence.grades))
    posterior = rule.posterior(fields, grades)
    assert posterior.shape == (3,)
    assert posterior.sum() == pytest.approx(1)
    assert (posterior >= 0).all()


def test_more_nodes_change_nothing(
    rule: BayesRule,
    population: Population,
    task: DiagnosisTask,
    drawn_evidence: list[Evidence],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shipped = [rule.posterior(one.fields, one.grades) for one in drawn_evidence[:100]]
    monkeypatch.setattr(bayes, "NODES", 2 * bayes.NODES + 1)
    fine = BayesRule(population, task.grade_names)
    exact = [fine.posterior(one.fields, one.grades) for one in drawn_evidence[:100]]
    assert np.abs(np.array(shipped) - np.array(exact)).max() < 0.01


@pytest.fixture(scope="module")
def judged(
    rule: BayesRule, task: DiagnosisTask, drawn: list[PatientRow], drawn_evidence: list[Evidence]
) -> tuple[np.ndarray, list[str], list[Evidence]]:
    """Posteriors in the order of the task, true labels and evidence of half of the cohort."""
    half = len(drawn) // 2
    order = [rule.labels.index(name) for name in task.label_names]
    evidence = drawn_evidence[half:]
    posteriors = np.array([rule.posterior(one.fields, one.grades)[order] for one in evidence])
    return posteriors, [str(patient.label) for patient in drawn[half:]], evidence


def accuracy(predicted: list[str], true: list[str]) -> float:
    return sum(a == b for a, b in zip(predicted, true, strict=True)) / len(true)


def test_rule_is_calibrated(judged: tuple[np.ndarray, list[str], list[Evidence]], task: DiagnosisTask) -> None:
    posteriors, true, _ = judged
    hits = np.array([task.label_names.index(name) for name in true]) == posteriors.argmax(1)
    assert abs(posteriors.max(1).mean() - hits.mean()) < 4 * hits.std() / sqrt(len(true))
    for column, name in enumerate(task.label_names):
        is_name = np.array(true) == name
        for low, high in ((0.0, 0.2), (0.2, 0.5), (0.5, 0.8), (0.8, 1.0)):
            inside = (posteriors[:, column] >= low) & (posteriors[:, column] <= high)
            expected = posteriors[inside, column].mean()
            error = sqrt(expected * (1 - expected) / inside.sum())
            assert abs(is_name[inside].mean() - expected) < 4 * error, (name, low)


def test_no_simple_rule_beats_the_bayes_rule(
    judged: tuple[np.ndarray, list[str], list[Evidence]],
    task: DiagnosisTask,
    drawn: list[PatientRow],
    drawn_evidence: list[Evidence],
) -> None:
    posteriors, true, evidence = judged
    best = accuracy([task.label_names[index] for index in posteriors.argmax(1)], true)
    half = len(drawn) // 2
    frame = evidence_frame(drawn_evidence, task)
    model = fit_logistic_regression(frame.iloc[:half], [str(one.label) for one in drawn[:half]], task, seed=0)
    fitted = predict_probabilities(model, frame.iloc[half:], task).argmax(1)
    by_grade = {"No": "NC", "Mild": "MCI", "Severe": "AD"}
    rules = {
        "always AD": ["AD"] * len(true),
        "hippocampus": [by_grade[one.grades["hippocampal_atrophy"]] for one in evidence],
        "medial temporal": [by_grade[one.grades["medial_temporal_atrophy"]] for one in evidence],
        "APOE4": ["NC" if one.fields["apoe4_copies"] == "0" else "AD" for one in evidence],
        "logistic regression": [task.label_names[index] for index in fitted],
    }
    for low in range(20, 27):
        for high in range(low + 1, 31):
            rules[f"mmse {low} {high}"] = [
                "AD" if int(one.fields["mmse"]) < low else "MCI" if int(one.fields["mmse"]) < high else "NC"
                for one in evidence
            ]
    slack = 0.005  # the rule is best in the population; on a sample, an almost equal rule may win by a few patients
    assert {
        name: value for name, predicted in rules.items() if (value := accuracy(predicted, true)) > best + slack
    } == {}
    assert best > 0.7
