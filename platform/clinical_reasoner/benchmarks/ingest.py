"""Scans per second of the stage `measures` on two workers against a plain loop, and how tables grow with their rows.

Scans: phantoms, measured and shown by both paths with the same functions; the plain one opens files with nibabel alone,
in one process, and runs before and after the stage, so that a drift of the machine's speed averages out. The stage's
time is from its first scan to its last one, without the start of Ray and of its workers.
Tables: the stages from a table to findings on 10,000 and on 100,000 rows, each in a process of its own.
"""

from __future__ import annotations

import json
import tempfile
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pyarrow as pa

from clinical_reasoner.benchmarks.tables import table_scaling
from clinical_reasoner.cohort.bids import read_bids
from clinical_reasoner.cohort.deidentify import facial_tissue_present
from clinical_reasoner.cohort.population import Population
from clinical_reasoner.cohort.visits import Visit
from clinical_reasoner.config.cohort import DeidentifyConfig, StudyCohort, SyntheticCohort
from clinical_reasoner.config.imaging import ImagingConfig
from clinical_reasoner.config.loading import load_config
from clinical_reasoner.config.pipeline import CohortRunConfig
from clinical_reasoner.errors import UserError
from clinical_reasoner.imaging.horns import horn_roundness
from clinical_reasoner.imaging.labels import FREESURFER
from clinical_reasoner.imaging.measuring import Measuring, measure_batch
from clinical_reasoner.imaging.phantom_cohort import write_phantoms
from clinical_reasoner.imaging.phantom_volumes import PhantomParameters
from clinical_reasoner.imaging.scans import LabelMap, Volume
from clinical_reasoner.imaging.slices import compose, save_png, slice_images
from clinical_reasoner.imaging.stage import measure_items, work_items
from clinical_reasoner.imaging.volumes import ratios, regional_volumes
from clinical_reasoner.records import PATIENTS, PatientRow, to_table
from clinical_reasoner.runs import RunFolder

PARAMETERS = "configs/cohort/phantom.yaml"
WORKERS = 2
WARM_UP = 16
"""Scans of a first pass, after which Ray's workers have loaded what they need."""
Measures = dict[str, float]


@dataclass(frozen=True)
class TimedMeasure:
    """The stage's own function, with the wall clock of each block in a file."""

    how: Measuring
    folder: str

    def __call__(self, items: pa.Table) -> pa.Table:
        started = time.time()
        measured = measure_batch(items, self.how)
        Path(self.folder, uuid.uuid4().hex).write_text(json.dumps([started, time.time()]), encoding="utf-8")
        return measured


def benchmark_ingest(config: CohortRunConfig) -> dict[str, Any]:
    """Of phantoms of the configured synthetic cohort, and of tables for the configured task."""
    if not isinstance(config.cohort, SyntheticCohort):
        raise UserError("the benchmark `ingest` makes phantoms: take a config with cohort.kind synthetic")
    with tempfile.TemporaryDirectory() as folder:
        scans = _scans(config, config.cohort, Path(folder))
        tables = table_scaling(config, Path(folder))
    return {"benchmark": "ingest", **scans, "tables": tables}


def _scans(config: CohortRunConfig, cohort: SyntheticCohort, folder: Path) -> dict[str, Any]:
    dataset = folder / "phantoms"
    population = load_config(Population, cohort.population)
    write_phantoms(population, load_config(PhantomParameters, PARAMETERS), cohort.seed, cohort.patients, dataset)
    imaging = config.imaging.model_copy(update={"workers": WORKERS})
    items = _items(dataset, imaging)
    before, plain = _plain_rate(items, imaging, folder / "plain")
    stage, measured = _stage_rate(config, imaging, items, dataset, folder)
    after, _ = _plain_rate(items, imaging, folder / "plain")
    if measured != plain:
        raise RuntimeError("the stage and the plain loop do not measure the same")
    return {
        "ratio": round(2 * stage / (before + after), 3),
        "stage_scans_per_s": round(stage, 1),
        "plain_scans_per_s": [round(before, 1), round(after, 1)],
        "scans": items.num_rows,
        "workers": WORKERS,
        "slices": imaging.slices,
    }


def _items(dataset: Path, imaging: ImagingConfig) -> pa.Table:
    visits = [one for one in read_bids(dataset) if isinstance(one, Visit)]
    patients = [PatientRow(**{name: getattr(visit, name) for name in PatientRow.model_fields}) for visit in visits]
    return work_items(to_table(patients, PATIENTS), _cohort(dataset), imaging)


def _cohort(dataset: Path) -> StudyCohort:
    return StudyCohort(kind="bids", path=str(dataset), name="phantoms", deidentify=DeidentifyConfig(ids="keep"))


def _stage_rate(
    config: CohortRunConfig, imaging: ImagingConfig, items: pa.Table, dataset: Path, folder: Path
) -> tuple[float, list[Measures]]:
    """Scans per second, and the measures of each scan."""
    import ray

    run, clocks = RunFolder(str(folder / "run")), folder / "clocks"
    clocks.mkdir()
    how = Measuring(run.path, str(dataset), FREESURFER, imaging.slices, imaging.slice_size, imaging.faces)
    cpus = config.run.logical_cpus
    measure_items(run, "work/warm-up", items.slice(0, WARM_UP), partial(measure_batch, how=how), imaging, cpus)
    table = measure_items(run, "work/benchmark", items, TimedMeasure(how, str(clocks)), imaging, cpus)
    ray.shutdown()
    times = [json.loads(file.read_text(encoding="utf-8")) for file in clocks.iterdir()]
    seconds = max(ended for _, ended in times) - min(started for started, _ in times)
    rows = [{one["name"]: one["value"] for one in measures} for measures in table.column("measures").to_pylist()]
    return table.num_rows / seconds, rows


def _plain_rate(items: pa.Table, imaging: ImagingConfig, folder: Path) -> tuple[float, list[Measures]]:
    folder.mkdir(exist_ok=True)
    rows = items.to_pylist()
    _measure_plainly(rows[0]["segmentation_path"], rows[0]["image_path"], folder / "0", imaging)  # loads what it needs
    started = time.perf_counter()
    measured = [
        _measure_plainly(row["segmentation_path"], row["image_path"], folder / row["number"], imaging) for row in rows
    ]
    return len(rows) / (time.perf_counter() - started), measured


def _measure_plainly(segmentation: str, image: str, pictures: Path, imaging: ImagingConfig) -> Measures:
    label_map = LabelMap(*_open_plainly(segmentation, np.int32))
    volumes = regional_volumes(label_map, FREESURFER)
    measures = volumes | ratios(volumes) | horn_roundness(label_map)
    if imaging.faces or imaging.slices:
        scan = Volume(*_open_plainly(image, np.float32))
        if imaging.faces:
            facial_tissue_present(scan.array, label_map.array, scan.zooms_mm)
        if imaging.slices:
            shown = slice_images(scan.array, label_map.array, scan.affine, imaging.slice_size)
            for name, picture in {**shown, "montage": compose(shown)}.items():
                save_png(picture, pictures.with_name(f"{pictures.name}-{name}.png"))
    return measures


def _open_plainly(path: str, kind: type) -> Sequence[Any]:
    """Fields of a LabelMap or Volume."""
    loaded: Any = nib.load(path)
    scan = nib.as_closest_canonical(loaded)  # type: ignore[no-untyped-call]
    zooms = tuple(float(zoom) for zoom in scan.header.get_zooms()[:3])
    voxel_mm3 = float(abs(np.linalg.det(scan.affine[:3, :3])))
    return np.asarray(scan.dataobj, dtype=kind), scan.affine, voxel_mm3, zooms
