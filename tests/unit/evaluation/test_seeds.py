"""Metrics over training seeds: means, draws of people and seeds, checks of each training; models on fewer visits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import roc_auc_score

from clinical_reasoner.evaluation.metrics import Estimate, ModelMetrics, evaluate, paired_difference
from clinical_reasoner.evaluation.resampling import seed_weights, subject_weights
from clinical_reasoner.evaluation.scored import named
from clinical_reasoner.records import PREDICTIONS, PredictionRow, to_table
from clinical_reasoner.task import DiagnosisTask

LABELS = ("AD", "MCI", "NC")
STUDENT, OTHER = ("student", "label_only"), ("other", "direct")
KNOWN = {
    "accuracy": {"value": 0.75, "low": 0.625, "high": 0.875},
    "macro_f1": {"value": 0.7785714285714285, "low": 0.6475372966752277, "high": 0.8872873563218391},
    "auroc": {"value": 0.9652014652014652, "low": 0.9369242238562092, "high": 0.990077046506734},
    "difference": {"value": 0.05, "low": -0.113125, "high": 0.21312499999999998},
}
"""Of the rows of chance 1, and of these minus those of chance 2, before there were training seeds."""


def training(
    seed: int | None, chance: int, key: tuple[str, str] = STUDENT, people: int = 20, visits: int = 2
) -> list[PredictionRow]:
    """Answers of one training; true labels depend on the person alone, about one answer in ten is unparsed."""
    rng = np.random.default_rng(chance)
    rows = []
    for person in range(people):
        truth = person % 3
        for visit in range(visits):
            p = rng.dirichlet(1 + 2 * np.eye(3)[truth])
            rows.append(
                PredictionRow(
                    patient_id=f"P{person}",
                    visit_id=f"V{visit}",
                    model=key[0],
                    arm=key[1],
                    seed=seed,
                    split="test",
                    label=LABELS[truth],
                    predicted=None if rng.random() < 0.1 else LABELS[int(p.argmax())],
                    probabilities=tuple(p.tolist()),
                )
            )
    return rows


def table_of(*groups: Sequence[PredictionRow]) -> pa.Table:
    return to_table([row for group in groups for row in group], PREDICTIONS)


def score(table: pa.Table, task: DiagnosisTask, resamples: int = 60, seed: int = 3) -> ModelMetrics:
    (one,) = evaluate(table, task, resamples=resamples, seed=seed)
    return one


def renamed(rows: Sequence[PredictionRow], **update: object) -> list[PredictionRow]:
    return [row.model_copy(update=update) for row in rows]


def width(one: Estimate) -> float:
    return one.high - one.low


def test_one_seed_gives_the_numbers_of_a_model_without_seeds(task: DiagnosisTask) -> None:
    """To the last digit, and those that this project has always given for these rows."""
    rows = training(None, chance=1)
    without, with_seed = score(table_of(rows), task), score(table_of(renamed(rows, seed=7)), task)
    assert without == with_seed and without.seeds == 1
    assert without.accuracy == Estimate(**KNOWN["accuracy"])
    assert without.macro_f1 == Estimate(**KNOWN["macro_f1"])
    assert without.auroc == Estimate(**KNOWN["auroc"])
    both = table_of(rows, training(None, chance=2, key=OTHER))
    assert paired_difference(both, STUDENT, OTHER, resamples=60, seed=3) == Estimate(**KNOWN["difference"])


def test_value_is_the_mean_over_seeds_and_counts_are_sums(task: DiagnosisTask) -> None:
    trainings = [training(seed, chance=seed) for seed in (5, 1, 3)]
    one, parts = score(table_of(*trainings), task), [score(table_of(rows), task) for rows in trainings]
    assert (one.seeds, one.n, one.n_subjects, one.answers) == (3, 40, 20, 120)
    for name in ("accuracy", "macro_f1", "auroc"):
        assert getattr(one, name).value == pytest.approx(np.mean([getattr(part, name).value for part in parts]))
    assert np.array_equal(one.confusion, np.sum([part.confusion for part in parts], axis=0))
    assert one.unparsed == sum(part.unparsed for part in parts) > 0


def test_draws_take_people_and_seeds(task: DiagnosisTask) -> None:
    """Each resample, written down as rows: the people that it drew, answered by each of the seeds that it drew."""
    seeds = (0, 1, 2)
    trainings = {seed: training(seed, chance=seed, people=12) for seed in seeds}
    people = sorted({row.patient_id for row in trainings[0]})
    drawn = zip(subject_weights(12, 60, 3)[1:], seed_weights(named(STUDENT), 3, 60, 3)[1:], strict=True)
    accuracy, areas = [], []
    for of_people, of_seeds in drawn:
        again = [
            [row for row in trainings[seed] for _ in range(of_people[people.index(row.patient_id)])]
            for seed in np.repeat(seeds, of_seeds)
        ]
        accuracy.append(np.mean([row.predicted == row.label for rows in again for row in rows]))
        if {row.label for row in again[0]} == set(LABELS):
            areas.append(np.mean([area_of(rows) for rows in again]))
    one = score(table_of(*trainings.values()), task)
    assert [one.accuracy.low, one.accuracy.high] == pytest.approx(np.quantile(accuracy, [0.025, 0.975]))
    assert one.auroc is not None and one.auroc_resamples == len(areas)
    assert [one.auroc.low, one.auroc.high] == pytest.approx(np.quantile(areas, [0.025, 0.975]))


def area_of(rows: Sequence[PredictionRow]) -> float:
    scores = np.array([row.probabilities for row in rows])
    return float(roc_auc_score([row.label for row in rows], scores, multi_class="ovr", labels=list(LABELS)))


def test_seeds_that_agree_add_nothing_and_seeds_that_differ_widen_the_interval(task: DiagnosisTask) -> None:
    rows = training(0, chance=1)
    single = score(table_of(rows), task)
    same = score(table_of(*(renamed(rows, seed=seed) for seed in range(3))), task)
    assert same.accuracy.model_dump() == pytest.approx(single.accuracy.model_dump())
    right = renamed(rows, predicted="AD", label="AD", seed=0)
    wrong = renamed(right, predicted="NC", seed=1)
    mixed = score(table_of(right, wrong), task)
    assert mixed.accuracy == Estimate(value=0.5, low=0, high=1), "all of it is between the seeds"


def test_seeds_are_drawn_alike_in_any_order_of_rows(task: DiagnosisTask) -> None:
    rows = [row for seed in range(3) for row in training(seed, chance=seed)]
    assert score(table_of(rows), task) == score(table_of(rows[::-1]), task)


def test_paired_difference_draws_the_same_people_and_each_model_its_seeds(task: DiagnosisTask) -> None:
    a = [training(seed, chance=seed) for seed in range(3)]
    b = [training(seed, chance=10 + seed, key=OTHER) for seed in range(2)]
    table = table_of(*a, *b)
    one = paired_difference(table, STUDENT, OTHER, resamples=80, seed=3)
    other = paired_difference(table, OTHER, STUDENT, resamples=80, seed=3)
    assert (one.value, one.low, one.high) == pytest.approx((-other.value, -other.high, -other.low))
    wrong = renamed(training(None, chance=0, key=OTHER), predicted=None)
    alone = paired_difference(table_of(*a, wrong), STUDENT, OTHER, resamples=80, seed=3)
    assert alone.model_dump() == pytest.approx(score(table_of(*a), task, resamples=80).accuracy.model_dump())
    # The same answers under another name: people cancel out, and what is left is chance in the draws of seeds.
    twin = [renamed(rows, model=OTHER[0], arm=OTHER[1]) for rows in a]
    apart = paired_difference(table_of(*a, *twin), STUDENT, OTHER, resamples=80, seed=3)
    assert apart.value == 0 and apart.low < 0 < apart.high
    assert width(apart) < width(score(table_of(*a), task, resamples=80).accuracy) * 1.5


def test_every_seed_answers_about_the_same_visits_once(task: DiagnosisTask) -> None:
    whole, other = training(0, chance=0), training(1, chance=1)
    with pytest.raises(ValueError, match=r"model 'student' \(arm 'label_only', seed 1\) lacks 3 of 40 visits"):
        score(table_of(whole, other[3:]), task)
    with pytest.raises(ValueError, match=r"once by one model: 2 of model 'student' \(arm 'label_only', seed 1\)$"):
        score(table_of(whole, other, other[:2]), task)
    with pytest.raises(ValueError, match=r"only some rows have a training seed: model 'student' \(arm 'label_only'\)"):
        score(table_of(whole, training(None, chance=1)), task)
    with pytest.raises(ValueError, match=r"seed \d\) has another true label than the other models on 1 visits"):
        score(table_of(whole, [*renamed(other[:1], label="NC"), *other[1:]]), task)
    table = table_of(whole, other[3:], training(None, chance=2, key=OTHER))
    with pytest.raises(ValueError, match="lacks 3 of 40 visits"):
        paired_difference(table, STUDENT, OTHER, resamples=5, seed=0)


def test_a_model_may_answer_about_fewer_visits_only_where_that_is_said(task: DiagnosisTask) -> None:
    whole, few = training(None, chance=0), training(None, chance=1, key=OTHER)[:30]
    table = table_of(whole, few)
    with pytest.raises(ValueError, match=r"model 'other' \(arm 'direct'\) lacks 10 of 40 visits"):
        evaluate(table, task, resamples=60, seed=3)
    first, second = evaluate(table, task, resamples=60, seed=3, partial=[OTHER])
    assert first == score(table_of(whole), task) and second == score(table_of(few), task)
    assert (second.n, second.n_subjects) == (30, 15)
    strangers = renamed(few[:2], patient_id="SECRET")
    with pytest.raises(ValueError, match=r"'other'.* answers about 1 visits that the other models lack") as found:
        evaluate(table_of(whole, strangers[:1]), task, resamples=5, seed=0, partial=[OTHER])
    assert "SECRET" not in str(found.value)
    table = table_of(whole, renamed(few, seed=1), renamed(few[:25], seed=2))
    with pytest.raises(ValueError, match=r"'other' \(arm 'direct', seed 2\) lacks 5 of 30 visits"):
        evaluate(table, task, resamples=5, seed=0, partial=[OTHER])
