"""The tables between stages: one frozen pydantic row and one Arrow schema for each.

A stage reads one table and writes one. Unknown is None, never a code such as -1.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from clinical_reasoner.asks import Ask as Ask

Split = Literal["train", "validation", "test"]
Selected = Literal["reasoned", "hinted"]
"""How a selected rationale came to its diagnosis: by itself, or because the prompt told it."""


class _Row(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Measure(_Row):
    name: str
    value: float = Field(allow_inf_nan=False)
    """A number: what is missing has no measure, and NaN would be graded as the last grade."""
    unit: str
    """Unit of `value`, e.g. `mm3`, `w` (w-score) or `1` for a ratio."""


class PatientRow(_Row):
    """One visit of one person."""

    patient_id: str
    visit_id: str
    cohort: str
    """Name of the study or cohort."""
    split: Split
    label: str | None = None
    """Diagnosis of this visit, a label name of the task; None where it is not known."""
    label_source: str | None = None
    """What the label was read from, e.g. `DX` or `CDR (proxy)`."""
    age_years: float | None = Field(default=None, ge=0, le=130)
    """Age at the visit, years."""
    sex: Literal["female", "male"] | None = None
    education_years: float | None = Field(default=None, ge=0, le=40)
    """Completed education, years."""
    education_level: (
        Literal["less_than_high_school", "high_school", "some_college", "college_graduate", "beyond_college"] | None
    ) = None
    """Where a study tells a level and no years."""
    marital_status: Literal["married", "widowed", "divorced", "never_married"] | None = None
    mmse: int | None = Field(default=None, ge=0, le=30)
    """Mini-Mental State Examination, points out of 30; higher is better."""
    apoe4_copies: int | None = Field(default=None, ge=0, le=2)
    """Number of APOE4 alleles."""
    measures: tuple[Measure, ...] = ()
    """Regional measures of the MRI."""
    segmenter: str | None = None
    """Software and version that measured, e.g. `freesurfer-6.0`; norms are never shared between segmenters."""
    field_strength_t: float | None = Field(default=None, gt=0, le=12)
    """Field strength of the scanner, tesla."""
    at_least: tuple[str, ...] = ()
    """Columns whose number stands for itself and everything above, as an age of 90 for 90 or older."""
    warnings: tuple[str, ...] = ()
    """What a reader of this row should know, e.g. `not defaced`; names no one."""
    note: str | None = None
    """Free text about the visit, for people who read the table; no description holds it."""
    image_path: str | None = None
    """T1-weighted scan; of a phantom below the run folder."""
    segmentation_path: str | None = None
    """Label map, or a table of FreeSurfer's."""


class MeasuresRow(_Row):
    """What was measured in the files of one visit, and the pictures made of them."""

    patient_id: str
    visit_id: str
    measures: tuple[Measure, ...] = ()
    """Regional volumes (mm3) and shapes; empty where the visit had volumes already and only pictures were made."""
    segmenter: str | None = None
    """Software and version, and whether its tables or its label map were read; norms are never shared between them."""
    warnings: tuple[str, ...] = ()
    """Regions that are missing and what else a reader should know; names no one."""
    slice_paths: tuple[str, ...] = ()
    """PNG files below the run folder: the montage, then its slices."""
    picture_path: str | None = None
    """PNG file below the run folder: the picture that vision-language models read."""
    cube_path: str | None = None
    """NIfTI file below the run folder: the head as a cube for 3-D networks."""


class FindingValue(_Row):
    name: str
    """A finding of the task's vocabulary."""
    value: float | None = None
    """The measure behind the grade."""
    unit: str | None = None
    w_score: float | None = None
    """Deviation from age-, sex- and ICV-matched controls in residual SD; negative = more affected."""
    grade: str
    """A grade name of the task."""
    source: str
    """Where the grade comes from, e.g. `synthetic`, `w-score`, `rating`."""


class FindingsRow(_Row):
    """The graded evidence and the description of one visit."""

    patient_id: str
    visit_id: str
    split: Split
    label: str | None = None
    findings: tuple[FindingValue, ...] = ()
    description: str
    slice_paths: tuple[str, ...] = ()
    """PNG files below the run folder: the montage, then its slices."""
    picture_path: str | None = None
    """PNG file below the run folder: the picture that vision-language models read."""
    cube_path: str | None = None
    """NIfTI file below the run folder: the head as a cube for 3-D networks."""


class Candidates(_Row):
    """Tokens that could have stood at one place of a model's answer, the most probable first."""

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    """Natural logarithm of each one's probability."""


class RationaleRow(_Row):
    """One ask of one teacher (or student) about one visit."""

    row_id: str
    """Deterministic: patient, visit, ask, sample, model."""
    patient_id: str
    visit_id: str
    split: Split
    label: str | None = None
    ask: Ask
    sample: int = Field(ge=0)
    """Index of the sample of this ask."""
    model: str
    prompt_version: str
    shots: int = Field(ge=0)
    """Number of exemplars in the prompt."""
    exemplars: tuple[str, ...] = ()
    """Their names in the exemplar file, in the order of the prompt."""
    seed: int
    """With which this answer was sampled."""
    text: str
    """Raw text of the model, as it came."""
    thinking: str | None = None
    """What a reasoning model thought between `<think>` and `</think>`; no part of the rationale."""
    rationale: str | None = None
    predicted: str | None = None
    probabilities: tuple[float, ...] | None = None
    """Probability of each label, in the order of the task's labels; from the option letters' log-probabilities."""
    claims_supported: int = Field(ge=0)
    claims_contradicted: int = Field(ge=0)
    claims_not_in_evidence: int = Field(ge=0)
    """Claims of the text about the patient, compared with the description."""
    accepted: bool
    """Whether it passed every check."""
    reject_reason: str | None = None
    selected: Selected | None = None
    """Whether students may learn from it; None: not accepted, or accepted and not needed."""
    prompt_tokens: int = Field(ge=0)
    output_tokens: int = Field(ge=0)
    token_ids: tuple[int, ...] | None = None
    """Tokens of `text` under the model's own tokenizer, where `rationales.token_candidates` keeps them."""
    candidates: tuple[Candidates, ...] | None = None
    """For each of them."""


class PredictionRow(_Row):
    """One model's answer about one visit."""

    patient_id: str
    visit_id: str
    model: str
    arm: str
    """How it was asked or trained: an arm of `asks.ASK_KINDS` or of `config.arms`, `baseline`, `ceiling`."""
    seed: int | None = None
    """Training seed of a student; None for what was not trained here, or only once."""
    split: Split
    label: str
    predicted: str | None = None
    """None where no answer could be parsed; counts as an error in every metric. With several samples the label that
    most of them name."""
    probabilities: tuple[float, ...] | None = None
    """Probability of each label, in the order of the task's labels; with several samples their mean."""
    confidence: float | None = Field(default=None, ge=0, le=1)
    """Agreement: share of the samples that name `predicted`; None where only one was taken."""
    rationale: str | None = None
    """With several samples that of the first one that names `predicted`, an accepted one before others."""
    seconds: float | None = None
    """Wall time of this visit's answer where it was measured alone, seconds."""


class RejectedRow(_Row):
    """One input that could not be used."""

    source: str
    """Source file and line, or place in a table; never who it is about."""
    stage: str
    reason: str


def _arrow_type(annotation: Any) -> pa.DataType:
    """Arrow type of a row field: str, int, float, bool, Literal of str, tuple of one type, nested row, or None-able."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        return _arrow_type(next(arg for arg in args if arg is not type(None)))
    if origin is Annotated:
        return _arrow_type(args[0])
    if origin is tuple:
        return pa.list_(_arrow_type(args[0]))
    if origin is Literal:
        return pa.string()
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return pa.struct(list(arrow_schema(annotation)))
    return {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}[annotation]


def arrow_schema(row: type[BaseModel]) -> pa.Schema:
    """The Arrow schema of a row class: one column per field, in the order of the class."""
    return pa.schema([(name, _arrow_type(field.annotation)) for name, field in row.model_fields.items()])


PATIENTS = arrow_schema(PatientRow)
MEASURES = arrow_schema(MeasuresRow)
FINDINGS = arrow_schema(FindingsRow)
RATIONALES = arrow_schema(RationaleRow)
PREDICTIONS = arrow_schema(PredictionRow)
REJECTED = arrow_schema(RejectedRow)


def to_table(rows: Sequence[BaseModel], schema: pa.Schema) -> pa.Table:
    """Rows as an Arrow table of exactly this schema."""
    return pa.Table.from_pylist([row.model_dump() for row in rows], schema=schema)
