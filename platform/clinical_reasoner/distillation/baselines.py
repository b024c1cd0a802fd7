"""Tabular baselines on the structured evidence, fitted on the training split alone, and the majority class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from clinical_reasoner.evidence.description import Evidence
from clinical_reasoner.task import ChoiceField, DiagnosisTask, NumberField


def evidence_frame(evidence: Sequence[Evidence], task: DiagnosisTask) -> pd.DataFrame:
    """One row per description: number fields as numbers, choice fields as text, findings as the rank of their grade
    (0 = unaffected); missing stays missing. A number that is open upwards ("90+") is its lower bound. The baseline so
    sees what the language models read, and no more."""
    columns: dict[str, list[object]] = {}
    for field in task.fields:
        read = _number if isinstance(field, NumberField) else str
        values = [entry.fields.get(field.name) for entry in evidence]
        columns[field.name] = [None if value is None else read(value) for value in values]
    for finding in task.findings:
        grades = [entry.grades.get(finding.name) for entry in evidence]
        columns[finding.name] = [None if grade is None else float(task.grade_names.index(grade)) for grade in grades]
    frame = pd.DataFrame(columns)
    numeric = _numeric_columns(task)
    return frame.astype(dict.fromkeys(numeric, float))


def fit_logistic_regression(frame: pd.DataFrame, labels: Sequence[str], task: DiagnosisTask, seed: int) -> Pipeline:
    """Multinomial logistic regression (L2, C = 1, untuned) on standardised numbers and one-hot choices; missing numbers
    are imputed by the median with an indicator, missing choices are a category of their own."""
    numeric = _numeric_columns(task)
    choices = [name for name in frame.columns if name not in numeric]
    numbers = make_pipeline(
        SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True), StandardScaler()
    )
    words = make_pipeline(
        SimpleImputer(strategy="constant", fill_value="unknown", missing_values=None, keep_empty_features=True),
        OneHotEncoder(handle_unknown="ignore"),
    )
    columns = ColumnTransformer([("numbers", numbers, numeric), ("choices", words, choices)])
    model = Pipeline([("columns", columns), ("model", LogisticRegression(max_iter=2000, random_state=seed))])
    return model.fit(_objects(frame, choices), list(labels))


def fit_gradient_boosting(frame: pd.DataFrame, labels: Sequence[str], task: DiagnosisTask, seed: int) -> Pipeline:
    """Gradient-boosted trees on histograms of the columns (scikit-learn's settings, untuned, learning from all rows):
    Friedman 2001, doi:10.1214/aos/1013203451. Missing values go to the better side of each split, and choices are split
    as categories; a column that is empty in training is left out."""
    values = {field.name: sorted(field.clauses) for field in task.fields if isinstance(field, ChoiceField)}
    known = [name for name in frame.columns if frame[name].notna().any()]
    types = {name: pd.CategoricalDtype(values[name]) for name in known if name in values}
    typed = FunctionTransformer(_typed, kw_args={"names": known, "types": types})
    boosting = HistGradientBoostingClassifier(
        categorical_features="from_dtype", early_stopping=False, random_state=seed
    )
    model = Pipeline([("columns", typed), ("model", boosting)])
    return model.fit(_objects(frame, list(types)), list(labels))


def majority_probabilities(labels: Sequence[str], task: DiagnosisTask) -> np.ndarray:
    """P(label) of whoever it is: shares of the training split, shape (labels,), in the order of the task's labels."""
    return np.array([labels.count(name) for name in task.label_names]) / len(labels)


def predict_probabilities(model: Pipeline, frame: pd.DataFrame, task: DiagnosisTask) -> np.ndarray:
    """P(label), shape (rows, labels), in the order of the task's labels; 0 for a label that training never saw."""
    numeric = _numeric_columns(task)
    found = model.predict_proba(_objects(frame, [name for name in frame.columns if name not in numeric]))
    place = {name: index for index, name in enumerate(model.classes_)}
    return np.stack(
        [found[:, place[name]] if name in place else np.zeros(len(frame)) for name in task.label_names], axis=1
    )


def _number(value: str) -> float:
    """As a description writes it: "74", or "90+" for 90 and above."""
    return float(value.removesuffix("+"))


def _typed(frame: pd.DataFrame, names: list[str], types: dict[str, pd.CategoricalDtype]) -> pd.DataFrame:
    return frame[names].astype(types)


def _numeric_columns(task: DiagnosisTask) -> list[str]:
    return [field.name for field in task.fields if isinstance(field, NumberField)] + [f.name for f in task.findings]


def _objects(frame: pd.DataFrame, choices: Sequence[str]) -> pd.DataFrame:
    """Choice columns as plain objects with None for missing, which the imputer looks for."""
    frame = frame.copy()
    for name in choices:
        frame[name] = frame[name].astype(object).where(frame[name].notna(), None)
    return frame
