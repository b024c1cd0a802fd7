"""The fields of a visit from a row, as the configured columns, units and codes say; shared by several readers."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from clinical_reasoner.cohort.columns import StudyRow
from clinical_reasoner.cohort.visits import Visit
from clinical_reasoner.config.columns import FieldColumns, TimeColumn

DIAGNOSES = {
    "AD": "AD",
    "MCI": "MCI",
    "NC": "NC",
    "CN": "NC",
    "HC": "NC",
    "control": "NC",
    "healthy control": "NC",
    "cognitively normal": "NC",
}
"""Diagnoses that leave no doubt, any case. Dementia alone does not say of which cause."""
_LOWER_BOUND = re.compile(r"(\d{2,3}) ?\+")
"""An age of which the source gives the lower bound alone, as BIDS recommends from 89 years on: `89+`."""
PER_YEAR = {"years": 1.0, "months": 12.0, "days": 365.25}
_VISIT_MONTH = re.compile(r"(?:ses-)?(?:bl|baseline|m(\d{1,3}))", re.IGNORECASE)


def wanted_columns(columns: FieldColumns) -> dict[str, Sequence[str]]:
    """Field -> the names that its column may have in the file, for `read_study_table`."""
    fields = {name: getattr(columns, name) for name in FieldColumns.model_fields}
    return {name: column.columns for name, column in fields.items() if column is not None}


def read_fields(row: StudyRow, columns: FieldColumns, table: str = "") -> dict[str, Any]:
    """The fields of a visit that a row tells, None where unknown; `table` is named in the label's source.

    Raises ValueError, with the field and never its value, for a value that the configuration does not allow.
    """
    fields: dict[str, Any] = dict.fromkeys(FieldColumns.model_fields)
    fields["age_years"], exact = read_age(row, columns.age_years)
    if not exact:
        fields["at_least"] = ("age_years",)
    for name, highest in (("education_years", 40.0), ("mmse", 30.0), ("field_strength_t", 12.0)):
        number = getattr(columns, name)
        if number is not None:
            fields[name] = row.number(name, 0.0, highest, number.missing)
    if fields["mmse"] is not None and not fields["mmse"].is_integer():
        raise ValueError("mmse is not a whole number")
    for name in ("sex", "education_level", "marital_status", "apoe4_copies", "label"):
        coded = getattr(columns, name)
        if coded is not None:
            codes = coded.codes or DIAGNOSES
            fields[name] = row.code(name, {code: str(meaning) for code, meaning in codes.items()}, coded.missing)
    if fields["apoe4_copies"] is not None:
        fields["apoe4_copies"] = int(fields["apoe4_copies"])
    if columns.label is not None and fields["label"] is not None:
        source = columns.label.source or "/".join(columns.label.columns)
        fields["label_source"] = f"{table}: {source}" if table else source
    return fields


def read_age(row: StudyRow, column: TimeColumn | None) -> tuple[float | None, bool]:
    """(years, whether that is the age and not its lower bound). Raises ValueError as `read_fields`."""
    if column is None:
        return None, True
    bound = _LOWER_BOUND.fullmatch(row.text("age_years") or "")
    if bound and column.unit == "years":
        return float(bound[1]), False
    return read_years(row, "age_years", column.unit, (0, 130), column.missing), True


def read_years(
    row: StudyRow, name: str, unit: str, bounds: tuple[float, float], missing: Sequence[float]
) -> float | None:
    """Years, whatever the unit in the file. Raises ValueError, with the field alone, outside the bounds (years)."""
    per_year = PER_YEAR[unit]
    value = row.number(name, bounds[0] * per_year, bounds[1] * per_year, missing)
    return None if value is None else value / per_year


def build_visit(**fields: Any) -> Visit:
    """A visit of these fields, without those that are None. Raises ValueError that names the field, not its value."""
    try:
        return Visit(**{name: value for name, value in fields.items() if value is not None})
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        raise ValueError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error


class Baselines:
    """Time since each person's first visit: as a column or the visit's code (`bl`, `m06`, `ses-M012`) states it, else
    from ages. All visits are added before any is asked for, so that the order of the rows makes no difference."""

    def __init__(self) -> None:
        self._ages_at_zero: dict[str, float] = {}
        """Person -> age when the stated times are 0."""
        self._first_ages: dict[str, float] = {}
        """Person -> youngest age at a visit without a stated time."""

    def add(self, patient_id: str, visit_id: str, age_years: float | None, stated: float | None = None) -> None:
        """One visit; `stated` is what a column tells of its time, years."""
        if age_years is None:
            return
        years = years_of_code(visit_id) if stated is None else stated
        ages, age = (self._first_ages, age_years) if years is None else (self._ages_at_zero, age_years - years)
        ages[patient_id] = min(age, ages.get(patient_id, age))

    def years(self, patient_id: str, visit_id: str, age_years: float | None, stated: float | None = None) -> float:
        """Years; 0 where nothing tells. Where ages tell of a visit before the time 0, all count from that one."""
        first = self._first_ages.get(patient_id)
        zero = self._ages_at_zero.get(patient_id, first)
        years = years_of_code(visit_id) if stated is None else stated
        if years is None:
            years = 0.0 if age_years is None or zero is None else age_years - zero
        return years if zero is None or first is None else years + max(0.0, zero - first)


class Earlier:
    """What the rows before this one said about each person."""

    def __init__(self) -> None:
        self._said: dict[str, tuple[str | None, ...]] = {}
        """Person -> sex, then visits: one small tuple for each of the many people who have one visit."""

    def check(self, visit: Visit) -> Visit:
        """The visit. Raises ValueError when it is there already, or when the person had another sex."""
        sex, *visits = self._said.get(visit.patient_id, (None,))
        if visit.visit_id in visits:
            raise ValueError("the same patient_id and visit_id as an earlier row")
        if visit.sex and sex and visit.sex != sex:
            raise ValueError("sex differs from that of an earlier row of the same person")
        self._said[visit.patient_id] = (sex or visit.sex, *visits, sys.intern(visit.visit_id))
        return visit


def years_of_code(visit_id: str) -> float | None:
    """Years since baseline that a visit code states (`bl`, `m06`, `ses-M012`); None for any other."""
    found = _VISIT_MONTH.fullmatch(visit_id)
    return None if found is None else int(found[1] or 0) / 12


def file_inside(folder: Path, path: Path) -> str:
    """The path as text. Raises ValueError, without the path, when it is no file or, links followed, is not inside the
    folder."""
    try:
        real = path.resolve(strict=True)
    except (OSError, RuntimeError) as error:  # a link to nothing, or to itself
        raise ValueError("a file of the visit is not there, or is a link to nothing; was it fetched?") from error
    if not real.is_relative_to(folder.resolve()):
        raise ValueError("a file of the visit is outside the cohort folder, or a link that leaves it")
    if not real.is_file():
        raise ValueError("a file of the visit is no file")
    return str(path)
