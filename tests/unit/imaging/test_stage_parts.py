"""Stage `measures` without Ray: which visits are measured, from which folder, and what becomes of their rows."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from clinical_reasoner.cohort.stage import make_patients
from clinical_reasoner.config.cohort import StudyCohort, SyntheticCohort, TableCohort
from clinical_reasoner.config.imaging import ImagingConfig
from clinical_reasoner.config.pipeline import CohortRunConfig
from clinical_reasoner.errors import UserError
from clinical_reasoner.imaging.labels import FREESURFER
from clinical_reasoner.imaging.measuring import ITEMS, MEASURED
from clinical_reasoner.imaging.phantom_cohort import Phantom
from clinical_reasoner.imaging.stage import (
    block_rows,
    files_fingerprint,
    label_scheme,
    make_measures,
    parted,
    scans_folder,
    work_items,
    worker_count,
)
from clinical_reasoner.records import MEASURES, PATIENTS, Measure, PatientRow, to_table
from clinical_reasoner.runs import RunFolder
from tests.unit.imaging.test_stats_files import aseg
from tests.unit.imaging.visit_files import freesurfer, item

ROOT = Path(__file__).parents[3]
STUDY = StudyCohort(kind="bids", path="study", name="study")


def patient(number: int, **fields: Any) -> PatientRow:
    return PatientRow(patient_id=f"p{number}", visit_id="bl", cohort="study", split="train", **fields)


def table() -> pa.Table:
    volume = Measure(name="hippocampus", value=7000.0, unit="mm3")
    head = Measure(name="icv", value=1.5e6, unit="mm3")
    return to_table(
        [
            patient(1),
            patient(2, segmentation_path="a/dseg.nii", segmenter="own-1"),
            patient(3, segmentation_path="a/dseg.nii", image_path="/b/T1w.nii", measures=(volume,)),
            patient(4, image_path="b/T1w.nii"),
            patient(5, segmentation_path="/c/dseg.nii", image_path="c/T1w.nii", measures=(head,)),
        ],
        PATIENTS,
    )


def test_which_visits_are_measured_and_which_are_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    rows = work_items(table(), STUDY, ImagingConfig(segmenter="stated-2")).to_pylist()
    assert [(row["number"], row["measure"]) for row in rows] == [("000002", True), ("000005", True)]
    assert [row["segmenter"] for row in rows] == ["own-1", "stated-2"]
    assert [row["segmentation_path"] for row in rows] == [f"{tmp_path}/a/dseg.nii", "/c/dseg.nii"]
    shown = work_items(table(), STUDY, ImagingConfig(slices=True)).to_pylist()
    assert [(row["number"], row["measure"]) for row in shown] == [
        ("000002", True),
        ("000003", False),
        ("000004", False),
        ("000005", True),
    ]
    own = TableCohort(kind="table", path="tables/own.csv", name="own")
    relative = work_items(table(), own, ImagingConfig()).to_pylist()
    assert [row["segmentation_path"] for row in relative] == [f"{tmp_path}/tables/a/dseg.nii", "/c/dseg.nii"]
    assert [row["image_path"] for row in relative] == [None, f"{tmp_path}/tables/c/T1w.nii"]


def test_folder_that_scans_must_not_leave(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "study").mkdir()
    own = TableCohort(kind="table", path="tables/own.csv", name="own")
    drawn = SyntheticCohort(kind="synthetic", population="p.yaml", patients=10, seed=1)
    plain, other = ImagingConfig(), ImagingConfig(folder="scans")
    assert [scans_folder(cohort, plain) for cohort in (STUDY, own, drawn)] == [
        f"{tmp_path}/study",
        f"{tmp_path}/tables",
        None,
    ]
    assert scans_folder(own, other) == f"{tmp_path}/scans"


def test_fingerprint_tells_other_files(study: Path, phantom: Phantom) -> None:
    folder = freesurfer(study, phantom)
    items = pa.Table.from_pylist(
        [item(study), item(study, segmentation_path=str(folder / "mri/aparc+aseg.mgz"))], schema=ITEMS
    )
    first = files_fingerprint(items)
    assert files_fingerprint(items) == first != files_fingerprint(items.slice(1))
    (folder / "stats/aseg.stats").write_text(aseg() + "\n", encoding="utf-8")
    second = files_fingerprint(items)
    (study / "T1w.nii.gz").unlink()
    assert len({first, second, files_fingerprint(items)}) == 3


def test_rows_are_parted_into_measures_and_rejected() -> None:
    rows = [
        {"number": "000002", "measures": [], "segmenter": "s", "warnings": ["w"], "slice_paths": ["slices/000002.png"]},
        {"number": "000005", "measures": [], "warnings": [], "slice_paths": [], "reason": "segmentation: no such file"},
    ]
    measures, rejected = parted(pa.Table.from_pylist(rows, schema=MEASURED), table())
    assert measures.schema == MEASURES
    assert [(row["patient_id"], row["segmenter"], row["warnings"]) for row in measures.to_pylist()] == [
        ("p2", "s", ["w"])
    ]
    assert [(row.source, row.stage, row.reason) for row in rejected] == [
        ("patients row 5", "measures", "segmentation: no such file")
    ]
    nothing, everything = parted(pa.Table.from_pylist(rows[1:], schema=MEASURED), table())
    assert (nothing.num_rows, nothing.schema, len(everything)) == (0, MEASURES, 1)


@pytest.mark.parametrize(
    ("items", "workers", "most", "expected"), [(3, 2, 16, 1), (64, 2, 16, 8), (10_000, 2, 16, 16), (600, 64, 16, 2)]
)
def test_blocks_keep_all_workers_busy(items: int, workers: int, most: int, expected: int) -> None:
    assert block_rows(items, workers, most) == expected


def test_workers_are_those_configured_else_the_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert worker_count(ImagingConfig(workers=3)) == 3
    assert (worker_count(ImagingConfig()) or 0) >= 1
    monkeypatch.setenv("RAY_ADDRESS", "cluster:6379")
    assert worker_count(ImagingConfig()) is None


def test_lookup_table_that_cannot_be_used(tmp_path: Path) -> None:
    assert label_scheme(ImagingConfig()) is FREESURFER
    file = tmp_path / "labels.txt"
    with pytest.raises(UserError, match=r"imaging\.lookup_table .*labels\.txt.: no such file"):
        label_scheme(ImagingConfig(lookup_table=str(file)))
    file.write_text("1 Left-Hippocampus 0 0 0 0\n2 Right-Hippocampus 0 0 0 0\n", encoding="utf-8")
    assert label_scheme(ImagingConfig(lookup_table=str(file))).ids["right-hippocampus"] == (2,)


def test_without_scans_the_stage_is_empty_and_ray_stays_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    file = tmp_path / "own.csv"
    file.write_text("patient_id,label,split,mmse\na,AD,train,20\nb,NC,train,29\nc,NC,test,30\n", encoding="utf-8")
    settings = {
        "run": {"path": str(tmp_path / "run")},
        "task": {"file": "configs/tasks/alzheimers.yaml"},
        "cohort": {"kind": "table", "path": str(file), "name": "own"},
    }
    config, run = CohortRunConfig.model_validate(settings), RunFolder(str(tmp_path / "run"))
    make_patients(config, run)
    manifest = make_measures(config, run)
    assert (manifest.rows_in, manifest.rows_out, manifest.rows_rejected) == (0, 0, 0)
    assert run.read_table("measures", MEASURES).num_rows == 0
    assert "ray" not in sys.modules or not sys.modules["ray"].is_initialized()
