"""Which exemplars a patient's prompt has: the same ones on every machine, and never the patient."""

from __future__ import annotations

import pickle
import random
from collections import Counter
from dataclasses import replace
from typing import Any, get_args

import pytest

from clinical_reasoner.config.rationales import ExemplarOrder, ExemplarSelection
from clinical_reasoner.evidence.description import Evidence, describe_evidence
from clinical_reasoner.llm.prompting import Exemplar
from clinical_reasoner.rationales.exemplars import NO_EXEMPLARS, ExemplarChoice, in_turn, nearness
from clinical_reasoner.task import DiagnosisTask


def patient(mmse: int, age: int, grade: str, **fields: str) -> Evidence:
    return Evidence(
        {"age_years": str(age), "mmse": str(mmse), **fields},
        {"hippocampal_atrophy": grade, "frontal_atrophy": "No"},
    )


CASES = {
    "ad1": (patient(18, 80, "Severe"), "AD"),
    "ad2": (patient(20, 72, "Severe"), "AD"),
    "ad3": (patient(16, 88, "Severe"), "AD"),
    "mci1": (patient(26, 75, "Mild"), "MCI"),
    "nc1": (patient(30, 70, "No"), "NC"),
    "nc2": (patient(29, 78, "No"), "NC"),
}


@pytest.fixture
def pool(task: DiagnosisTask) -> tuple[Exemplar, ...]:
    return tuple(
        Exemplar(describe_evidence(evidence, task), f"Why {name}.", label, name)
        for name, (evidence, label) in CASES.items()
    )


def choice(pool: tuple[Exemplar, ...], **changed: Any) -> ExemplarChoice:
    return replace(ExemplarChoice(pool, 3, "fixed", "labels_in_turn", seed=0), **changed)


def names(chosen: tuple[Exemplar, ...]) -> list[str]:
    return [one.name for one in chosen]


@pytest.mark.parametrize(
    ("order", "expected"),
    [("labels_in_turn", ["ad1", "mci1", "nc1", "ad2"]), ("file", ["ad1", "ad2", "ad3", "mci1"])],
)
def test_fixed_ones_are_the_first_in_the_order(
    task: DiagnosisTask, pool: tuple[Exemplar, ...], order: ExemplarOrder, expected: list[str]
) -> None:
    fixed = choice(pool, order=order, shots=4)
    assert names(fixed.choose("p|bl", "The patient is a woman.", task)) == expected
    assert fixed.choose("q|bl", "Another text.", task) == fixed.choose("p|bl", "The patient is a woman.", task)
    assert choice(pool, shots=0).choose("p|bl", "x", task) == NO_EXEMPLARS.choose("p|bl", "x", task) == ()


def test_shuffled_by_the_seed_and_the_same_for_all(task: DiagnosisTask, pool: tuple[Exemplar, ...]) -> None:
    orders = {
        tuple(names(choice(pool, order="shuffled", shots=6, seed=seed).choose(key, "x", task)))
        for seed in range(20)
        for key in ("p|bl", "q|bl")
    }
    assert all(sorted(order) == sorted(CASES) for order in orders)
    assert 15 < len(orders) <= 20


def test_random_ones_are_drawn_for_each_patient(task: DiagnosisTask, pool: tuple[Exemplar, ...]) -> None:
    drawn = choice(pool, how="random", order="file", shots=2)
    chosen = [names(drawn.choose(f"p{number}|bl", "x", task)) for number in range(600)]
    assert chosen == [names(drawn.choose(f"p{number}|bl", "y", task)) for number in range(600)]
    assert chosen[:9] != [names(replace(drawn, seed=1).choose(f"p{number}|bl", "x", task)) for number in range(9)]
    assert all(pair == sorted(pair, key=list(CASES).index) for pair in chosen)
    counts = Counter(name for pair in chosen for name in pair)
    assert set(counts) == set(CASES)
    assert min(counts.values()) > 150  # 200 on average


def test_random_ones_in_turn_have_as_many_of_each_label(task: DiagnosisTask, pool: tuple[Exemplar, ...]) -> None:
    drawn = choice(pool, how="random")
    labels = [[one.label for one in drawn.choose(f"p{number}|bl", "x", task)] for number in range(50)]
    assert all(sorted(one) == ["AD", "MCI", "NC"] for one in labels)


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        (patient(20, 73, "Severe"), ["ad1", "ad2", "ad3"]),
        (patient(30, 71, "No"), ["mci1", "nc1", "nc2"]),
        (patient(27, 76, "Mild"), ["mci1", "nc1", "nc2"]),
        # Of grades alone, and of numbers alone.
        (Evidence({}, {"hippocampal_atrophy": "Severe", "frontal_atrophy": "No"}), ["ad1", "ad2", "ad3"]),
        (Evidence({"mmse": "17", "age_years": "90+"}, {}), ["ad1", "ad2", "ad3"]),
    ],
)
def test_nearest_ones(task: DiagnosisTask, pool: tuple[Exemplar, ...], evidence: Evidence, expected: list[str]) -> None:
    near = choice(pool, how="nearest", order="file")
    description = describe_evidence(evidence, task)
    assert names(near.choose("p|bl", description, task)) == expected
    assert near.choose("p|bl", description, task) == near.choose("another|m06", description, task)


def test_ties_of_nearness_go_by_the_order(task: DiagnosisTask, pool: tuple[Exemplar, ...]) -> None:
    unknown = "A text in other words."
    assert names(choice(pool, how="nearest", order="file").choose("p", unknown, task)) == ["ad1", "ad2", "ad3"]
    assert names(choice(pool, how="nearest").choose("p", unknown, task)) == ["ad1", "mci1", "nc1"]


def test_nearness() -> None:
    one = patient(20, 70, "Mild", sex="female")
    assert nearness(one, one) == 1
    assert nearness(one, patient(20, 70, "Mild", sex="male")) == 1
    assert nearness(one, patient(20, 70, "No")) == pytest.approx((0.5 + 1 + 1) / 3)
    assert nearness(one, patient(23, 76, "Mild")) == pytest.approx((1 + 0.8 + 0.8) / 3)
    assert nearness(one, patient(0, 10, "Mild")) == pytest.approx(1 / 3)
    assert nearness(one, Evidence({}, {})) == nearness(Evidence({}, {}), Evidence({}, {})) == 0
    assert nearness(one, patient(25, 64, "No")) == nearness(patient(25, 64, "No"), one)


@pytest.mark.parametrize("how", get_args(ExemplarSelection))
@pytest.mark.parametrize("order", get_args(ExemplarOrder))
def test_patient_is_never_an_exemplar(
    task: DiagnosisTask, pool: tuple[Exemplar, ...], how: ExemplarSelection, order: ExemplarOrder
) -> None:
    every = choice(pool, how=how, order=order, shots=6)
    for one in pool:
        for description in (one.description, one.description.removesuffix(task.question_text()) + "\n"):
            chosen = names(every.choose("p|bl", description, task))
            assert sorted(chosen) == sorted(set(CASES) - {one.name})
            sent = pickle.loads(pickle.dumps(every))
            assert names(sent.choose("p|bl", description, task)) == chosen


def test_labels_in_turn(pool: tuple[Exemplar, ...]) -> None:
    assert [one.name for one in in_turn(pool)] == ["ad1", "mci1", "nc1", "ad2", "nc2", "ad3"]
    mixed = random.Random(0).sample(pool, len(pool))
    assert sorted(one.name for one in in_turn(mixed)) == sorted(CASES)
