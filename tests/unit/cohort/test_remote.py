"""Study files on another file system: copied once, brought up to date, and never outside of the copy."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow.fs as pafs
import pytest

from clinical_reasoner.cohort.columns import StudyFileError
from clinical_reasoner.cohort.remote import mirror

LOCAL = pafs.LocalFileSystem()


def files_of(folder: Path) -> dict[str, str]:
    return {str(file.relative_to(folder)): file.read_text() for file in folder.rglob("*") if file.is_file()}


@pytest.fixture
def study(tmp_path: Path) -> Path:
    folder = tmp_path / "study"
    (folder / "sub-1" / "anat").mkdir(parents=True)
    (folder / "participants.tsv").write_text("participant_id\nsub-1\n")
    (folder / "sub-1/anat/sub-1_T1w.nii.gz").write_text("voxels")
    return folder


def test_a_folder_is_copied_and_brought_up_to_date(tmp_path: Path, study: Path) -> None:
    target = tmp_path / "copy"
    assert mirror(LOCAL, str(study), target) == target
    assert files_of(target) == files_of(study)
    scan, table = target / "sub-1/anat/sub-1_T1w.nii.gz", study / "participants.tsv"
    scan.write_text("VOXELS")
    os.utime(scan, ns=((study / "sub-1/anat/sub-1_T1w.nii.gz").stat().st_mtime_ns,) * 2)
    table.write_text("participant_id\nsub-2\n")
    (study / "new.csv").write_text("a\n")
    mirror(LOCAL, str(study), target)
    assert files_of(target)["participants.tsv"] == "participant_id\nsub-2\n" and (target / "new.csv").is_file()
    assert scan.read_text() == "VOXELS", "of the same size and time: not fetched again"
    (study / "new.csv").unlink()
    mirror(LOCAL, str(study), target)
    assert not (target / "new.csv").exists()


def test_a_file_is_copied_alone(tmp_path: Path, study: Path) -> None:
    copied = mirror(LOCAL, str(study / "participants.tsv"), tmp_path / "copy")
    assert copied.read_text() == "participant_id\nsub-1\n"
    assert list(files_of(tmp_path / "copy")) == ["participants.tsv"]


def test_what_was_cut_off_is_fetched_again(tmp_path: Path, study: Path) -> None:
    target = tmp_path / "copy"
    (target / "sub-1/anat").mkdir(parents=True)
    (target / "sub-1/anat/.sub-1_T1w.nii.gz.part").write_text("vox")
    mirror(LOCAL, str(study), target)
    assert files_of(target) == files_of(study)


def test_nothing_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(StudyFileError, match="no file at this address"):
        mirror(LOCAL, str(tmp_path / "none"), tmp_path / "copy")
