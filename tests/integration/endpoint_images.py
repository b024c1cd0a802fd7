"""A phantom as the files that a client would send."""

from __future__ import annotations

import gzip
from functools import lru_cache
from typing import Any

import nibabel
import numpy as np

from clinical_reasoner.cohort.population import Population
from clinical_reasoner.config.loading import load_config
from clinical_reasoner.imaging.phantom_cohort import Phantom, draw_phantom
from clinical_reasoner.imaging.phantom_volumes import PhantomParameters
from tests.integration.pipeline_run import ROOT

nib: Any = nibabel  # typed in part
SEED, INDEX = 7, 3


@lru_cache(maxsize=1)
def phantom() -> Phantom:
    population = load_config(Population, ROOT / "configs/cohort/population_clinic.yaml")
    return draw_phantom(population, load_config(PhantomParameters, ROOT / "configs/cohort/phantom.yaml"), SEED, INDEX)


def phantom_files(description: str = "") -> tuple[bytes, bytes]:
    """Scan (.nii.gz) and label map (.nii.gz) of it. `description`: of the scan's header."""
    drawn = phantom()
    return nifti_gz(drawn.t1, drawn.affine, description), nifti_gz(drawn.labels, drawn.affine)


def nifti_gz(array: np.ndarray, affine: np.ndarray, description: str = "") -> bytes:
    image = nib.Nifti1Image(array, affine)
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = description.encode()
    return gzip.compress(image.to_bytes(), 1)
