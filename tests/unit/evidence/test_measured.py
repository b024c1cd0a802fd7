"""What was measured joins the patients by person and visit."""

from __future__ import annotations

from pathlib import Path

from clinical_reasoner.evidence.measured import Measured, pictures_of, with_measures
from clinical_reasoner.records import MEASURES, Measure, MeasuresRow, PatientRow, to_table
from clinical_reasoner.runs import RunFolder

GRADE = Measure(name="mta", value=2.0, unit="rating")
HEAD = Measure(name="icv", value=1.4e6, unit="mm3")
MEASURED_HEAD = Measure(name="icv", value=1.5e6, unit="mm3")
HIPPOCAMPUS = Measure(name="hippocampus", value=7000.0, unit="mm3")


def patient(visit: str, **fields: object) -> PatientRow:
    return PatientRow.model_validate(
        {"patient_id": "p", "visit_id": visit, "cohort": "study", "split": "train", **fields}
    )


def test_measures_join_by_person_and_visit(tmp_path: Path) -> None:
    run = RunFolder(str(tmp_path))
    rows = [
        MeasuresRow(
            patient_id="p",
            visit_id="m12",
            measures=(HIPPOCAMPUS, MEASURED_HEAD),
            segmenter="own-1",
            warnings=("amygdala: missing", "not defaced"),
            slice_paths=("slices/000002.png",),
            picture_path="slices/000002-views.png",
        ),
        MeasuresRow(patient_id="p", visit_id="m24", slice_paths=("slices/000003.png",)),
        MeasuresRow(patient_id="other", visit_id="bl", measures=(HIPPOCAMPUS,)),
    ]
    run.write_table("measures", to_table(rows, MEASURES))
    measured = Measured(run)
    first = patient("bl", measures=(GRADE,))
    assert measured.find(first) is None and with_measures(first, None) == first and pictures_of(None) == {}
    second = patient("m12", measures=(GRADE, HEAD), segmenter="stated", warnings=("not defaced",))
    found = measured.find(second)
    assert found == rows[0]
    second = with_measures(second, found)
    assert second.measures == (GRADE, HIPPOCAMPUS, MEASURED_HEAD), "the head of the same segmenter"
    assert second.segmenter == "own-1"
    assert second.warnings == ("not defaced", "amygdala: missing")
    pictures = {"slice_paths": ("slices/000002.png",), "picture_path": "slices/000002-views.png", "cube_path": None}
    assert pictures_of(found) == pictures
    shown = patient("m24", measures=(HIPPOCAMPUS, HEAD), segmenter="freesurfer-6.0")
    assert with_measures(shown, measured.find(shown)) == shown, "pictures alone change no measure and no segmenter"
    assert pictures_of(measured.find(shown))["slice_paths"] == ("slices/000003.png",)
