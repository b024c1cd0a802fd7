"""Scans for real: phantoms as a BIDS dataset, Ray Data on two workers, broken files among them, and graded findings."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from clinical_reasoner.cohort.population import Population
from clinical_reasoner.cohort.stage import make_patients
from clinical_reasoner.cohort.visits import REGIONS
from clinical_reasoner.config.imaging import ImagingConfig
from clinical_reasoner.config.loading import load_config
from clinical_reasoner.config.pipeline import CohortRunConfig
from clinical_reasoner.evidence.stage import make_findings
from clinical_reasoner.imaging.labels import FREESURFER
from clinical_reasoner.imaging.measuring import Measuring, measure_batch
from clinical_reasoner.imaging.phantom_cohort import draw_phantom, write_phantoms
from clinical_reasoner.imaging.phantom_volumes import PhantomParameters
from clinical_reasoner.imaging.stage import make_measures, measure_items, work_items
from clinical_reasoner.imaging.views import PICTURE_PIXELS
from clinical_reasoner.records import FINDINGS, MEASURES, PATIENTS
from clinical_reasoner.runs import Manifest, RunFolder

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[2]
SEED, PEOPLE = 6, 30
TRUNCATED, FOUR_D, LINKED = 4, 11, 17
"""Which phantoms are broken."""
SHARES = ("labels.NC.share=0.7", "labels.AD.share=0.2", "labels.MCI.share=0.1", "missing_share=0.0")
"""Controls enough for norms among so few."""


@pytest.fixture(scope="module")
def population() -> Population:
    return load_config(Population, ROOT / "configs/cohort/population_clinic.yaml", SHARES)


@pytest.fixture(scope="module")
def parameters() -> PhantomParameters:
    return load_config(PhantomParameters, ROOT / "configs/cohort/phantom.yaml")


@pytest.fixture(scope="module", autouse=True)
def ray_of_its_own() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        patch.chdir(ROOT)
        yield
    import ray

    ray.shutdown()


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory, population: Population, parameters: PhantomParameters) -> Path:
    folder = tmp_path_factory.mktemp("study") / "phantoms"
    write_phantoms(population, parameters, SEED, PEOPLE, folder)
    truncated = segmentation(folder, TRUNCATED)
    truncated.write_bytes(truncated.read_bytes()[:5000])
    four_d: Any = nibabel.load(segmentation(folder, FOUR_D))
    both = np.stack([np.asarray(four_d.dataobj)] * 2, axis=-1)
    nibabel.save(nibabel.Nifti1Image(both, four_d.affine), segmentation(folder, FOUR_D))  # type: ignore[no-untyped-call]
    linked = segmentation(folder, LINKED)
    linked.rename(folder.parent / "elsewhere.nii.gz")
    linked.symlink_to(folder.parent / "elsewhere.nii.gz")
    return folder


def segmentation(dataset: Path, index: int) -> Path:
    person = f"sub-SYN{SEED}{index:06d}"
    return dataset / "derivatives/phantom" / person / "anat" / f"{person}_dseg.nii.gz"


def config_of(dataset: Path, run: Path, **imaging: Any) -> CohortRunConfig:
    return CohortRunConfig.model_validate(
        {
            "run": {"path": str(run)},
            "task": {"file": "configs/tasks/alzheimers.yaml"},
            "cohort": {
                "kind": "bids",
                "path": str(dataset),
                "name": "phantoms",
                "deidentify": {"ids": "keep"},
                "splits": {"train": 0.8, "validation": 0.0, "test": 0.2},
            },
            "imaging": {"workers": 2, **imaging},
            "evidence": {"fewest_controls": 10},
        }
    )


@pytest.fixture(scope="module")
def made(dataset: Path) -> tuple[CohortRunConfig, RunFolder, list[Manifest]]:
    config = config_of(dataset, dataset.parent / "run", slices=True, slice_size=64)
    run = RunFolder(config.run.path)
    return config, run, [make(config, run) for make in (make_patients, make_measures, make_findings)]


def test_rows_in_are_rows_out_and_rejected_with_reasons(
    made: tuple[CohortRunConfig, RunFolder, list[Manifest]],
) -> None:
    _, run, (patients, measures, findings) = made
    assert (patients.rows_in, patients.rows_out) == (PEOPLE, PEOPLE - 1)
    assert (measures.rows_in, measures.rows_out, measures.rows_rejected) == (PEOPLE - 1, PEOPLE - 3, 2)
    assert (findings.rows_in, findings.rows_out) == (PEOPLE - 1, PEOPLE - 1), "they are still patients"
    rejected = run.read_table("rejected").to_pylist()
    assert {(row["stage"], row["reason"]) for row in rejected} == {
        ("patients", "a file of the visit is outside the cohort folder, or a link that leaves it"),
        ("measures", "segmentation: its gzip is cut off"),
        ("measures", "segmentation: 4-D: not one volume"),
    }
    assert not any("SYN" in row["source"] + row["reason"] for row in rejected)


def test_volumes_are_those_that_were_drawn(
    made: tuple[CohortRunConfig, RunFolder, list[Manifest]], population: Population, parameters: PhantomParameters
) -> None:
    rows = made[1].read_table("measures", MEASURES).to_pylist()
    whole = [index for index in range(PEOPLE) if index not in (TRUNCATED, FOUR_D, LINKED)]
    assert [row["patient_id"] for row in rows] == [f"sub-SYN{SEED}{index:06d}" for index in whole]
    for index, row in zip(whole, rows, strict=True):
        found = {measure["name"]: measure["value"] for measure in row["measures"]}
        drawn = draw_phantom(population, parameters, SEED, index).volumes
        assert {name: found[name] for name in REGIONS} == pytest.approx(drawn, rel=0.005)
        assert (row["segmenter"], row["warnings"]) == ("phantom", [])


def test_findings_are_graded_by_w_scores_and_show_the_scan(
    made: tuple[CohortRunConfig, RunFolder, list[Manifest]],
) -> None:
    _, run, _ = made
    rows = run.read_table("findings", FINDINGS).to_pylist()
    graded = [row for row in rows if row["findings"]]
    assert len(graded) == PEOPLE - 3
    for row in graded:
        names = {finding["name"] for finding in row["findings"]}
        assert {"hippocampal_atrophy", "ventricle_enlargement", "temporal_horn_rounding"} <= names
        assert all(finding["w_score"] is not None and "phantom" in finding["source"] for finding in row["findings"])
        assert "hippocampal atrophy" in row["description"]
        assert [Image.open(run.child(name)).size for name in row["slice_paths"]] == [(128, 128)] + [(64, 64)] * 4
        assert Image.open(run.child(row["picture_path"])).size == PICTURE_PIXELS[::-1]
        assert not any("SYN" in name for name in (*row["slice_paths"], row["picture_path"]))
    assert all((row["slice_paths"], row["picture_path"]) == ([], None) for row in rows if not row["findings"])
    pictures = {name for row in rows if row["findings"] for name in (*row["slice_paths"], row["picture_path"])}
    assert {f"slices/{file.name}" for file in Path(run.child("slices")).iterdir()} == pictures


def test_second_run_is_skipped(
    made: tuple[CohortRunConfig, RunFolder, list[Manifest]], capsys: pytest.CaptureFixture[str]
) -> None:
    config, run, manifests = made
    started = time.monotonic()
    assert [make(config, run) for make in (make_patients, make_measures, make_findings)] == manifests
    assert time.monotonic() - started < 5
    assert capsys.readouterr().out.count("finished before") == 3
    assert not list(Path(run.path).glob("work/*"))


def test_link_out_of_the_folder_of_a_cohorts_own_table(dataset: Path, tmp_path: Path) -> None:
    file = dataset / "own.csv"
    paths = [segmentation(dataset, index).relative_to(dataset) for index in (0, LINKED, 1)]
    lines = [f"p{number},NC,train,{path}" for number, path in enumerate(paths)] + ["q,AD,test,"]
    file.write_text("\n".join(["patient_id,label,split,segmentation_path", *lines]), encoding="utf-8")
    plain = config_of(dataset, tmp_path / "run", segmenter="phantom")
    settings = plain.model_dump()
    settings["cohort"] = {"kind": "table", "path": str(file), "name": "own"}
    config, run = CohortRunConfig.model_validate(settings), RunFolder(str(tmp_path / "run"))
    make_patients(config, run)
    manifest = make_measures(config, run)
    assert (manifest.rows_in, manifest.rows_out, manifest.rows_rejected) == (3, 2, 1)
    (rejected,) = run.read_table("rejected").to_pylist()
    assert (rejected["source"], rejected["reason"]) == (
        "patients row 2",
        "segmentation: outside the folder of the cohort",
    )
    assert run.read_table("measures", MEASURES).column("segmenter").to_pylist() == ["phantom"] * 2


def test_run_that_ended_half_way_measures_the_rest(
    made: tuple[CohortRunConfig, RunFolder, list[Manifest]], dataset: Path, tmp_path: Path
) -> None:
    config, finished, _ = made
    run, imaging = RunFolder(str(tmp_path / "run")), ImagingConfig(workers=1, rows_per_block=3)
    items = work_items(finished.read_table("patients", PATIENTS), config.cohort, imaging)
    measure = partial(
        measure_batch, how=Measuring(run.path, str(dataset), FREESURFER, slices=False, slice_size=64, faces=True)
    )
    marks = str(tmp_path)

    def stops_half_way(batch: pa.Table) -> pa.Table:
        if max(batch.column("number").to_pylist()) > "000015":
            raise RuntimeError("stopped")
        return measure(batch)

    def marks_what_it_measures(batch: pa.Table) -> pa.Table:
        for number in batch.column("number").to_pylist():
            Path(marks, f"measured-{number}").touch()
        return measure(batch)

    with pytest.raises(Exception, match="stopped"):
        measure_items(run, "work/m", items, stops_half_way, imaging, 4)
    safe = sum(pq.read_metadata(file).num_rows for file in Path(run.path).glob("work/m/measured/*.parquet"))
    assert 0 < safe < items.num_rows
    measured = measure_items(run, "work/m", items, marks_what_it_measures, imaging, 4)
    assert measured.column("number").to_pylist() == items.column("number").to_pylist()
    assert len(list(tmp_path.glob("measured-*"))) == items.num_rows - safe
