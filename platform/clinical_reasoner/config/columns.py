"""Which column of a table of one's own is which field, in which unit and with which codes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from clinical_reasoner.config.base import StrictConfig

ColumnNames = Annotated[tuple[str, ...], Field(min_length=1)]
"""Names of a column, in any case; the first that the file has is used."""
Codes = tuple[str, ...]
Sex = Literal["female", "male"]
MaritalStatus = Literal["married", "widowed", "divorced", "never_married"]
EducationLevel = Literal["less_than_high_school", "high_school", "some_college", "college_graduate", "beyond_college"]


class TextColumn(StrictConfig):
    columns: ColumnNames
    """Names of the column, in any case; the first that the file has is used."""


class NumberColumn(StrictConfig):
    columns: ColumnNames
    """Names of the column, in any case; the first that the file has is used."""
    missing: tuple[float, ...] = ()
    """Numbers that mean a missing value, e.g. `-9` or `99`. Empty, NA, n/a, NaN, none, null, `.`, -1 and -4 always
    do."""


class TimeColumn(NumberColumn):
    unit: Literal["years", "months", "days"] = "years"
    """Unit in the file; years are 12 months or 365.25 days."""


class LabelColumn(StrictConfig):
    columns: ColumnNames
    """Names of the column, in any case. It holds the diagnosis of the visit, not one that was made later."""
    codes: dict[str, str] = {}
    """Code in the file -> label name of the task; `1` and `1.0` are one code, case does not matter. Empty: the names of
    diagnoses that the reader knows."""
    missing: Codes = ()
    """Codes that mean a missing value."""
    source: str | None = Field(default=None, min_length=1)
    """What is said to be the source of the label, e.g. `CDR (proxy)`; the column's name unless set."""


class SexColumn(StrictConfig):
    columns: ColumnNames
    """Names of the column, in any case."""
    codes: dict[str, Sex] = {"f": "female", "female": "female", "m": "male", "male": "male"}
    """Code in the file -> sex. Studies differ in what 1 and 2 mean, so numbers have no default."""
    missing: Codes = ("o", "other", "u", "unknown")
    """Codes that mean a missing value, or one for which no norm exists."""


class MaritalStatusColumn(StrictConfig):
    columns: ColumnNames
    """Names of the column, in any case."""
    codes: dict[str, MaritalStatus] = {
        "married": "married",
        "widowed": "widowed",
        "divorced": "divorced",
        "never married": "never_married",
        "never_married": "never_married",
    }
    """Code in the file -> marital status."""
    missing: Codes = ("unknown",)
    """Codes that mean a missing value."""


class EducationLevelColumn(StrictConfig):
    columns: ColumnNames
    """Names of the column, in any case; for studies that tell a level and no years."""
    codes: dict[str, EducationLevel]
    """Code in the file -> level."""
    missing: Codes = ()
    """Codes that mean a missing value."""


class ApoeColumn(StrictConfig):
    columns: ColumnNames
    """Names of the column, in any case."""
    codes: dict[str, Annotated[int, Field(ge=0, le=2)]] = {"0": 0, "1": 1, "2": 2}
    """Code in the file -> number of e4 alleles; e.g. `"3/4": 1` for genotypes. A column that says carrier or not has
    no such number."""
    missing: Codes = ()
    """Codes that mean a missing value."""


class MeasureColumns(StrictConfig):
    columns: ColumnNames
    """Columns that make up the measure, e.g. those of both hemispheres. All are needed: where one is missing, so is the
    measure."""
    unit: Literal["mm3", "cm3", "ml", "mm", "rating", "1"]
    """Unit in the file; cm3 and ml become mm3. W-scores and grades are for a cohort of kind `table`."""
    combine: Literal["sum", "mean", "max"] = "sum"
    """How the columns become one number: volumes are summed, thickness and ratings are not."""
    missing: tuple[float, ...] = ()
    """Numbers that mean a missing value."""

    @model_validator(mode="after")
    def _only_volumes_add_up(self) -> MeasureColumns:
        if self.unit in ("mm", "rating", "1") and len(self.columns) > 1 and self.combine == "sum":
            raise ValueError(f"columns in unit {self.unit!r} do not add up; say combine: mean or max")
        return self


class FieldColumns(StrictConfig):
    """Columns of what is known about a person and a visit. A field without a column is unknown."""

    age_years: TimeColumn | None = None
    """Age at the visit; `89+` is read as 89 years or older."""
    sex: SexColumn | None = None
    """Sex."""
    education_years: NumberColumn | None = None
    """Completed education, years; not a level or code."""
    education_level: EducationLevelColumn | None = None
    """Level of education, where there are no years."""
    marital_status: MaritalStatusColumn | None = None
    """Marital status."""
    mmse: NumberColumn | None = None
    """Mini-Mental State Examination, points out of 30."""
    apoe4_copies: ApoeColumn | None = None
    """Number of APOE4 alleles."""
    label: LabelColumn | None = None
    """Diagnosis of the visit."""
    field_strength_t: NumberColumn | None = None
    """Field strength of the scanner, tesla."""


class UsualColumns(FieldColumns):
    """Names that leave no doubt what is meant: the default for BIDS tables and for covariates of FreeSurfer folders."""

    age_years: TimeColumn | None = TimeColumn(columns=("age_years", "age", "age_at_visit", "age_at_scan"))
    """Age, years."""
    sex: SexColumn | None = SexColumn(columns=("sex", "gender"))
    """Sex; BIDS `O` (other) has no norm and is unknown."""
    education_years: NumberColumn | None = NumberColumn(columns=("education_years", "years_of_education"))
    """Completed education, years."""
    marital_status: MaritalStatusColumn | None = MaritalStatusColumn(columns=("marital_status",))
    """Marital status."""
    mmse: NumberColumn | None = NumberColumn(columns=("mmse", "mmse_total"))
    """Mini-Mental State Examination, points out of 30."""
    apoe4_copies: ApoeColumn | None = ApoeColumn(columns=("apoe4_copies",))
    """Number of APOE4 alleles."""
    label: LabelColumn | None = LabelColumn(columns=("diagnosis", "dx"))
    """Diagnosis of the visit."""


class TableMapping(FieldColumns):
    """How the rows of one table, a visit each, become visits. Every column that is named here must be in the file."""

    patient_id: TextColumn
    """Person."""
    visit_id: TextColumn | None = None
    """Visit; without it, a person has one row."""
    years_from_baseline: TimeColumn | None = None
    """Time since the person's first visit. Without it, visits are ordered by codes such as `bl` and `m06`, else by
    age."""
    measures: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")], MeasureColumns] = {}
    """Measure -> its columns, e.g. `hippocampus`, `icv` or `mta`; both hemispheres together."""
    segmenter: str | None = Field(default=None, min_length=1)
    """Software and version that measured, e.g. `freesurfer-6.0`."""
    image_path: TextColumn | None = None
    """T1-weighted scan, relative to the table's folder and inside it."""
    segmentation_path: TextColumn | None = None
    """Label map, relative to the table's folder and inside it."""
    note: TextColumn | None = None
    """Free text about the visit; what becomes of it, `cohort.deidentify.notes` says."""
    sheet: str | None = Field(default=None, min_length=1)
    """Excel: name of the sheet; the first one unless set. Formulas count with the values saved beside them."""
