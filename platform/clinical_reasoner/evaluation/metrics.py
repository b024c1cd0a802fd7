"""Diagnosis metrics of the `predictions` table, with intervals from a bootstrap over subjects and training seeds.

A model that was trained with several seeds has the mean over them as its value of every metric; `resampling` says how
people and seeds are drawn. An answer that could not be parsed is an error in every metric.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import lru_cache

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from clinical_reasoner.evaluation.resampling import Estimate as Estimate
from clinical_reasoner.evaluation.resampling import Floats, Ints, estimate, over_seeds, seed_weights, subject_weights
from clinical_reasoner.evaluation.scored import (
    Answers,
    Rows,
    by_model,
    named,
    read_answers,
    require_same_visits,
    subjects_of,
)
from clinical_reasoner.evaluation.scored import Key as Key
from clinical_reasoner.task import DiagnosisTask


class ModelMetrics(BaseModel):
    """One model in one arm. All three metrics lie in 0..1, higher is better, and are means over its training seeds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    arm: str
    seeds: int = Field(default=1, ge=1)
    """Trainings with seeds of their own; 1 also where nothing was trained."""
    n: int = Field(ge=1)
    """Visits, about which each of them answered."""
    n_subjects: int = Field(ge=1)
    unparsed: int = Field(ge=0)
    """Answers that could not be parsed, of all seeds together; they count as errors."""
    without_probabilities: int = Field(ge=0)
    """Answers without probabilities, of all seeds together. In the AUROC their prediction counts as certain; an
    unparsed answer gives the true label 0 and shares the rest equally."""
    accuracy: Estimate
    macro_f1: Estimate
    """Mean F1 over all labels of the task; a label that is neither true nor predicted anywhere counts 0."""
    auroc: Estimate | None
    """One-vs-rest AUROC, mean over the labels; None where `auroc_reason` says why."""
    auroc_reason: str | None
    confusion: tuple[tuple[int, ...], ...]
    """Answers, summed over the seeds; rows = true label, columns = predicted label in the task's order, then one column
    "unparsed"."""
    resamples: int = Field(ge=1)
    """Bootstrap resamples behind the intervals."""
    auroc_resamples: int = Field(ge=0)
    """Those behind the AUROC's interval: a resample without every label has no AUROC and is left out."""

    @property
    def answers(self) -> int:
        """Of all seeds together."""
        return self.n * self.seeds


def evaluate(
    predictions: pa.Table, task: DiagnosisTask, *, resamples: int, seed: int, partial: Collection[Key] = ()
) -> list[ModelMetrics]:
    """Metrics of each (model, arm), in the order in which they first appear. Every row is scored, whatever its split.

    All models see the same draws of subjects, and the order of rows does not matter. Models of `partial` may have
    answered about fewer visits than the others; they are scored on theirs, and drawn from the people of these. Raises
    ValueError if the table is empty, two other models or two seeds of one were not asked about the same visits or
    disagree on a true label, a visit is there twice for one seed of a model, a label is not in the task, or
    probabilities are not one finite number for each label.
    """
    groups = by_model(predictions)
    require_same_visits(groups, partial)
    answers = {
        key: [read_answers(key, trained, rows, task.label_names) for trained, rows in trainings.items()]
        for key, trainings in groups.items()
    }
    drawn = lru_cache(maxsize=None)(lambda subjects: subject_weights(subjects, resamples, seed))
    found = []
    for key, of_seeds in answers.items():
        weights = drawn(int(of_seeds[0].subject.max()) + 1)
        seeds = seed_weights(named(key), len(of_seeds), resamples, seed)
        found.append(_score(key, of_seeds, len(task.labels), weights, seeds))
    return found


def paired_difference(predictions: pa.Table, a: Key, b: Key, *, resamples: int, seed: int) -> Estimate:
    """Accuracy of `a` minus accuracy of `b` on the same visits, -1..1; above 0 means that `a` is more accurate.

    Both are drawn together, person by person, and each with draws of its own seeds: two trainings with the same number
    have nothing in common. Raises ValueError if one of them is not in the table, they were not asked about the same
    visits, or a visit is there twice for one seed of a model.
    """
    groups = by_model(predictions)
    absent = [named(key) for key in (a, b) if key not in groups]
    if absent:
        raise ValueError(f"no predictions of {', '.join(absent)}; there are {', '.join(map(named, groups))}")
    require_same_visits({a: groups[a], b: groups[b]})
    visits = sorted(next(iter(groups[a].values())))
    subject = subjects_of(visits)
    weights = subject_weights(int(subject.max()) + 1, resamples, seed)

    def right(key: Key) -> Floats:
        """(draws,) right answers, mean over the seeds."""
        counts = weights @ np.column_stack([_right(rows, visits, subject) for rows in groups[key].values()])
        return over_seeds(counts.T, seed_weights(named(key), counts.shape[1], resamples, seed))

    return estimate((right(a) - right(b)) / (weights @ np.bincount(subject)))


def _score(key: Key, of_seeds: Sequence[Answers], labels: int, weights: Ints, seeds: Ints) -> ModelMetrics:
    counts_of = [confusions(one.truth, one.predicted, one.subject, labels, weights) for one in of_seeds]
    first = of_seeds[0]
    auroc, reason, used = _auroc(of_seeds, labels, weights, seeds)
    return ModelMetrics(
        model=key[0],
        arm=key[1],
        seeds=len(of_seeds),
        n=len(first.truth),
        n_subjects=weights.shape[1],
        unparsed=sum(int((answers.predicted == labels).sum()) for answers in of_seeds),
        without_probabilities=sum(answers.without_probabilities for answers in of_seeds),
        accuracy=estimate(over_seeds(np.stack([accuracies(counts) for counts in counts_of]), seeds)),
        macro_f1=estimate(over_seeds(np.stack([macro_f1s(counts) for counts in counts_of]), seeds)),
        auroc=auroc,
        auroc_reason=reason,
        confusion=tuple(tuple(row) for row in sum(counts[0] for counts in counts_of).tolist()),
        resamples=len(weights) - 1,
        auroc_resamples=used,
    )


def confusions(truth: Ints, predicted: Ints, subject: Ints, labels: int, weights: Ints) -> Ints:
    """(draws, labels, labels + 1) confusion matrices: counts of each person, added up by their weight.

    `truth`, `predicted` and `subject` (visits,) as in `scored.Answers`, `weights` (draws, subjects).
    """
    counts = np.zeros((weights.shape[1], labels * (labels + 1)), dtype=np.int64)
    np.add.at(counts, (subject, truth * (labels + 1) + predicted), 1)
    return (weights @ counts).reshape(-1, labels, labels + 1)


def accuracies(confusion: Ints) -> Floats:
    """(draws,) of `confusion` (draws, labels, labels + 1)."""
    return np.asarray(np.diagonal(confusion, axis1=1, axis2=2).sum(axis=1) / confusion.sum(axis=(1, 2)))


def macro_f1s(confusion: Ints) -> Floats:
    """(draws,) of `confusion` (draws, labels, labels + 1)."""
    hits = np.diagonal(confusion, axis1=1, axis2=2)
    # Rows hold the unparsed answers too, so that they count as misses of the true label.
    marked = confusion.sum(axis=2) + confusion[:, :, : confusion.shape[1]].sum(axis=1)
    f1: Floats = np.divide(2 * hits, marked, out=np.zeros(hits.shape), where=marked > 0)
    return np.asarray(f1.mean(axis=1))


def _auroc(
    of_seeds: Sequence[Answers], labels: int, weights: Ints, seeds: Ints
) -> tuple[Estimate | None, str | None, int]:
    """Macro AUROC or the reason why there is none, and the number of resamples behind its interval."""
    first = of_seeds[0]
    if all(answers.without_probabilities == len(first.truth) for answers in of_seeds):
        return None, "no visit has probabilities", 0
    missing = labels - len(np.unique(first.truth))
    if missing:
        return None, f"{missing} of {labels} labels do not occur among the true labels", 0
    drawn = weights[:, first.subject]
    # All seeds have the same true labels, so that the same draws lack one.
    areas = np.stack([macro_auroc(answers.truth, answers.probabilities, drawn) for answers in of_seeds])
    means = over_seeds(areas, seeds)
    used = means[np.isfinite(means)]
    if len(used) < 2:
        return None, "no resample of the subjects holds every label", 0
    return estimate(used), None, len(used) - 1


def macro_auroc(truth: Ints, probabilities: Floats, weights: Ints) -> Floats:
    """One-vs-rest AUROC, mean over the labels, for each draw; shape (draws,), 0..1, NaN where a label is missing.

    `truth` (visits,), `probabilities` (visits, labels), `weights` (draws, visits) = how often a visit was drawn.
    The area is the chance that a visit with the label ranks above one without it, ties count one half:
    Hanley & McNeil 1982, doi:10.1148/radiology.143.1.7063747.
    """
    areas = np.full((len(weights), probabilities.shape[1]), np.nan)
    for label in range(probabilities.shape[1]):
        order = np.argsort(probabilities[:, label], kind="stable")
        ties = np.flatnonzero(np.diff(probabilities[order, label], prepend=-np.inf) > 0)
        drawn, is_label = weights[:, order], truth[order] == label
        positive = np.add.reduceat(drawn * is_label, ties, axis=1)
        negative = np.add.reduceat(drawn * ~is_label, ties, axis=1)
        below = np.cumsum(negative, axis=1) - negative
        pairs = positive.sum(axis=1) * negative.sum(axis=1)
        wins = (positive * (below + negative / 2)).sum(axis=1)
        np.divide(wins, pairs, out=areas[:, label], where=pairs > 0)
    return np.asarray(areas.mean(axis=1))


def _right(rows: Rows, visits: list[tuple[str, str]], subject: Ints) -> Ints:
    """(subjects,) right answers of one training about each person."""
    right = [
        rows[visit]["predicted"] is not None and rows[visit]["predicted"] == rows[visit]["label"] for visit in visits
    ]
    return np.bincount(subject[np.array(right)], minlength=int(subject.max()) + 1)
