"""Which code in a FHIR Bundle means what, as data: `configs/serving/fhir_codes.yaml`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from pydantic import Field

from clinical_reasoner.config.base import StrictConfig
from clinical_reasoner.config.loading import load_config
from clinical_reasoner.errors import UserError
from clinical_reasoner.records import PatientRow
from clinical_reasoner.task import DiagnosisTask

Code = tuple[str, str]
"""System and code."""
Factor = float
"""What a number in a unit is multiplied by."""


class Coding(StrictConfig):
    system: str = Field(min_length=1)
    code: str = Field(min_length=1)
    display: str | None = None

    @property
    def key(self) -> Code:
        return self.system, self.code


class CodedValue(Coding):
    value: str
    """In the `patients` table."""


class FieldCodes(StrictConfig):
    """How one column of the `patients` table is written in FHIR."""

    codes: tuple[Coding, ...] = ()
    """Of an Observation or a component of one."""
    units: dict[str, Factor] = {}
    """UCUM code -> factor to the column's unit; empty where a number is no value."""
    values: tuple[CodedValue, ...] = ()
    texts: dict[str, str | int] = {}
    """Text -> value; case and blanks do not matter."""

    def coded(self, code: Code) -> str | None:
        return next((one.value for one in self.values if one.key == code), None)

    def written(self, text: str) -> str | int | None:
        return {_plain(known): value for known, value in self.texts.items()}.get(_plain(text))


class FhirCodes(StrictConfig):
    """The whole file."""

    finding_system: str
    grade_system: str
    measure_system: str
    segmenter_system: str
    answer_system: str
    label_system: str
    volume_units: dict[str, Factor]
    """UCUM code -> factor to mm3."""
    plain_units: dict[str, Factor]
    """Of ratings and shapes."""
    fields: dict[str, FieldCodes]
    diagnoses: dict[str, Coding]
    """Label of the task -> its public code; a label without one has that of `label_system` alone."""

    def field_of(self) -> Mapping[Code, str]:
        """Code of an Observation -> column."""
        return {coding.key: name for name, field in self.fields.items() for coding in field.codes}


def read_codes(file: str, task: DiagnosisTask) -> FhirCodes:
    """Raises UserError with the file, the place and the fix."""
    codes = load_config(FhirCodes, file)
    for reason in _faults(codes, task):
        raise UserError(f"{file}: {reason}")
    return codes


def _faults(codes: FhirCodes, task: DiagnosisTask) -> Iterator[str]:
    columns = PatientRow.model_fields
    for name in codes.fields:
        if name not in columns:
            yield f"fields.{name}: no column of the `patients` table"
    counted = Counter(coding.key for field in codes.fields.values() for coding in field.codes)
    for (system, code), times in counted.items():
        if times > 1:
            yield f"fields: {system}|{code} stands there twice; a code means one field"
    for label in codes.diagnoses:
        if label not in task.label_names:
            yield f"diagnoses.{label}: no label of task {task.name!r}; labels are {', '.join(task.label_names)}"
    systems = [codes.finding_system, codes.measure_system, *(system for system, _ in counted)]
    if codes.finding_system == codes.measure_system or {codes.finding_system, codes.measure_system} & set(systems[2:]):
        yield "finding_system and measure_system: each must be a system of its own"


def _plain(text: str) -> str:
    return "".join(text.split()).casefold()
