"""Phantoms of a run: kept in its folder, measured there, and the same when they are drawn again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from clinical_reasoner.cohort.population import Population
from clinical_reasoner.cohort.stage import make_patients
from clinical_reasoner.cohort.visits import RATIOS, REGIONS, SHAPES
from clinical_reasoner.config.loading import load_config
from clinical_reasoner.config.pipeline import PipelineConfig
from clinical_reasoner.imaging.measuring import ITEMS, Measuring
from clinical_reasoner.imaging.phantom_cohort import draw_phantom
from clinical_reasoner.imaging.phantom_measuring import Bodies, measure_phantoms
from clinical_reasoner.imaging.scans import open_label_map
from clinical_reasoner.imaging.stage import label_scheme, phantom_bodies, work_items
from clinical_reasoner.records import PATIENTS
from clinical_reasoner.runs import RunFolder

ROOT = Path(__file__).parents[3]


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PipelineConfig:
    monkeypatch.chdir(ROOT)
    small = [f"run.path={tmp_path / 'run'}", "cohort.patients=40", "imaging.slice_size=64"]
    return load_config(PipelineConfig, "configs/demo.yaml", small)


def items_and_bodies(config: PipelineConfig) -> tuple[pa.Table, Bodies]:
    run, bodies = RunFolder(config.run.path), phantom_bodies(config.cohort)
    make_patients(config, run)
    assert bodies is not None
    return work_items(run.read_table("patients", PATIENTS), config.cohort, config.imaging), bodies


def how(config: PipelineConfig) -> Measuring:
    return Measuring(
        config.run.path, None, label_scheme(config.imaging), slices=True, slice_size=64, faces=False, cube_side=32
    )


def test_what_is_measured_is_what_was_drawn(config: PipelineConfig) -> None:
    items, bodies = items_and_bodies(config)
    assert items.num_rows == 40 and items.column("measure").to_pylist() == [True] * 40
    some = items.slice(3, 3)
    rows = measure_phantoms(some, how(config), bodies).to_pylist()
    again = measure_phantoms(some, how(config), bodies).to_pylist()
    assert rows == again
    for index, (item, row) in enumerate(zip(some.to_pylist(), rows, strict=True), start=3):
        found = {measure["name"]: measure["value"] for measure in row["measures"]}
        phantom = draw_phantom(bodies.population, bodies.parameters, bodies.seed, index)
        assert set(found) == {*REGIONS, *SHAPES, *RATIOS}
        assert {name: found[name] for name in REGIONS} == pytest.approx(phantom.volumes, rel=0.005)
        assert (row["segmenter"], row["reason"], row["warnings"]) == ("phantom", None, [])
        kept = open_label_map(Path(config.run.path, item["segmentation_path"]), None)
        assert np.array_equal(kept.array, phantom.labels)
        cube: Any = nibabel.load(Path(config.run.path, row["cube_path"]))
        assert cube.shape == (32, 32, 32)
        assert [Image.open(Path(config.run.path, name)).size for name in row["slice_paths"]] == [
            (128, 128),
            *[(64, 64)] * 4,
        ]


def test_a_body_that_fits_no_head_is_a_reason(config: PipelineConfig, population: Population) -> None:
    items, bodies = items_and_bodies(config)
    region = bodies.parameters.regions["frontal"].model_copy(update={"median_mm3": 2e6})
    regions = bodies.parameters.regions | {"frontal": region}
    huge = Bodies(population, bodies.parameters.model_copy(update={"regions": regions}), 7)
    (row,) = measure_phantoms(items.slice(0, 1), how(config), huge).to_pylist()
    assert row["reason"].startswith("phantom: ") and row["measures"] == []


def test_items_are_those_of_the_table(config: PipelineConfig) -> None:
    assert items_and_bodies(config)[0].schema == ITEMS
