"""What was measured in a visit's files, joined to what its study tells: by person and visit."""

from __future__ import annotations

from typing import Any

from clinical_reasoner.imaging.stage import MEASURES_STAGE
from clinical_reasoner.records import MEASURES, MeasuresRow, PatientRow
from clinical_reasoner.runs import RunFolder


class Measured:
    """The `measures` table of a run by visit; it stays in columns, and rows are made when they are asked for."""

    def __init__(self, run: RunFolder) -> None:
        self._table = run.read_table(MEASURES_STAGE, MEASURES)
        ids = (self._table.column(name).to_pylist() for name in ("patient_id", "visit_id"))
        self._place = {visit: place for place, visit in enumerate(zip(*ids, strict=True))}

    def find(self, patient: PatientRow) -> MeasuresRow | None:
        """What was measured at this visit; None where nothing was."""
        place = self._place.get((patient.patient_id, patient.visit_id))
        return None if place is None else MeasuresRow.model_validate(self._table.slice(place, 1).to_pylist()[0])


def with_measures(patient: PatientRow, measured: MeasuresRow | None) -> PatientRow:
    """The patient with what was measured. Where both tell a measure, as with the ICV, the measured one is comparable
    with the others of its segmenter and goes before that of the study."""
    if measured is None:
        return patient
    names = {measure.name for measure in measured.measures}
    kept = tuple(measure for measure in patient.measures if measure.name not in names)
    return patient.model_copy(
        update={
            "measures": (*kept, *measured.measures),
            "segmenter": measured.segmenter if measured.measures else patient.segmenter,
            "warnings": tuple(dict.fromkeys((*patient.warnings, *measured.warnings))),
        }
    )


def pictures_of(measured: MeasuresRow | None) -> dict[str, Any]:
    """`slice_paths`, `picture_path` and `cube_path` of a visit, below the run folder."""
    return {} if measured is None else measured.model_dump(include={"slice_paths", "picture_path", "cube_path"})
