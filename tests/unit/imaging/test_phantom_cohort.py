"""The dataset of phantoms: the same patients as without bodies, readable as BIDS, and never taken for real people."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from clinical_reasoner.cohort.bids import read_bids
from clinical_reasoner.cohort.phantom_mark import SEGMENTER, are_phantoms, mark_phantoms
from clinical_reasoner.cohort.population import Population
from clinical_reasoner.cohort.synthetic import draw_patient, draw_with_severity
from clinical_reasoner.cohort.visits import REGIONS, Visit
from clinical_reasoner.config.imaging import PhantomsConfig
from clinical_reasoner.config.loading import load_config
from clinical_reasoner.errors import UserError
from clinical_reasoner.imaging.labels import FREESURFER
from clinical_reasoner.imaging.phantom_cohort import FIELDS, draw_phantom, write_phantoms
from clinical_reasoner.imaging.phantom_volumes import PhantomParameters
from clinical_reasoner.imaging.scans import open_label_map
from clinical_reasoner.imaging.volumes import regional_volumes

CONFIGS = Path(__file__).parents[3] / "configs/cohort"
SEED, PATIENTS = 11, 6


@pytest.fixture(scope="module")
def parameters() -> PhantomParameters:
    return load_config(PhantomParameters, CONFIGS / "phantom.yaml")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory, population: Population, parameters: PhantomParameters) -> Path:
    folder = tmp_path_factory.mktemp("phantoms") / "data"
    write_phantoms(population, parameters, SEED, PATIENTS, folder)
    return folder


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_dataset_is_read_as_bids_with_the_patients_of_the_synthetic_cohort(
    dataset: Path, population: Population, parameters: PhantomParameters
) -> None:
    visits = [one for one in read_bids(dataset) if isinstance(one, Visit)]
    assert len(visits) == PATIENTS
    for index, visit in enumerate(visits):
        patient = draw_patient(population, index, SEED, {"train": 1.0})
        assert visit.patient_id == f"sub-SYN{SEED}{index:06d}"
        assert {name: getattr(visit, name) for name in FIELDS} == {name: getattr(patient, name) for name in FIELDS}
        assert (visit.label, visit.segmenter, visit.warnings) == (patient.label, SEGMENTER, ())
        phantom = draw_phantom(population, parameters, SEED, index)
        measured = regional_volumes(open_label_map(Path(visit.segmentation_path or ""), dataset), FREESURFER)
        assert measured == pytest.approx(phantom.volumes, rel=1e-6) and set(measured) == set(REGIONS)


def test_files_are_small_whole_numbers_in_millimetres(dataset: Path) -> None:
    for name, kind in (("*_T1w.nii.gz", np.uint8), ("*_dseg.nii.gz", np.int16)):
        (file, *others) = dataset.rglob(name)
        image: Any = nibabel.load(file)
        assert len(others) == PATIENTS - 1
        assert (image.get_data_dtype(), image.shape) == (kind, (64, 64, 64))
        assert image.header.get_xyzt_units()[0] == "mm" and file.stat().st_size < 200_000


def test_same_seed_writes_the_same_bytes_and_replaces_what_was_there(
    dataset: Path, tmp_path: Path, population: Population, parameters: PhantomParameters
) -> None:
    folder = tmp_path / "again"
    write_phantoms(population, parameters, SEED + 1, PATIENTS + 2, folder)
    write_phantoms(population, parameters, SEED, PATIENTS, folder)
    assert files_of(folder) == files_of(dataset)


def test_folder_of_something_else_is_left_alone(
    tmp_path: Path, population: Population, parameters: PhantomParameters
) -> None:
    study = tmp_path / "participants.tsv"
    study.write_text("participant_id\nsub-01\n", encoding="utf-8")
    with pytest.raises(UserError, match="holds something else than phantoms"):
        write_phantoms(population, parameters, SEED, 1, tmp_path)
    assert files_of(tmp_path) == {"participants.tsv": b"participant_id\nsub-01\n"}


def test_values_that_the_table_lacks_still_shape_the_body(
    population: Population, parameters: PhantomParameters
) -> None:
    gappy = population.model_copy(update={"missing_share": 0.9})
    whole = population.model_copy(update={"missing_share": 0.0})
    phantom, complete = (draw_phantom(one, parameters, SEED, 0) for one in (gappy, whole))
    assert phantom.patient.age_years is None or phantom.patient.sex is None
    assert phantom.volumes == complete.volumes
    np.testing.assert_array_equal(phantom.labels, complete.labels)


def test_body_goes_with_the_severity_of_the_patient(population: Population, parameters: PhantomParameters) -> None:
    patient, severity = draw_with_severity(population, 3, SEED, {"train": 1.0})
    assert patient == draw_patient(population, 3, SEED, {"train": 1.0})
    drawn = [draw_with_severity(population, index, SEED, {"train": 1.0}) for index in range(400)]
    means = {label: np.mean([value for one, value in drawn if one.label == label]) for label in population.labels}
    assert severity != 0 and means["NC"] < 0.1 < 0.45 < means["MCI"] < 0.65 < 0.9 < means["AD"]
    sizes = [draw_phantom(population, parameters, SEED, index).volumes["hippocampus"] for index in range(60)]
    ill = [size for size, (_, value) in zip(sizes, drawn, strict=False) if value > 0.9]
    well = [size for size, (_, value) in zip(sizes, drawn, strict=False) if value < 0.2]
    assert np.mean(ill) < 0.9 * np.mean(well)


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"GeneratedBy": [{}]}', '{"GeneratedBy": [{"Name": "fmriprep"}]}']
)
def test_only_phantoms_are_marked(tmp_path: Path, content: str) -> None:
    assert not are_phantoms(tmp_path)
    (tmp_path / "dataset_description.json").write_text(content, encoding="utf-8")
    assert not are_phantoms(tmp_path)
    mark_phantoms(tmp_path)
    assert are_phantoms(tmp_path)
    assert "not real people" in (tmp_path / "dataset_description.json").read_text(encoding="utf-8")


def test_shipped_config_loads() -> None:
    assert load_config(PhantomsConfig, CONFIGS / "phantoms.yaml").patients >= 300
