"""Baselines of the comparison: their names, and what each, learnt from the training split, says of the test split."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from sklearn.pipeline import Pipeline

from clinical_reasoner.config.evaluation import BaselineName, EvaluationConfig
from clinical_reasoner.distillation.baselines import (
    evidence_frame,
    fit_gradient_boosting,
    fit_logistic_regression,
    majority_probabilities,
    predict_probabilities,
)
from clinical_reasoner.evaluation.metrics import Key
from clinical_reasoner.evidence.description import parse_description
from clinical_reasoner.records import PREDICTIONS, PredictionRow
from clinical_reasoner.runs import RunFolder
from clinical_reasoner.task import DiagnosisTask

KEYS: dict[BaselineName, Key] = {
    "majority": ("majority class", "baseline"),
    "logistic_regression": ("logistic regression", "baseline"),
    "gradient_boosting": ("gradient boosting", "baseline"),
    "cnn_3d": ("3D CNN", "baseline"),
}
"""Columns `model` and `arm` of `predictions`."""
NAMES: dict[Key, str] = {
    KEYS["majority"]: "Majority class",
    KEYS["logistic_regression"]: "Logistic regression",
    KEYS["gradient_boosting"]: "Gradient boosting",
    KEYS["cnn_3d"]: "3D CNN (scans alone)",
}
"""Display names."""
CNN_STAGE = "baselines/cnn_3d"
TRAINED_ON = "trained_on"
"""Of the details of a baseline's manifest: visits of the training split."""
_FITS: dict[BaselineName, Callable[[pd.DataFrame, Sequence[str], DiagnosisTask, int], Pipeline]] = {
    "logistic_regression": fit_logistic_regression,
    "gradient_boosting": fit_gradient_boosting,
}


def baseline_stages(settings: EvaluationConfig) -> list[str]:
    """Stages that train a baseline; the others take a moment and are fitted with the predictions."""
    return [CNN_STAGE] if "cnn_3d" in settings.baselines else []


def baseline_rows(
    settings: EvaluationConfig, run: RunFolder, findings: pa.Table, task: DiagnosisTask
) -> list[PredictionRow]:
    """Answers of every configured baseline about the test split, one after the other."""
    visits = findings.to_pylist()
    frame = evidence_frame([parse_description(row["description"], task) for row in visits], task)
    train, test = ([place for place, row in enumerate(visits) if row["split"] == split] for split in ("train", "test"))
    labels = [visits[place]["label"] for place in train]
    rows: list[PredictionRow] = []
    for name in settings.baselines:
        if name == "cnn_3d":
            table = run.read_table(CNN_STAGE, PREDICTIONS)
            found = table.filter(pc.equal(table["split"], "test")).to_pylist()
            rows += [PredictionRow.model_validate(row) for row in found]
            continue
        if name == "majority":
            probabilities = np.tile(majority_probabilities(labels, task), (len(test), 1))
        else:
            model = _FITS[name](frame.iloc[train], labels, task, settings.seed)
            probabilities = predict_probabilities(model, frame.iloc[test], task)
        rows += [
            prediction(visits[place], KEYS[name], values, task)
            for place, values in zip(test, probabilities, strict=True)
        ]
    return rows


def prediction(row: Mapping[str, Any], key: Key, probabilities: Sequence[float], task: DiagnosisTask) -> PredictionRow:
    """The most probable label about a visit of `findings`; of equal ones the task's first."""
    return PredictionRow(
        **{name: row[name] for name in ("patient_id", "visit_id", "split", "label")},
        model=key[0],
        arm=key[1],
        predicted=task.label_names[int(np.argmax(probabilities))],
        probabilities=tuple(float(value) for value in probabilities),
    )


def baselines_trained_on(settings: EvaluationConfig, run: RunFolder, visits: int) -> dict[Key, int]:
    """Visits that each baseline learnt from; `visits` of the training split have findings."""
    found = {KEYS[name]: visits for name in settings.baselines}
    for stage in baseline_stages(settings):
        manifest = run.manifest(stage)
        if manifest is not None:
            found[KEYS["cnn_3d"]] = int(manifest.details[TRAINED_ON])
    return found
