"""Bootstrap over subjects, and over training seeds where a model was trained with several of them.

All visits of a person are drawn together, because they are not independent: Field & Welsh 2007, "Bootstrapping
clustered data", doi:10.1111/j.1467-9868.2007.00593.x. Every training of a model answers about every person, so that
subjects and seeds are crossed: each draw takes subjects and, independently of them, seeds, both with replacement: Owen
2007, "The pigeonhole bootstrap", doi:10.1214/07-AOAS122. An interval then covers chance in the choice of people and in
training. A bootstrap of S seeds finds (S - 1) / S of the variance between trainings: with two or three seeds that part
is too small.
"""

from __future__ import annotations

from zlib import crc32

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
_TAILS = (0.025, 0.975)


class Estimate(BaseModel):
    """A number from all subjects and seeds and its 95 % percentile bootstrap interval, in the same unit."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    value: float
    low: float
    high: float


def subject_weights(subjects: int, resamples: int, seed: int) -> Ints:
    """(1 + resamples, subjects): how often each person is drawn. Row 0 is everybody once, for the value itself."""
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, got {resamples}")
    drawn = np.random.default_rng(seed).multinomial(subjects, np.full(subjects, 1 / subjects), size=resamples)
    return np.vstack([np.ones((1, subjects), dtype=np.int64), drawn])


def seed_weights(name: str, seeds: int, resamples: int, seed: int) -> Ints:
    """(1 + resamples, seeds): how often each training of the model `name` is drawn. Row 0 is each of them once.

    Models of other names have draws of their own, whatever their order; one seed is always drawn once.
    """
    ones = np.ones((1, seeds), dtype=np.int64)
    if seeds == 1:
        return np.repeat(ones, resamples + 1, axis=0)
    random = np.random.default_rng([seed, crc32(name.encode())])
    return np.vstack([ones, random.multinomial(seeds, np.full(seeds, 1 / seeds), size=resamples)])


def over_seeds(values: Floats | Ints, weights: Ints) -> Floats:
    """(draws,) mean of `values` (seeds, draws) over the seeds that each draw of `weights` (draws, seeds) took."""
    return np.asarray(np.einsum("sd,ds->d", values, weights) / weights.shape[1])


def estimate(samples: Floats) -> Estimate:
    """Row 0 is the value; the rest are resamples. Percentile interval: Efron 1979, doi:10.1214/aos/1176344552."""
    low, high = np.quantile(samples[1:], _TAILS)
    return Estimate(value=float(samples[0]), low=float(low), high=float(high))
