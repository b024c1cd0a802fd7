"""What was measured in a visit's files, joined to what its study tells: by person and visit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clinical_reasoner.imaging.stage import MEASURES_STAGE
from clinical_reasoner.records import MEASURES, MeasuresRow, PatientRow
from clinical_reasoner.runs import RunFolder

Measured = Mapping[tuple[str, str], MeasuresRow]
"""By patient_id and visit_id."""


def measured_visits(run: RunFolder) -> Measured:
    """The `measures` table of a run."""
    rows = [MeasuresRow.model_validate(row) for row in run.read_table(MEASURES_STAGE, MEASURES).to_pylist()]
    return {(row.patient_id, row.visit_id): row for row in rows}


def with_measures(patient: PatientRow, measured: Measured) -> PatientRow:
    """The patient with what was measured. Where both tell a measure, as with the ICV, the measured one is comparable
    with the others of its segmenter and goes before that of the study."""
    row = measured.get((patient.patient_id, patient.visit_id))
    if row is None:
        return patient
    names = {measure.name for measure in row.measures}
    kept = tuple(measure for measure in patient.measures if measure.name not in names)
    return patient.model_copy(
        update={
            "measures": (*kept, *row.measures),
            "segmenter": row.segmenter if row.measures else patient.segmenter,
            "warnings": tuple(dict.fromkeys((*patient.warnings, *row.warnings))),
        }
    )


def pictures_of(patient: PatientRow, measured: Measured) -> dict[str, Any]:
    """`slice_paths` and `cube_path` of the visit, below the run folder."""
    row = measured.get((patient.patient_id, patient.visit_id))
    return {"slice_paths": row.slice_paths, "cube_path": row.cube_path} if row else {}
