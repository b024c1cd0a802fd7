"""w-scores: how far a measure lies from what controls of the same age, sex and head size have, in their residual SD.

w = (log V - expected) / SD, with the expectation a + b age + c [male] + d log ICV fitted in controls of the training
split alone, one fit for each measure, segmenter and field strength. Negative = more affected, whatever the measure.
Head size by regression, not by a ratio: Opfer 2022 (Neuroradiology 64:2001, PMC9474386). Mean w of the hippocampus in
very mild, mild and moderate disease was -1.75, -1.99 and -2.22 (Jack 1997, Neurology 49:786).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, log
from typing import Literal

import numpy as np
from pydantic import Field, ValidationError, model_validator

from clinical_reasoner.config.base import StrictConfig
from clinical_reasoner.errors import UserError
from clinical_reasoner.storage import RunError, read_file

Worse = Literal["low", "high"]
"""Which side of the expected value is worse: low for tissue, high for ventricles, lesions and roundness."""
Sex = Literal["female", "male"]

FEWEST_CONTROLS = 50
FEWEST_OF_A_SEX = 5
"""With fewer, a sex is left out of the norm: its difference from the other would rest on a handful of people."""
LEAST_SD = 1e-9
"""Below it is rounding: controls that do not differ give no scale."""
FARTHEST_YEARS = 5.0
"""How far beyond the ages of the controls their line is followed; further away there is no w-score."""


class NormsError(UserError):
    """A norm file cannot be used; the message names the file and what is wrong."""


@dataclass(frozen=True)
class NormRow:
    """The measures of one visit and what they are compared by; None = not known."""

    values: Mapping[str, float]
    """Measures by name, above 0 (volumes in mm3, ratios)."""
    age_years: float | None
    sex: str | None
    """female or male."""
    icv_mm3: float | None
    """Intracranial volume, mm3."""
    segmenter: str | None
    """Software and version; where it is not known there is neither norm nor w-score."""
    field_strength_t: float | None
    """Tesla; rows where it is not known are compared with each other alone."""


class Norm(StrictConfig):
    """The line of one measure in the controls of one segmenter and field strength."""

    measure: str
    segmenter: str = Field(min_length=1)
    field_strength_t: float | None = Field(gt=0, allow_inf_nan=False)
    """Nominal tesla: 1.5, 3, 7; None where the controls' scanners are not known."""
    worse: Worse
    intercept: float = Field(allow_inf_nan=False)
    """Expected log of the measure at age 0, in a woman (or the only sex), at log ICV 0."""
    per_year: float = Field(allow_inf_nan=False)
    male: float = Field(allow_inf_nan=False)
    """What a man has more; 0 where only one sex is covered."""
    per_log_icv: float = Field(allow_inf_nan=False)
    """Per unit of the natural logarithm of the ICV in mm3."""
    sd: float = Field(gt=0, allow_inf_nan=False)
    """Residual SD of the logarithm, with n - p degrees of freedom."""
    controls: int = Field(gt=0)
    """Number of controls."""
    sexes: tuple[Sex, ...] = Field(min_length=1)
    youngest_years: float = Field(ge=0, le=130)
    oldest_years: float = Field(ge=0, le=130)
    """Ages of the controls."""


class Norms(StrictConfig):
    """Norms of several measures, segmenters and field strengths; at most one for each combination."""

    norms: tuple[Norm, ...] = ()

    @model_validator(mode="after")
    def _one_each(self) -> Norms:
        keys = [(norm.measure, norm.segmenter, norm.field_strength_t) for norm in self.norms]
        if len(set(keys)) < len(keys):
            raise ValueError("two norms of one measure, segmenter and field strength")
        return self

    def find(self, measure: str, segmenter: str | None, field_strength_t: float | None) -> Norm | None:
        """The norm of exactly this segmenter and nominal field strength."""
        wanted = (measure, segmenter, nominal_tesla(field_strength_t))
        for norm in self.norms:
            if (norm.measure, norm.segmenter, norm.field_strength_t) == wanted:
                return norm
        return None


def nominal_tesla(field_strength_t: float | None) -> float | None:
    """Scanners of 1.5 and 3 T write 1.494 or 2.893 into their headers: to the nearest half tesla."""
    if field_strength_t is None or not field_strength_t >= 0.25 or not isfinite(field_strength_t):
        return None
    return round(field_strength_t * 2) / 2


def fit_norms(rows: Sequence[NormRow], worse: Mapping[str, Worse], fewest: int = FEWEST_CONTROLS) -> Norms:
    """Norms of the measures named in `worse` from controls of the training split, one row for each person.

    Rows that lack age, sex, ICV, segmenter or the measure take no part in its fit. A measure has no norm in a segmenter
    and field strength where fewer than `fewest` remain, or where they do not differ.
    """
    groups: dict[tuple[str, float | None], list[NormRow]] = {}
    for row in rows:
        if row.segmenter and _covariates(row) is not None:
            groups.setdefault((row.segmenter, nominal_tesla(row.field_strength_t)), []).append(row)
    fitted = [
        _fit(measure, side, segmenter, tesla, own, fewest)
        for (segmenter, tesla), own in groups.items()
        for measure, side in worse.items()
    ]
    return Norms(norms=tuple(norm for norm in fitted if norm is not None))


def w_score(norms: Norms, measure: str, row: NormRow) -> float | None:
    """w-score of the row's measure in residual SD of controls, negative = more affected.

    None (not graded) where the measure, age, sex, ICV or segmenter is not known, the measure is not above 0, no norm of
    that segmenter and field strength exists, or the norm covers neither that sex nor an age within 5 years.
    """
    norm = norms.find(measure, row.segmenter, row.field_strength_t)
    known = _covariates(row)
    value = _log(row.values.get(measure))
    if norm is None or known is None or value is None:
        return None
    age, sex, log_icv = known
    beyond = max(norm.youngest_years - age, age - norm.oldest_years)
    if sex not in norm.sexes or beyond > FARTHEST_YEARS:
        return None
    expected = norm.intercept + norm.per_year * age + norm.male * (sex == "male") + norm.per_log_icv * log_icv
    deviation = (value - expected) / norm.sd
    return deviation if norm.worse == "low" else -deviation


def load_norms(path: str) -> Norms:
    """Norms from JSON, own or of another source, local or `s3://`. Raises NormsError that names file and field."""
    try:
        return Norms.model_validate_json(read_file(path), strict=True)
    except RunError as error:
        raise NormsError(f"norms: {error}") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise NormsError(f"norms: {path}: {place + ': ' if place else ''}{first['msg']}") from error


def _fit(
    measure: str, worse: Worse, segmenter: str, tesla: float | None, rows: Sequence[NormRow], fewest: int
) -> Norm | None:
    people = [
        (*covariates, value)
        for row in rows
        if (covariates := _covariates(row)) is not None and (value := _log(row.values.get(measure))) is not None
    ]
    both: tuple[Sex, ...] = ("female", "male")
    sexes = tuple(sex for sex in both if sum(person[1] == sex for person in people) >= FEWEST_OF_A_SEX)
    people = [person for person in people if person[1] in sexes]
    if len(people) < max(fewest, 1):
        return None
    design = np.array([(age, sex == "male", log_icv) for age, sex, log_icv, _ in people], dtype=float)
    intercept, slopes, sd = _line(design, np.array([value for *_, value in people]))
    if sd < LEAST_SD:
        return None
    return Norm(
        measure=measure,
        segmenter=segmenter,
        field_strength_t=tesla,
        worse=worse,
        intercept=intercept,
        per_year=slopes[0],
        male=slopes[1],
        per_log_icv=slopes[2],
        sd=sd,
        controls=len(people),
        sexes=sexes,
        youngest_years=float(design[:, 0].min()),
        oldest_years=float(design[:, 0].max()),
    )


def _line(covariates: np.ndarray, values: np.ndarray) -> tuple[float, list[float], float]:
    """Least squares of values [people] on covariates [people, 3]: intercept, slopes and residual SD."""
    means = covariates.mean(axis=0)
    used = np.ptp(covariates, axis=0) > 0  # what does not differ between the people has no column
    design = np.column_stack([np.ones(len(values)), (covariates - means)[:, used]])  # centred: well conditioned
    solution, _, rank, _ = np.linalg.lstsq(design, values, rcond=None)
    residuals = values - design @ solution
    freedom = len(values) - int(rank)
    slopes = np.zeros(covariates.shape[1])
    slopes[used] = solution[1:]
    sd = float(np.sqrt(residuals @ residuals / freedom)) if freedom > 0 else 0.0
    return float(solution[0] - slopes @ means), slopes.tolist(), sd


def _covariates(row: NormRow) -> tuple[float, str, float] | None:
    """Age (years), sex and log ICV, or None where one is not known."""
    log_icv = _log(row.icv_mm3)
    if row.age_years is None or not 0 <= row.age_years <= 130 or row.sex not in ("female", "male") or log_icv is None:
        return None
    return row.age_years, row.sex, log_icv


def _log(value: float | None) -> float | None:
    return log(value) if value is not None and isfinite(value) and value > 0 else None
