"""Metrics against hand-computed numbers, scikit-learn, and what a bootstrap over subjects must do."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, roc_auc_score

from clinical_reasoner.evaluation.metrics import ModelMetrics, evaluate, macro_auroc, paired_difference
from clinical_reasoner.records import PREDICTIONS, PredictionRow, to_table
from clinical_reasoner.task import DiagnosisTask, load_task

LABELS = ("AD", "MCI", "NC")
Answer = tuple[str, str, str, str | None]
"""patient, visit, true label, predicted label"""


@pytest.fixture(scope="module")
def task() -> DiagnosisTask:
    return load_task("configs/tasks/alzheimers.yaml")


def rows_of(
    answers: Sequence[Answer],
    model: str = "m",
    arm: str = "direct",
    probabilities: Sequence[Sequence[float] | None] | None = None,
) -> list[PredictionRow]:
    given_probabilities = probabilities or [None] * len(answers)
    return [
        PredictionRow(
            patient_id=patient,
            visit_id=visit,
            model=model,
            arm=arm,
            split="test",
            label=label,
            predicted=predicted,
            probabilities=None if p is None else tuple(p),
        )
        for (patient, visit, label, predicted), p in zip(answers, given_probabilities, strict=True)
    ]


def table_of(*groups: list[PredictionRow]) -> pa.Table:
    return to_table([row for group in groups for row in group], PREDICTIONS)


def score(table: pa.Table, task: DiagnosisTask, resamples: int = 50, seed: int = 0) -> ModelMetrics:
    (one,) = evaluate(table, task, resamples=resamples, seed=seed)
    return one


def random_rows(seed: int, people: int = 40, visits: int = 2, model: str = "m") -> list[PredictionRow]:
    """Informative, tied probabilities (two decimals); about one answer in ten is unparsed."""
    rng = np.random.default_rng(seed)
    answers: list[Answer] = []
    probabilities = []
    for person in range(people):
        for visit in range(visits):
            truth = int(rng.integers(3)) if person > 2 else person
            p = np.round(rng.dirichlet(1 + 2 * np.eye(3)[truth]), 2)
            p[2] = 1 - p[0] - p[1]
            predicted = None if rng.random() < 0.1 else LABELS[int(p.argmax())]
            answers.append((f"P{person}", f"V{visit}", LABELS[truth], predicted))
            probabilities.append(p.tolist())
    return rows_of(answers, model=model, probabilities=probabilities)


def test_hand_computed_example(task: DiagnosisTask) -> None:
    answers: list[Answer] = [
        ("P1", "V1", "AD", "AD"),
        ("P1", "V2", "AD", "MCI"),
        ("P2", "V1", "MCI", "MCI"),
        ("P3", "V1", "NC", None),
        ("P4", "V1", "NC", "NC"),
    ]
    one = score(table_of(rows_of(answers)), task)
    assert (one.n, one.n_subjects, one.unparsed) == (5, 4, 1)
    assert one.confusion == ((1, 1, 0, 0), (0, 1, 0, 0), (0, 0, 1, 1))
    assert one.accuracy.value == pytest.approx(3 / 5)
    # F1 = 2 tp / (true + predicted): AD 2/(2+1), MCI 2/(1+2), NC 2/(2+1)
    assert one.macro_f1.value == pytest.approx(2 / 3)


def test_auroc_by_hand() -> None:
    truth = np.array([0, 0, 1, 1])
    first = np.array([0.9, 0.4, 0.4, 0.1])  # pairs of label 0: win, win, tie, win = 3.5 of 4; label 1 mirrors it
    probabilities = np.column_stack([first, 1 - first])
    weights = np.array([[1, 1, 1, 1], [0, 2, 1, 0], [1, 1, 0, 0]])
    areas = macro_auroc(truth, probabilities, weights)
    assert areas[:2] == pytest.approx([3.5 / 4, 0.5])
    assert np.isnan(areas[2])


@pytest.mark.parametrize("seed", range(5))
def test_agrees_with_scikit_learn(task: DiagnosisTask, seed: int) -> None:
    rows = random_rows(seed)
    one = score(table_of(rows), task)
    truth = [row.label for row in rows]
    predicted = [row.predicted or "unparsed" for row in rows]
    probabilities = np.array([row.probabilities for row in rows])
    assert one.unparsed == predicted.count("unparsed") > 0
    assert one.accuracy.value == pytest.approx(accuracy_score(truth, predicted))
    macro_f1 = f1_score(truth, predicted, labels=list(LABELS), average="macro", zero_division=0)
    assert one.macro_f1.value == pytest.approx(macro_f1)
    area = roc_auc_score(truth, probabilities, multi_class="ovr", average="macro", labels=list(LABELS))
    assert one.auroc is not None and one.auroc.value == pytest.approx(area)
    matrix = confusion_matrix(truth, predicted, labels=[*LABELS, "unparsed"])[:3]
    assert np.array_equal(one.confusion, matrix)


def test_resampled_metrics_equal_metrics_of_the_resampled_rows(task: DiagnosisTask) -> None:
    """Weights are a short cut: drawing a person twice must equal writing the rows down twice."""
    rows = random_rows(3, people=12)
    people = sorted({row.patient_id for row in rows})
    drawn = np.random.default_rng(7).multinomial(len(people), np.full(len(people), 1 / len(people)), size=40)
    accuracy = []
    areas = []
    for counts in drawn:
        again = [row for row in rows for _ in range(counts[people.index(row.patient_id)])]
        accuracy.append(np.mean([row.predicted == row.label for row in again]))
        if {row.label for row in again} == set(LABELS):
            scores = np.array([row.probabilities for row in again])
            truth = [row.label for row in again]
            areas.append(roc_auc_score(truth, scores, multi_class="ovr", average="macro", labels=list(LABELS)))
    one = score(table_of(rows), task, resamples=40, seed=7)
    assert [one.accuracy.low, one.accuracy.high] == pytest.approx(np.quantile(accuracy, [0.025, 0.975]))
    assert one.auroc is not None and one.auroc_resamples == len(areas)
    assert [one.auroc.low, one.auroc.high] == pytest.approx(np.quantile(areas, [0.025, 0.975]))


def test_people_are_drawn_not_visits(task: DiagnosisTask) -> None:
    """Four identical visits of a person carry the information of one, so the interval is twice as wide."""
    rng = random.Random(5)
    person = [(f"P{i}", rng.choice(LABELS), rng.choice(LABELS)) for i in range(60)]
    by_person: list[Answer] = [(p, f"V{v}", label, guess) for p, label, guess in person for v in range(4)]
    by_visit: list[Answer] = [(f"{p}-{v}", v, label, guess) for p, v, label, guess in by_person]
    clustered = score(table_of(rows_of(by_person)), task, resamples=1000)
    independent = score(table_of(rows_of(by_visit)), task, resamples=1000)
    assert (clustered.n_subjects, independent.n_subjects) == (60, 240)
    assert clustered.accuracy.value == independent.accuracy.value
    for wide, narrow in ((clustered.accuracy, independent.accuracy), (clustered.macro_f1, independent.macro_f1)):
        assert 1.6 < (wide.high - wide.low) / (narrow.high - narrow.low) < 2.4


def test_interval_is_as_wide_as_the_binomial_one(task: DiagnosisTask) -> None:
    answers: list[Answer] = [(f"P{i}", "V", "AD", "AD" if i % 2 else "NC") for i in range(400)]
    accuracy = score(table_of(rows_of(answers)), task, resamples=2000).accuracy
    standard_error = (0.5 * 0.5 / 400) ** 0.5
    assert accuracy.high - accuracy.low == pytest.approx(2 * 1.96 * standard_error, rel=0.1)


def test_unparsed_counts_as_an_error_in_every_metric(task: DiagnosisTask) -> None:
    right: list[Answer] = [(f"P{i}", "V", LABELS[i % 3], LABELS[i % 3]) for i in range(9)]
    perfect = score(table_of(rows_of(right)), task)
    silent = score(table_of(rows_of([(p, v, label, None) for p, v, label, _ in right])), task)
    one_gap = score(table_of(rows_of([(*right[0][:3], None), *right[1:]])), task)
    assert perfect.accuracy.value == perfect.macro_f1.value == 1
    assert (silent.n, silent.unparsed) == (9, 9)
    assert silent.accuracy.value == silent.accuracy.high == silent.macro_f1.value == 0
    assert one_gap.accuracy.value == pytest.approx(8 / 9)
    assert one_gap.macro_f1.value == pytest.approx((4 / 5 + 1 + 1) / 3)
    assert one_gap.confusion[0] == (2, 0, 0, 1)


def test_auroc_gives_its_reason(task: DiagnosisTask) -> None:
    rows = random_rows(1)
    without = [row.model_copy(update={"probabilities": None}) for row in rows]
    one = score(table_of(without), task)
    assert one.auroc is None and one.auroc_reason == "no visit has probabilities"
    one = score(table_of([row for row in rows if row.label != "NC"]), task)
    assert one.auroc is None and one.auroc_reason == "1 of 3 labels do not occur among the true labels"
    one = score(table_of(rows), task)
    assert one.auroc is not None and one.auroc_reason is None


def test_visit_without_probabilities_keeps_the_auroc(task: DiagnosisTask) -> None:
    """As if its answer were certain, or, where that could not be parsed, as if it ruled the true label out."""
    rows = random_rows(1)
    sure = [1.0 if name == rows[0].predicted else 0.0 for name in LABELS]
    wrong = [0.0 if name == rows[1].label else 0.5 for name in LABELS]
    gaps = [
        rows[0].model_copy(update={"probabilities": None}),
        rows[1].model_copy(update={"probabilities": None, "predicted": None}),
        *rows[2:],
    ]
    filled = [
        rows[0].model_copy(update={"probabilities": tuple(sure)}),
        rows[1].model_copy(update={"probabilities": tuple(wrong)}),
        *rows[2:],
    ]
    one, same = score(table_of(gaps), task), score(table_of(filled), task)
    assert one.without_probabilities == 2 and one.auroc == same.auroc != score(table_of(rows), task).auroc


def test_resamples_without_a_label_are_left_out_and_counted(task: DiagnosisTask) -> None:
    answers: list[Answer] = [(f"P{i}", "V", label, label) for i, label in enumerate(("AD", "MCI", "NC", "NC"))]
    probabilities = [[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8], [0.2, 0.1, 0.7]]
    one = score(table_of(rows_of(answers, probabilities=probabilities)), task, resamples=500)
    # Chance that 4 draws hold AD (1/4), MCI (1/4) and NC (1/2): 1 - 2 (3/4)^4 - (1/2)^4 + (1/2)^4 + 2 (1/4)^4 = 96/256.
    assert one.resamples == 500
    assert one.auroc_resamples / 500 == pytest.approx(96 / 256, abs=0.08)
    assert one.auroc is not None and one.auroc.low == one.auroc.high == 1


def test_models_keep_the_order_of_their_first_row(task: DiagnosisTask) -> None:
    rows = [random_rows(1, model=name) for name in ("z", "a", "k")]
    mixed = [row for three in zip(*rows, strict=True) for row in three]
    assert [one.model for one in evaluate(table_of(mixed), task, resamples=5, seed=0)] == ["z", "a", "k"]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), order=st.randoms(use_true_random=False))
def test_order_of_rows_and_repetition_change_nothing(seed: int, order: random.Random) -> None:
    task = load_task("configs/tasks/alzheimers.yaml")
    rows = random_rows(seed, people=8)
    shuffled = list(rows)
    order.shuffle(shuffled)
    assert score(table_of(rows), task) == score(table_of(shuffled), task)


def test_seed_changes_the_interval_only(task: DiagnosisTask) -> None:
    table = table_of(random_rows(2))
    one, other = score(table, task, seed=1), score(table, task, seed=2)
    assert one.accuracy.value == other.accuracy.value
    assert one.accuracy != other.accuracy


def test_paired_difference_by_hand() -> None:
    truth = [(f"P{i}", "V", "AD") for i in range(10)]
    a = rows_of([(*t, "AD" if i < 7 else "NC") for i, t in enumerate(truth)], model="a")
    b = rows_of([(*t, "AD" if i < 4 else None) for i, t in enumerate(truth)], model="b")
    one = paired_difference(table_of(a, b), ("a", "direct"), ("b", "direct"), resamples=2000, seed=0)
    assert one.value == pytest.approx(0.3)
    # b is right only where a is: each resample gives a share of the 3 people, so it cannot fall below zero.
    assert 0 <= one.low < 0.3 < one.high


def test_pairing_removes_what_both_share() -> None:
    a = rows_of([(f"P{i}", "V", "AD", "AD" if i % 2 else "NC") for i in range(50)], model="a")
    b = [row.model_copy(update={"model": "b"}) for row in a]
    one = paired_difference(table_of(a, b), ("a", "direct"), ("b", "direct"), resamples=200, seed=0)
    assert (one.value, one.low, one.high) == (0, 0, 0)


def test_paired_difference_weighs_visits_and_draws_people(task: DiagnosisTask) -> None:
    """With a model that is always wrong the difference is the other one's accuracy, interval and all."""
    rows = random_rows(4, people=20, visits=3)
    wrong = [row.model_copy(update={"model": "wrong", "predicted": None}) for row in rows]
    one = paired_difference(table_of(rows, wrong), ("m", "direct"), ("wrong", "direct"), resamples=300, seed=3)
    assert one.model_dump() == pytest.approx(score(table_of(rows), task, resamples=300, seed=3).accuracy.model_dump())


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_paired_difference_changes_sign_with_the_order(seed: int) -> None:
    table = table_of(random_rows(0, model="a"), _answered_by_chance(random_rows(0, model="b"), seed))
    a, b = ("a", "direct"), ("b", "direct")
    one = paired_difference(table, a, b, resamples=100, seed=seed)
    other = paired_difference(table, b, a, resamples=100, seed=seed)
    assert (one.value, one.low, one.high) == pytest.approx((-other.value, -other.high, -other.low))


def _answered_by_chance(rows: list[PredictionRow], seed: int) -> list[PredictionRow]:
    rng = random.Random(seed)
    return [row.model_copy(update={"predicted": rng.choice(LABELS)}) for row in rows]


def test_different_visits_raise_and_name_the_gap(task: DiagnosisTask) -> None:
    a, b = random_rows(1, model="a"), random_rows(1, model="b")
    table = table_of(a, b[:-3])
    with pytest.raises(ValueError, match=r"model 'b' \(arm 'direct'\) lacks 3 of 80 visits") as found:
        evaluate(table, task, resamples=5, seed=0)
    assert "model 'a'" not in str(found.value)
    with pytest.raises(ValueError, match="lacks 3 of 80 visits"):
        paired_difference(table, ("a", "direct"), ("b", "direct"), resamples=5, seed=0)
    with pytest.raises(ValueError, match=r"'a'.* lacks 2 of 80 visits; model 'b'.* lacks 3 of 80"):
        evaluate(table_of(a[2:], b[:-3]), task, resamples=5, seed=0)


def test_a_visit_twice_raises_without_naming_the_patient(task: DiagnosisTask) -> None:
    rows = rows_of([("SECRET-ID", "V1", "AD", "AD"), ("P2", "V1", "NC", "NC")])
    table = table_of(rows, rows[:1])
    with pytest.raises(ValueError, match=r"more than once.*1 of model 'm'") as found:
        evaluate(table, task, resamples=5, seed=0)
    assert "SECRET-ID" not in str(found.value)


@pytest.mark.parametrize(("label", "predicted", "column"), [("CN", "NC", "label"), ("NC", "dementia", "predicted")])
def test_a_label_that_is_not_in_the_task_raises(task: DiagnosisTask, label: str, predicted: str, column: str) -> None:
    table = table_of(rows_of([("P1", "V1", "AD", "AD"), ("P2", "V1", label, predicted)]))
    with pytest.raises(ValueError, match=rf"{column} is not a label of the task \(AD, MCI, NC\) on 1 visits"):
        evaluate(table, task, resamples=5, seed=0)


def test_true_labels_that_differ_between_models_raise(task: DiagnosisTask) -> None:
    table = table_of(rows_of([("P1", "V1", "AD", "AD")], model="a"), rows_of([("P1", "V1", "NC", "AD")], model="b"))
    with pytest.raises(ValueError, match="another true label"):
        evaluate(table, task, resamples=5, seed=0)


@pytest.mark.parametrize("bad", [[0.5, 0.5], [0.2, 0.3, float("nan")]])
def test_probabilities_of_another_size_raise(task: DiagnosisTask, bad: list[float]) -> None:
    table = table_of(rows_of([("P1", "V1", "AD", "AD")], probabilities=[bad]))
    with pytest.raises(ValueError, match="probabilities are not 3 finite numbers on 1 visits"):
        evaluate(table, task, resamples=5, seed=0)


def test_an_empty_table_an_unknown_model_and_no_resamples_raise(task: DiagnosisTask) -> None:
    with pytest.raises(ValueError, match="empty"):
        evaluate(PREDICTIONS.empty_table(), task, resamples=5, seed=0)
    table = table_of(random_rows(1))
    with pytest.raises(ValueError, match=r"no predictions of model 'x' \(arm 'direct'\); there are model 'm'"):
        paired_difference(table, ("m", "direct"), ("x", "direct"), resamples=5, seed=0)
    with pytest.raises(ValueError, match="at least 1"):
        evaluate(table, task, resamples=0, seed=0)
