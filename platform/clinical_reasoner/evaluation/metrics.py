"""Diagnosis metrics of the `predictions` table, with intervals from a bootstrap over subjects.

All visits of a person are drawn together, because they are not independent: Field & Welsh 2007, "Bootstrapping
clustered data", doi:10.1111/j.1467-9868.2007.00593.x. An answer that could not be parsed is an error in every metric.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from clinical_reasoner.task import DiagnosisTask

Key = tuple[str, str]
"""Model and arm."""
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
_Rows = dict[tuple[str, str], dict[str, Any]]
_COLUMNS = ["patient_id", "visit_id", "model", "arm", "label", "predicted", "probabilities"]
_TAILS = (0.025, 0.975)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Estimate(_Strict):
    """A number from all subjects and its 95 % percentile bootstrap interval, in the same unit."""

    value: float
    low: float
    high: float


class ModelMetrics(_Strict):
    """One model in one arm. All three metrics lie in 0..1, higher is better."""

    model: str
    arm: str
    n: int = Field(ge=1)
    """Visits."""
    n_subjects: int = Field(ge=1)
    unparsed: int = Field(ge=0)
    """Visits whose answer could not be parsed; they count as errors."""
    without_probabilities: int = Field(ge=0)
    """Visits without probabilities. In the AUROC their prediction counts as certain; an unparsed answer gives the true
    label 0 and shares the rest equally."""
    accuracy: Estimate
    macro_f1: Estimate
    """Mean F1 over all labels of the task; a label that is neither true nor predicted anywhere counts 0."""
    auroc: Estimate | None
    """One-vs-rest AUROC, mean over the labels; None where `auroc_reason` says why."""
    auroc_reason: str | None
    confusion: tuple[tuple[int, ...], ...]
    """Visits; rows = true label, columns = predicted label in the task's order, then one column "unparsed"."""
    resamples: int = Field(ge=1)
    """Bootstrap resamples behind the intervals."""
    auroc_resamples: int = Field(ge=0)
    """Those behind the AUROC's interval: a resample without every label has no AUROC and is left out."""


@dataclass(frozen=True)
class _Answers:
    truth: Ints
    """(visits,) index of the true label."""
    predicted: Ints
    """(visits,) index of the predicted label; number of labels = unparsed."""
    subject: Ints
    """(visits,) index of the person."""
    probabilities: Floats | None
    """(visits, labels), None if every visit lacks them. A single visit without them is filled in: its prediction with
    certainty, or 0 for the true label where the answer could not be parsed."""
    without_probabilities: int


def evaluate(predictions: pa.Table, task: DiagnosisTask, *, resamples: int, seed: int) -> list[ModelMetrics]:
    """Metrics of each (model, arm), in the order in which they first appear. Every row is scored, whatever its split.

    All models see the same draws of subjects, and the order of rows does not matter. Raises ValueError if the table
    is empty, two models were not asked about the same visits or disagree on a true label, a visit is there twice for
    one model, a label is not in the task, or probabilities are not one finite number for each label.
    """
    groups = _by_model(predictions)
    _require_same_visits(groups)
    answers = {key: _read(key, rows, task.label_names) for key, rows in groups.items()}
    subjects = int(next(iter(answers.values())).subject.max()) + 1
    weights = _weights(subjects, resamples, seed)
    return [_score(key, one, len(task.labels), weights) for key, one in answers.items()]


def paired_difference(predictions: pa.Table, a: Key, b: Key, *, resamples: int, seed: int) -> Estimate:
    """Accuracy of `a` minus accuracy of `b` on the same visits, -1..1; above 0 means that `a` is more accurate.

    Both are drawn together, person by person. Raises ValueError if one of them is not in the table, they were not
    asked about the same visits, or a visit is there twice for one model.
    """
    groups = _by_model(predictions)
    absent = [_named(key) for key in (a, b) if key not in groups]
    if absent:
        raise ValueError(f"no predictions of {', '.join(absent)}; there are {', '.join(map(_named, groups))}")
    _require_same_visits({a: groups[a], b: groups[b]})
    visits = sorted(groups[a])
    subject = _subjects(visits)
    right = [[_is_right(rows[visit]) for visit in visits] for rows in (groups[a], groups[b])]
    weights = _weights(int(subject.max()) + 1, resamples, seed)
    gained = np.bincount(subject, weights=np.subtract(right[0], right[1]))
    return _estimate((weights @ gained) / (weights @ np.bincount(subject)))


def _by_model(predictions: pa.Table) -> dict[Key, _Rows]:
    """Rows by (model, arm), then by (patient_id, visit_id)."""
    groups: dict[Key, _Rows] = {}
    twice: Counter[Key] = Counter()
    for row in predictions.select(_COLUMNS).to_pylist():
        key, visit = (row["model"], row["arm"]), (row["patient_id"], row["visit_id"])
        rows = groups.setdefault(key, {})
        twice[key] += visit in rows
        rows[visit] = row
    if not groups:
        raise ValueError("the table of predictions is empty")
    # Identifiers stay out of every message: it may end in a log.
    found = [f"{number} of {_named(key)}" for key, number in twice.items() if number]
    if found:
        raise ValueError(f"visits that are predicted more than once by one model: {'; '.join(found)}")
    return groups


def _require_same_visits(groups: Mapping[Key, _Rows]) -> None:
    labels: dict[tuple[str, str], str | None] = {}
    for rows in groups.values():
        labels |= {visit: row["label"] for visit, row in rows.items()}
    gaps = [
        f"{_named(key)} lacks {len(labels) - len(rows)} of {len(labels)} visits"
        for key, rows in groups.items()
        if len(rows) < len(labels)
    ]
    if gaps:
        raise ValueError(f"the models were not predicted on the same visits: {'; '.join(gaps)}")
    for key, rows in groups.items():
        other = sum(row["label"] != labels[visit] for visit, row in rows.items())
        if other:
            raise ValueError(f"{_named(key)} has another true label than the other models on {other} visits")


def _read(key: Key, rows: _Rows, labels: tuple[str, ...]) -> _Answers:
    visits = sorted(rows)
    index = {name: place for place, name in enumerate(labels)}
    for column, allowed in (("label", set(labels)), ("predicted", {*labels, None})):
        unknown = sum(row[column] not in allowed for row in rows.values())
        if unknown:
            raise ValueError(
                f"{_named(key)}: {column} is not a label of the task ({', '.join(labels)}) on {unknown} visits"
            )
    lists = [rows[visit]["probabilities"] for visit in visits]
    given = [one for one in lists if one is not None]
    bad = sum(len(one) != len(labels) or not all(p is not None and np.isfinite(p) for p in one) for one in given)
    if bad:
        raise ValueError(f"{_named(key)}: probabilities are not {len(labels)} finite numbers on {bad} visits")
    return _Answers(
        truth=np.array([index[rows[visit]["label"]] for visit in visits], dtype=np.int64),
        predicted=np.array([index.get(rows[visit]["predicted"], len(labels)) for visit in visits], dtype=np.int64),
        subject=_subjects(visits),
        probabilities=_filled(lists, rows, visits, labels) if given else None,
        without_probabilities=len(lists) - len(given),
    )


def _filled(lists: list[Any], rows: _Rows, visits: list[tuple[str, str]], labels: tuple[str, ...]) -> Floats:
    table = np.zeros((len(visits), len(labels)))
    for place, (values, visit) in enumerate(zip(lists, visits, strict=True)):
        row = rows[visit]
        if values is not None:
            table[place] = values
        elif row["predicted"] is not None:
            table[place, labels.index(row["predicted"])] = 1.0
        else:
            table[place] = [0.0 if name == row["label"] else 1 / (len(labels) - 1) for name in labels]
    return table


def _score(key: Key, answers: _Answers, labels: int, weights: Ints) -> ModelMetrics:
    confusion = _confusions(answers, labels, weights)
    hits = np.diagonal(confusion, axis1=1, axis2=2)
    # Rows hold the unparsed answers too, so that they count as misses of the true label.
    marked = confusion.sum(axis=2) + confusion[:, :, :labels].sum(axis=1)
    f1 = np.divide(2 * hits, marked, out=np.zeros(hits.shape), where=marked > 0)
    auroc, reason, used = _auroc(answers, labels, weights)
    return ModelMetrics(
        model=key[0],
        arm=key[1],
        n=len(answers.truth),
        n_subjects=weights.shape[1],
        unparsed=int((answers.predicted == labels).sum()),
        without_probabilities=answers.without_probabilities,
        accuracy=_estimate(hits.sum(axis=1) / confusion.sum(axis=(1, 2))),
        macro_f1=_estimate(f1.mean(axis=1)),
        auroc=auroc,
        auroc_reason=reason,
        confusion=tuple(tuple(row) for row in confusion[0].tolist()),
        resamples=len(weights) - 1,
        auroc_resamples=used,
    )


def _confusions(answers: _Answers, labels: int, weights: Ints) -> Ints:
    """(draws, labels, labels + 1) confusion matrices: counts of each person, added up by their weight."""
    counts = np.zeros((weights.shape[1], labels * (labels + 1)), dtype=np.int64)
    np.add.at(counts, (answers.subject, answers.truth * (labels + 1) + answers.predicted), 1)
    return (weights @ counts).reshape(-1, labels, labels + 1)


def _auroc(answers: _Answers, labels: int, weights: Ints) -> tuple[Estimate | None, str | None, int]:
    """Macro AUROC or the reason why there is none, and the number of resamples behind its interval."""
    if answers.probabilities is None:
        return None, "no visit has probabilities", 0
    missing = labels - len(np.unique(answers.truth))
    if missing:
        return None, f"{missing} of {labels} labels do not occur among the true labels", 0
    areas = macro_auroc(answers.truth, answers.probabilities, weights[:, answers.subject])
    used = areas[np.isfinite(areas)]
    if len(used) < 2:
        return None, "no resample of the subjects holds every label", 0
    return _estimate(used), None, len(used) - 1


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


def _is_right(row: dict[str, Any]) -> int:
    return int(row["predicted"] is not None and row["predicted"] == row["label"])


def _subjects(visits: list[tuple[str, str]]) -> Ints:
    """(visits,) index of each visit's person among all persons in sorted order."""
    return np.unique([patient for patient, _ in visits], return_inverse=True)[1].astype(np.int64)


def _weights(subjects: int, resamples: int, seed: int) -> Ints:
    """(1 + resamples, subjects): how often each person is drawn. Row 0 is everybody once, for the value itself."""
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, got {resamples}")
    drawn = np.random.default_rng(seed).multinomial(subjects, np.full(subjects, 1 / subjects), size=resamples)
    return np.vstack([np.ones((1, subjects), dtype=np.int64), drawn])


def _estimate(samples: Floats) -> Estimate:
    """Row 0 is the value; the rest are resamples. Percentile interval: Efron 1979, doi:10.1214/aos/1176344552."""
    low, high = np.quantile(samples[1:], _TAILS)
    return Estimate(value=float(samples[0]), low=float(low), high=float(high))


def _named(key: Key) -> str:
    return f"model {key[0]!r} (arm {key[1]!r})"
