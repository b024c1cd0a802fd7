"""Files of a visit, whole and broken, and the work that they make, for the tests of measuring."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from clinical_reasoner.imaging.labels import FREESURFER
from clinical_reasoner.imaging.measuring import Measuring
from clinical_reasoner.imaging.phantom_cohort import Phantom
from tests.unit.imaging.test_stats_files import aparc, aseg

nib: Any = nibabel  # typed in part


def write(file: Path, array: np.ndarray, phantom: Phantom) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    nib.save((nib.MGHImage if file.suffix == ".mgz" else nib.Nifti1Image)(array, phantom.affine), file)
    return file


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def how(study: Path, **changed: Any) -> Measuring:
    settings = {"scheme": FREESURFER, "slices": False, "slice_size": 64, "faces": True, **changed}
    return Measuring(run_path=str(study.parent / "run"), root=str(study), **settings)


def item(study: Path, **changed: Any) -> dict[str, Any]:
    files = {"image_path": str(study / "T1w.nii.gz"), "segmentation_path": str(study / "dseg.nii.gz")}
    return {"number": "000012", **files, "segmenter": "phantom", "measure": True, **changed}


def values(row: dict[str, Any]) -> dict[str, float]:
    return {measure["name"]: measure["value"] for measure in row["measures"]}


def freesurfer(study: Path, phantom: Phantom) -> Path:
    """A subject's folder with label map and tables."""
    folder = study / "subject"
    write(folder / "mri/aparc+aseg.mgz", phantom.labels.astype(np.int32), phantom)
    (folder / "stats").mkdir()
    (folder / "stats/aseg.stats").write_text(aseg(), encoding="utf-8")
    for side in ("lh", "rh"):
        (folder / f"stats/{side}.aparc.stats").write_text(aparc(side), encoding="utf-8")
    return folder
