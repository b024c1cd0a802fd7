"""A phantom, and a folder with its files."""

from __future__ import annotations

from pathlib import Path

import pytest

from clinical_reasoner.cohort.population import Population
from clinical_reasoner.config.loading import load_config
from clinical_reasoner.imaging.phantom_cohort import Phantom, draw_phantom
from clinical_reasoner.imaging.phantom_volumes import PhantomParameters
from tests.unit.imaging.visit_files import write

PARAMETERS = Path(__file__).parents[3] / "configs/cohort/phantom.yaml"


@pytest.fixture(scope="module")
def phantom(population: Population) -> Phantom:
    return draw_phantom(population, load_config(PhantomParameters, PARAMETERS), 7, 1)


@pytest.fixture
def study(tmp_path: Path, phantom: Phantom) -> Path:
    """A folder with the label map and the scan of a phantom."""
    folder = tmp_path / "study"
    write(folder / "dseg.nii.gz", phantom.labels, phantom)
    write(folder / "T1w.nii.gz", phantom.t1, phantom)
    return folder
