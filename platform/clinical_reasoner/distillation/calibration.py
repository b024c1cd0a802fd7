"""Temperature scaling: one number that makes a model's probabilities of the labels say how often it is right.

Guo et al. 2017, "On Calibration of Modern Neural Networks", arXiv:1706.04599. The temperature is fitted on answers that
the model was not trained on (the validation split, never the test split), and changes no prediction.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field
from scipy.optimize import minimize_scalar

Floats = NDArray[np.float64]
FLOOR = 1e-6
"""Smallest probability, 1. A probability of 0 is one that an engine rounded or cut off: its logarithm would be minus
infinity, and one such visit would decide everything."""
BINS = 15
"""Of confidence, equally wide, as in the paper."""
LOWEST, HIGHEST = 0.05, 20.0
"""Temperatures that are looked at. One at the edge says that there are too few visits, or none that is wrong."""


class Calibration(BaseModel):
    """What a temperature does to the probabilities of one model; `calibration.json` beside it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    temperature: float = Field(gt=0)
    """Divides the log-probabilities of the labels: above 1 the model was too sure, below 1 not sure enough."""
    ece_before: float = Field(ge=0, le=1)
    """Expected calibration error of the most probable label, 0..1, lower is better."""
    ece_after: float = Field(ge=0, le=1)
    nll_before: float = Field(ge=0)
    """Mean negative log-likelihood of the true label, nats, lower is better."""
    nll_after: float = Field(ge=0)
    visits: int = Field(ge=2)
    """Visits with probabilities, from which it was fitted."""
    without_probabilities: int = Field(default=0, ge=0)
    """Visits that were left out."""


def fit_calibration(probabilities: Sequence[Sequence[float] | None], truth: Sequence[int]) -> Calibration:
    """Fit the temperature with the lowest negative log-likelihood of the true labels.

    `probabilities`: (visits, labels) for each visit, None where a visit has none; `truth`: (visits,) index of the true
    label. Probabilities below FLOOR count as FLOOR. Raises ValueError for fewer than two visits with probabilities,
    fewer than two diagnoses among them, and numbers that are no probabilities.
    """
    if len(probabilities) != len(truth):
        raise ValueError(f"calibration: probabilities of {len(probabilities)} visits, but {len(truth)} true labels")
    given = [(one, label) for one, label in zip(probabilities, truth, strict=True) if one is not None]
    if len(given) < 2:
        raise ValueError(f"calibration: {len(given)} visits have probabilities, at least 2 are needed")
    table = _checked([one for one, _ in given])
    labels = np.array([label for _, label in given], dtype=np.int64)
    if labels.min() < 0 or labels.max() >= table.shape[1]:
        raise ValueError(f"calibration: a true label is none of the {table.shape[1]} labels")
    if len(np.unique(labels)) < 2:
        raise ValueError("calibration: all visits have the same diagnosis, at least 2 are needed")
    temperature = _best_temperature(table, labels)
    before, after = apply_temperature(table, 1.0), apply_temperature(table, temperature)
    return Calibration(
        temperature=temperature,
        ece_before=expected_calibration_error(before, labels),
        ece_after=expected_calibration_error(after, labels),
        nll_before=negative_log_likelihood(before, labels),
        nll_after=negative_log_likelihood(after, labels),
        visits=len(given),
        without_probabilities=len(probabilities) - len(given),
    )


def apply_temperature(probabilities: ArrayLike, temperature: float) -> Floats:
    """Softmax of log-probabilities over the temperature; shape (..., labels) as given, each adds up to 1.

    Probabilities below FLOOR count as FLOOR. Raises ValueError for a temperature that is not above 0.
    """
    if not temperature > 0:
        raise ValueError(f"calibration: the temperature must be above 0, got {temperature}")
    scaled = np.log(np.maximum(np.asarray(probabilities, dtype=np.float64), FLOOR)) / temperature
    powers = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def expected_calibration_error(probabilities: ArrayLike, truth: ArrayLike, bins: int = BINS) -> float:
    """How far confidence and accuracy of the most probable label lie apart, 0..1: mean over equally wide bins of
    confidence, weighted by their visits. `probabilities` (visits, labels), `truth` (visits,)."""
    table = np.asarray(probabilities, dtype=np.float64)
    confidence, right = table.max(axis=1), table.argmax(axis=1) == np.asarray(truth)
    bin_of = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)  # (0, 1/bins], (1/bins, 2/bins], ...
    gap = np.bincount(bin_of, weights=confidence - right, minlength=bins)
    return float(np.abs(gap).sum() / len(table))


def negative_log_likelihood(probabilities: ArrayLike, truth: ArrayLike) -> float:
    """Mean over the visits, nats. `probabilities` (visits, labels), `truth` (visits,)."""
    table, labels = np.asarray(probabilities, dtype=np.float64), np.asarray(truth, dtype=np.int64)
    return float(-np.log(np.maximum(table[np.arange(len(table)), labels], FLOOR)).mean())


def _best_temperature(table: Floats, labels: NDArray[np.int64]) -> float:
    """Of LOWEST..HIGHEST. In its logarithm, because half and double are the same step."""

    def loss(logarithm: float) -> float:
        return negative_log_likelihood(apply_temperature(table, float(np.exp(logarithm))), labels)

    found = minimize_scalar(loss, bounds=(np.log(LOWEST), np.log(HIGHEST)), method="bounded", options={"xatol": 1e-6})
    return float(np.exp(found.x)) if found.fun <= loss(0.0) else 1.0


def _checked(probabilities: Sequence[Sequence[float]]) -> Floats:
    """(visits, labels), each adding up to 1."""
    if len({len(one) for one in probabilities}) != 1 or len(probabilities[0]) < 2:
        raise ValueError("calibration: every visit needs one probability for each of two or more labels")
    table = np.asarray(probabilities, dtype=np.float64)
    if not np.isfinite(table).all() or table.min() < 0 or not (table.sum(axis=1) > 0).all():
        raise ValueError("calibration: probabilities must be finite, not negative, and not all 0")
    return np.asarray(table / table.sum(axis=1, keepdims=True))
