"""The project's own rationales: they restate the evidence, weigh it by the wording file, and invent nothing."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clinical_reasoner.evidence.claims import count_claims, extract_claims
from clinical_reasoner.evidence.description import Evidence
from clinical_reasoner.reference.writer import Wording, claims_text, weigh, write_rationale, write_unweighed
from clinical_reasoner.task import DiagnosisTask

MEDIAL = ("hippocampal_atrophy", "amygdala_atrophy", "entorhinal_atrophy", "parahippocampal_atrophy")


def write(evidence: Evidence, label: str, task: DiagnosisTask, wording: Wording, seed: int = 0) -> str:
    return write_rationale(evidence, label, task, wording, Random(seed))


def conclusion(text: str) -> str:
    return text.removesuffix(".").rsplit(". ", 1)[-1]


@pytest.mark.parametrize(
    ("name", "grade", "text"),
    [
        ("hippocampal_atrophy", "Severe", "severe hippocampal atrophy"),
        ("entorhinal_atrophy", "No", "no entorhinal atrophy"),
        ("ventricle_enlargement", "Mild", "mild ventricle enlargement"),
        ("cortical_atrophy", "Mild", "mild overall cortical atrophy"),
    ],
)
def test_graded_finding_as_a_phrase(task: DiagnosisTask, name: str, grade: str, text: str) -> None:
    # Several findings: tests/unit/evidence/test_claims.py reads back whatever is written.
    assert claims_text({name: grade}, task) == text


@pytest.mark.parametrize(
    ("levels", "label", "support", "contrary"),
    [
        (
            {"mmse": "impaired", "medial_temporal": "clearly affected", "cortex": "preserved", "apoe4_copies": "high"},
            "AD",
            ["a clearly impaired MMSE score", "a clearly affected medial temporal lobe", "high genetic risk"],
            ["a preserved cortex"],
        ),
        (
            {"mmse": "normal", "apoe4_copies": "present"},
            "NC",
            ["a normal MMSE score"],
            ["genetic risk"],
        ),
        ({"mmse": "normal"}, "AD", [], ["a normal MMSE score"]),
        ({"age_years": "old", "ventricles": "enlarged"}, "AD", [], []),
        ({}, "MCI", [], []),
    ],
)
def test_weighing(
    wording: Wording, levels: dict[str, str], label: str, support: list[str], contrary: list[str]
) -> None:
    assert weigh(levels, label, wording) == (support, contrary)


@pytest.mark.parametrize(
    ("score", "factor"),
    [
        ("30", "a normal MMSE score"),
        ("28", "a normal MMSE score"),
        ("27", "a slightly low MMSE score"),
        ("24", "a slightly low MMSE score"),
        ("23", "a clearly impaired MMSE score"),
        ("0", "a clearly impaired MMSE score"),
    ],
)
def test_level_of_a_number_is_the_highest_that_it_reaches(
    task: DiagnosisTask, wording: Wording, score: str, factor: str
) -> None:
    text = write(Evidence({"mmse": score}, {}), "AD", task, wording)
    assert factor in conclusion(text)
    assert text.startswith((f"The MMSE score of {score} ", f"With an MMSE score of {score},"))


@pytest.mark.parametrize(
    ("ranks", "level"),
    [
        ((0, 0, 0, 0), "preserved"),
        ((0, 0, 0, 1), "preserved"),
        ((1, 0, 0, 1), "partly affected"),
        ((2, 1, 1, 1), "clearly affected"),
        ((2, 1, 1, 0), "partly affected"),
        ((2, 2, 2, 2), "clearly affected"),
        ((2,), "clearly affected"),
    ],
)
def test_level_of_a_group_is_its_mean_grade(
    task: DiagnosisTask, wording: Wording, ranks: tuple[int, ...], level: str
) -> None:
    grades = {name: task.grade_names[rank] for name, rank in zip(MEDIAL, ranks, strict=False)}
    text = write(Evidence({}, grades), "AD", task, wording)
    assert f"is {level}." in text
    assert f"a {level} medial temporal lobe" in conclusion(text)


def test_nothing_known_is_said_so(task: DiagnosisTask, wording: Wording) -> None:
    for name in task.label_names:
        text = write(Evidence({}, {}), name, task, wording)
        assert text == f"No single finding is decisive, but the whole picture fits {task.label(name).text} best."


def subsets(evidence: Evidence, data: st.DataObject) -> Evidence:
    kept = data.draw(st.sets(st.sampled_from([*evidence.fields, *evidence.grades])))
    return Evidence(
        {name: value for name, value in evidence.fields.items() if name in kept},
        {name: grade for name, grade in evidence.grades.items() if name in kept},
    )


@given(data=st.data())
def test_whatever_is_missing_nothing_is_invented(
    task: DiagnosisTask, wording: Wording, drawn_evidence: list[Evidence], data: st.DataObject
) -> None:
    evidence = subsets(drawn_evidence[data.draw(st.integers(0, len(drawn_evidence) - 1))], data)
    label = data.draw(st.sampled_from(task.label_names))
    for writer in (write_rationale, write_unweighed):
        seed = data.draw(st.integers(0, 999))
        text = writer(evidence, label, task, wording, Random(seed))
        assert text == writer(evidence, label, task, wording, Random(seed))
        assert "{" not in text and "  " not in text and text.endswith(".")
        assert task.label(label).text in conclusion(text)
        claims = extract_claims(text, task)
        counts = count_claims(claims, evidence)
        assert counts.supported == counts.total == len({claim.name for claim in claims})
        grouped = {name for group in wording.groups.values() for name in group.findings}
        wanted = {name for name in evidence.grades if name in grouped}
        wanted |= {name for name in evidence.fields if name in wording.fields and name != "age_years"}
        assert wanted <= {claim.name for claim in claims}


def test_unweighed_conclusion_does_not_depend_on_the_patient(task: DiagnosisTask, wording: Wording) -> None:
    """Language without knowledge: what is weighed says nothing about the evidence or the diagnosis."""
    severe = Evidence({"mmse": "10", "apoe4_copies": "2"}, dict.fromkeys(MEDIAL, "Severe"))
    healthy = Evidence({"mmse": "30", "apoe4_copies": "0"}, dict.fromkeys(MEDIAL, "No"))
    factors = [text for levels in wording.factors.values() for text in levels.values()]
    named: list[Counter[str]] = []
    for number, (evidence, label) in enumerate(((severe, "AD"), (healthy, "NC"))):
        count: Counter[str] = Counter()
        for seed in range(600):
            text = conclusion(write_unweighed(evidence, label, task, wording, Random(seed + 1000 * number)))
            support, contrary = text.split(task.label(label).text)
            count.update(f"for: {factor}" for factor in factors if factor in support)
            count.update(f"against: {factor}" for factor in factors if factor in contrary)
        named.append(count)
    for factor in (f"{side}: {factor}" for side in ("for", "against") for factor in factors):
        shares = [count[factor] / 600 for count in named]
        assert abs(shares[0] - shares[1]) < 4 * (2 * 0.25 / 600) ** 0.5, factor
        assert min(shares) > 0.05


def test_rationales_of_a_patient_differ_by_diagnosis_in_the_conclusion_alone(
    task: DiagnosisTask, wording: Wording, drawn_evidence: list[Evidence]
) -> None:
    texts = {name: write(drawn_evidence[0], name, task, wording, seed=3) for name in task.label_names}
    assert len({text.removesuffix(f"{conclusion(text)}.") for text in texts.values()}) == 1
    assert len(set(texts.values())) == 3


def test_wording_fits_the_task(task: DiagnosisTask, wording: Wording) -> None:
    findings = {finding.name for finding in task.findings}
    assert set(wording.labels) == set(task.label_names)
    assert set(wording.fields) <= {field.name for field in task.fields}
    levels: dict[str, set[str]] = {}
    for name, group in wording.groups.items():
        assert set(group.findings) <= findings
        lowest = [entry.at_least for entry in group.levels]
        assert lowest == sorted(lowest, reverse=True) and lowest[-1] == 0
        levels[name] = {entry.level for entry in group.levels}
    for name, field in wording.fields.items():
        texts = [*field.values.values(), *field.at_least.values()]
        levels[name] = {text.level for text in texts}
        assert all("{value}" in sentence for text in field.at_least.values() for sentence in text.sentences)
    for name, called in wording.factors.items():
        assert set(called) == levels[name]
    for rules in wording.labels.values():
        for name, supporting in rules.support.items():
            assert set(supporting) <= levels[name]
