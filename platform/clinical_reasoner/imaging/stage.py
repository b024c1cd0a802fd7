"""Stage `measures`: the scans of visits whose volumes no table tells are measured and shown, many at a time.

The work is read from Parquet, done by plain functions on Ray's workers and written to Parquet, a few scans together: a
killed run continues where it stopped.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from clinical_reasoner.cluster import connect, quiet_console
from clinical_reasoner.cohort.population import Population
from clinical_reasoner.cohort.readers import local_path
from clinical_reasoner.cohort.study import to_be_measured
from clinical_reasoner.config.cohort import CohortConfig, StudyCohort, SyntheticCohort
from clinical_reasoner.config.imaging import ImagingConfig
from clinical_reasoner.config.loading import load_config
from clinical_reasoner.config.pipeline import CohortRunConfig
from clinical_reasoner.errors import UserError
from clinical_reasoner.imaging.labels import FREESURFER, LabelScheme, read_lookup_table
from clinical_reasoner.imaging.measuring import CUBES, ITEMS, MEASURED, SLICES, Measuring, measure_batch, stats_tables
from clinical_reasoner.imaging.phantom_measuring import Bodies, measure_phantoms
from clinical_reasoner.imaging.phantom_volumes import PhantomParameters
from clinical_reasoner.imaging.scans import ScanError
from clinical_reasoner.progress import watched
from clinical_reasoner.records import MEASURES, PATIENTS, REJECTED, PatientRow, RejectedRow, to_table
from clinical_reasoner.runs import Manifest, RunError, RunFolder
from clinical_reasoner.stages import Rows, Stage, file_fingerprint, run_stage, work_folder

MEASURES_STAGE = "measures"
NUMBER = "number"
BLOCKS_PER_WORKER = 4
_IDS = pa.schema([PATIENTS.field(name) for name in ("patient_id", "visit_id")])


def make_measures(config: CohortRunConfig, run: RunFolder) -> Manifest:
    """Write `measures/` and, where they are asked for, pictures in `slices/` and `cubes/`; one row for each visit that
    has files to be measured or shown, phantoms among them, which are drawn first. A visit whose files cannot be used is
    rejected with that reason, and stays a patient.

    Raises UserError when the lookup table cannot be used.
    """
    imaging = config.imaging
    scheme = label_scheme(imaging)
    bodies = phantom_bodies(config.cohort)
    items = _items(run, config.cohort, imaging)
    settings = {
        # Where the same files lie, and how many are measured at a time, changes nothing.
        "imaging": imaging.model_dump(mode="json", exclude={"lookup_table", "folder", "workers", "rows_per_block"}),
        "lookup_table": file_fingerprint(imaging.lookup_table) if imaging.lookup_table else None,
        "files": files_fingerprint(items),
        "phantoms": bodies.parameters.model_dump(mode="json") if bodies else None,
    }
    stage = Stage(MEASURES_STAGE, settings, ["patients"])
    how = Measuring(
        run_path=run.path,
        root=scans_folder(config.cohort, imaging),
        scheme=scheme,
        slices=imaging.slices,
        slice_size=imaging.slice_size,
        faces=imaging.faces,
        cube_side=imaging.cube_side if imaging.cubes else None,
    )

    def make() -> Rows:
        work = work_folder(run, stage)
        if imaging.shows and not run.exists(work):
            for pictures in (SLICES, CUBES):  # of other settings; those of a killed run are of these
                run.clear(pictures)
        measure = partial(measure_phantoms, how=how, bodies=bodies) if bodies else partial(measure_batch, how=how)
        measured = measure_items(run, work, items, measure, imaging, config.run.logical_cpus)
        measures, rejected = parted(measured, run.read_table("patients", _IDS))
        run.write_rejected(MEASURES_STAGE, to_table(rejected, REJECTED))
        run.write_table(MEASURES_STAGE, measures)
        return Rows(items.num_rows, measures.num_rows, len(rejected))

    return run_stage(run, stage, make, overwrite=config.run.overwrite)


def phantom_bodies(cohort: CohortConfig) -> Bodies | None:
    """What the bodies of a synthetic cohort are drawn from; None where it has none. Raises ConfigError."""
    if not isinstance(cohort, SyntheticCohort) or cohort.phantoms is None:
        return None
    parameters = load_config(PhantomParameters, cohort.phantoms)
    return Bodies(load_config(Population, cohort.population), parameters, cohort.seed)


def label_scheme(imaging: ImagingConfig) -> LabelScheme:
    """What the label maps' numbers mean. Raises UserError for a lookup table that cannot be used."""
    if imaging.lookup_table is None:
        return FREESURFER
    try:
        return read_lookup_table(Path(imaging.lookup_table))
    except ScanError as error:
        raise UserError(f"imaging.lookup_table {imaging.lookup_table!r}: {error}") from error


def scans_folder(cohort: CohortConfig, imaging: ImagingConfig) -> str | None:
    """Absolute path of the folder that no scan may lie outside of; None for a cohort without files of its own."""
    if imaging.folder is not None:
        return str(Path(imaging.folder).expanduser().absolute())
    if isinstance(cohort, SyntheticCohort):
        return None
    path = local_path(cohort.path).absolute()
    return str(path if path.is_dir() else path.parent)


def _items(run: RunFolder, cohort: CohortConfig, imaging: ImagingConfig) -> pa.Table:
    """Of the patients table, some rows at a time: most cohorts have no scans, or many more columns than paths."""
    parts, first = [ITEMS.empty_table()], 1
    for patients in run.batches("patients", PATIENTS):
        parts.append(work_items(patients, cohort, imaging, first))
        first += patients.num_rows
    return pa.concat_tables(parts)


def work_items(patients: pa.Table, cohort: CohortConfig, imaging: ImagingConfig, first: int = 1) -> pa.Table:
    """ITEMS of the visits that have a label map or tables and no volumes, and where pictures are asked for, of all that
    have a scan. Paths become absolute: relative ones are those of the study's reader, and in a cohort's own table they
    start at its folder. Those of phantoms stay as they are, below the run folder. `first`: number of the first row."""
    numbers = pa.array([f"{number:06d}" for number in range(first, first + patients.num_rows)], pa.string())
    numbered = patients.append_column(NUMBER, numbers)
    rows = numbered.filter(
        pc.or_(pc.is_valid(numbered.column("segmentation_path")), pc.is_valid(numbered.column("image_path")))
    ).to_pylist()
    absolute = partial(_absolute, _base(cohort))
    items = []
    for row in rows:
        number = row.pop(NUMBER)
        patient = PatientRow.model_validate(row)
        measure = patient.segmentation_path is not None and to_be_measured(patient)
        if measure or (imaging.shows and patient.image_path is not None):
            items.append(
                {
                    NUMBER: number,
                    "image_path": absolute(patient.image_path),
                    "segmentation_path": absolute(patient.segmentation_path),
                    "segmenter": patient.segmenter or imaging.segmenter,
                    "measure": measure,
                }
            )
    return pa.Table.from_pylist(items, schema=ITEMS)


def files_fingerprint(items: pa.Table) -> str:
    """SHA-256 (hex) of which files there are and how long; hashing scans would take as long as measuring them."""
    digest = hashlib.sha256()
    for item in items.to_pylist():
        paths = [Path(item[name]) for name in ("segmentation_path", "image_path") if item[name] is not None]
        if item["segmentation_path"] is not None:
            paths += stats_tables(Path(item["segmentation_path"]))
        digest.update(f"{item[NUMBER]} {item['measure']} {[_size(path) for path in paths]}\n".encode())
    return digest.hexdigest()


def measure_items(
    run: RunFolder,
    work: str,
    items: pa.Table,
    measure: Callable[[pa.Table], pa.Table],
    imaging: ImagingConfig,
    logical_cpus: int,
) -> pa.Table:
    """A row of MEASURED for each of ITEMS, in their order; without any, Ray is not started.

    `measure` makes the rows of some of the items on a worker, and is pickled. Resumes from `work`, a folder below the
    run folder. Raises RunError when a row is missing or double.
    """
    if not items.num_rows:
        return MEASURED.empty_table()
    done = f"{work}/measured"
    if run.count_rows(done) < items.num_rows:
        run.write_table(f"{work}/items", items)
        connect(logical_cpus)
        _run_pipeline(run, work, items.num_rows, measure, imaging)
    return _in_order(run.read_table(done, MEASURED), items, work)


def parted(measured: pa.Table, patients: pa.Table) -> tuple[pa.Table, list[RejectedRow]]:
    """The measures table, and the visits of which nothing could be used."""
    good = measured.filter(pc.is_null(measured.column("reason")))
    bad = measured.filter(pc.is_valid(measured.column("reason"))).select([NUMBER, "reason"]).to_pylist()
    whose = patients.select(["patient_id", "visit_id"]).take(
        pc.subtract(pc.cast(good.column(NUMBER), pa.int64()), 1).combine_chunks()
    )
    columns = {name: (whose if name in whose.column_names else good).column(name) for name in MEASURES.names}
    return pa.table(columns).cast(MEASURES), [
        RejectedRow(source=f"patients row {int(row[NUMBER])}", stage=MEASURES_STAGE, reason=row["reason"])
        for row in bad
    ]


def worker_count(imaging: ImagingConfig) -> int | None:
    """Scans at a time; None where the CPUs of a joined cluster decide. A Ray that is started here is told of more CPUs
    than the machine has."""
    if imaging.workers is not None or os.environ.get("RAY_ADDRESS"):
        return imaging.workers
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def block_rows(items: int, workers: int, most: int) -> int:
    """Rows of a block: at most `most`, and few enough that no worker stands idle for long while others finish."""
    return max(1, min(most, items // (BLOCKS_PER_WORKER * workers)))


def _run_pipeline(
    run: RunFolder, work: str, rows: int, measure: Callable[[pa.Table], pa.Table], imaging: ImagingConfig
) -> None:
    import ray
    from ray.data.checkpoint import CheckpointConfig

    workers = worker_count(imaging)
    cpus = int(ray.cluster_resources().get("CPU", 1))  # type: ignore[no-untyped-call]
    rows_per_block = block_rows(rows, min(workers or cpus, cpus), imaging.rows_per_block)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False  # of operators and blocks: scans are counted here instead
    context.print_on_execution_start = False
    context.checkpoint_config = CheckpointConfig(id_column=NUMBER, checkpoint_path=run.child(work, "checkpoint"))
    try:
        items = ray.data.read_parquet(run.child(work, "items"))
        # Left alone, the few bytes of work would become one block for one worker.
        measured = items.repartition(target_num_rows_per_block=rows_per_block).map_batches(
            measure,
            batch_size=None,
            batch_format="pyarrow",
            num_cpus=1,
            compute=ray.data.TaskPoolStrategy(size=workers),
        )
        bar = watched("scans", rows, lambda: (run.count_rows(f"{work}/measured"), ""))
        with quiet_console(), bar:
            measured.write_parquet(run.child(work, "measured"))
    finally:
        context.checkpoint_config = None


def _in_order(measured: pa.Table, items: pa.Table, work: str) -> pa.Table:
    place = {number: index for index, number in enumerate(measured.column(NUMBER).to_pylist())}
    wanted: Sequence[str] = items.column(NUMBER).to_pylist()
    if len(place) != measured.num_rows or place.keys() != set(wanted):
        raise RunError(
            f"{work} in the run folder: {measured.num_rows - len(place)} rows double and "
            f"{len(set(wanted) - place.keys())} missing; remove that folder and start again"
        )
    return measured.take([place[number] for number in wanted])


def _base(cohort: CohortConfig) -> Path | None:
    """Folder at which relative paths of scans start; None for phantoms."""
    if isinstance(cohort, SyntheticCohort):
        return None
    return Path() if isinstance(cohort, StudyCohort) else local_path(cohort.path).parent


def _absolute(base: Path | None, path: str | None) -> str | None:
    """For workers with another working folder."""
    return path if path is None or base is None else str((base / Path(path).expanduser()).absolute())


def _size(path: Path) -> Any:
    try:
        return path.stat().st_size
    except (OSError, ValueError):
        return None
