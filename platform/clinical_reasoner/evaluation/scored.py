"""From the `predictions` table to what is scored: the answers of each model and training seed, checked, as arrays."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from clinical_reasoner.evaluation.resampling import Floats, Ints

Key = tuple[str, str]
"""Model and arm."""
Rows = dict[tuple[str, str], dict[str, Any]]
"""By (patient_id, visit_id)."""
Trainings = dict[int | None, Rows]
"""By training seed in ascending order; None is the only one of a model without any."""
_COLUMNS = ["patient_id", "visit_id", "model", "arm", "seed", "label", "predicted", "probabilities"]


@dataclass(frozen=True)
class Answers:
    """One training of a model."""

    truth: Ints
    """(visits,) index of the true label."""
    predicted: Ints
    """(visits,) index of the predicted label; number of labels = unparsed."""
    subject: Ints
    """(visits,) index of the person."""
    probabilities: Floats
    """(visits, labels). A visit without them is filled in: its prediction with certainty, or 0 for the true label where
    the answer could not be parsed."""
    without_probabilities: int


def by_model(predictions: pa.Table) -> dict[Key, Trainings]:
    """Rows by (model, arm), in the order of their first row. Raises ValueError for an empty table, a visit that is
    there twice, and a model with a seed in some of its rows."""
    groups: dict[Key, Trainings] = {}
    twice: Counter[tuple[Key, int | None]] = Counter()
    for row in predictions.select(_COLUMNS).to_pylist():
        key, visit = (row["model"], row["arm"]), (row["patient_id"], row["visit_id"])
        rows = groups.setdefault(key, {}).setdefault(row["seed"], {})
        twice[key, row["seed"]] += visit in rows
        rows[visit] = row
    if not groups:
        raise ValueError("the table of predictions is empty")
    # Identifiers stay out of every message: it may end in a log.
    found = [f"{number} of {named(*which)}" for which, number in twice.items() if number]
    if found:
        raise ValueError(f"visits that are predicted more than once by one model: {'; '.join(found)}")
    mixed = [named(key) for key, trainings in groups.items() if None in trainings and len(trainings) > 1]
    if mixed:
        raise ValueError(f"only some rows have a training seed: {'; '.join(mixed)}")
    return {key: {seed: found[seed] for seed in _ascending(found)} for key, found in groups.items()}


def require_same_visits(groups: Mapping[Key, Trainings], partial: Collection[Key] = ()) -> None:
    """Every training of every model answers about the same visits, with the same true labels; those of `partial` about
    some of them, all its trainings the same. Raises ValueError."""
    whole = [trainings for key, trainings in groups.items() if key not in partial] or list(groups.values())
    labels = {visit: row["label"] for found in whole for rows in found.values() for visit, row in rows.items()}
    gaps = []
    for key, trainings in groups.items():
        wanted = set().union(*trainings.values()) if key in partial else labels.keys()
        for seed, rows in trainings.items():
            if len(rows) < len(wanted):
                gaps.append(f"{named(key, seed)} lacks {len(wanted) - len(rows)} of {len(wanted)} visits")
    if gaps:
        raise ValueError(f"the models were not predicted on the same visits: {'; '.join(gaps)}")
    for key, trainings in groups.items():
        for seed, rows in trainings.items():
            unknown = len(rows.keys() - labels.keys())
            if unknown:
                raise ValueError(f"{named(key, seed)} answers about {unknown} visits that the other models lack")
            other = sum(row["label"] != labels[visit] for visit, row in rows.items())
            if other:
                raise ValueError(f"{named(key, seed)} has another true label than the other models on {other} visits")


def read_answers(key: Key, seed: int | None, rows: Rows, labels: tuple[str, ...]) -> Answers:
    """Raises ValueError for labels that the task has not, and probabilities that are not one finite number for each."""
    visits = sorted(rows)
    index = {name: place for place, name in enumerate(labels)}
    for column, allowed in (("label", set(labels)), ("predicted", {*labels, None})):
        unknown = sum(row[column] not in allowed for row in rows.values())
        if unknown:
            raise ValueError(
                f"{named(key, seed)}: {column} is not a label of the task ({', '.join(labels)}) on {unknown} visits"
            )
    lists = [rows[visit]["probabilities"] for visit in visits]
    given = [one for one in lists if one is not None]
    bad = sum(len(one) != len(labels) or not all(p is not None and np.isfinite(p) for p in one) for one in given)
    if bad:
        raise ValueError(f"{named(key, seed)}: probabilities are not {len(labels)} finite numbers on {bad} visits")
    return Answers(
        truth=np.array([index[rows[visit]["label"]] for visit in visits], dtype=np.int64),
        predicted=np.array([index.get(rows[visit]["predicted"], len(labels)) for visit in visits], dtype=np.int64),
        subject=subjects_of(visits),
        probabilities=_filled(lists, rows, visits, labels),
        without_probabilities=len(lists) - len(given),
    )


def subjects_of(visits: list[tuple[str, str]]) -> Ints:
    """(visits,) index of each visit's person among all persons in sorted order."""
    return np.unique([patient for patient, _ in visits], return_inverse=True)[1].astype(np.int64)


def named(key: Key, seed: int | None = None) -> str:
    """How a message names a model, or one training of it."""
    return f"model {key[0]!r} (arm {key[1]!r}{'' if seed is None else f', seed {seed}'})"


def _ascending(trainings: Trainings) -> list[int | None]:
    return sorted(trainings, key=lambda seed: -1 if seed is None else seed)


def _filled(lists: list[Any], rows: Rows, visits: list[tuple[str, str]], labels: tuple[str, ...]) -> Floats:
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
