"""Stage `baselines/cnn_3d`: the 3-D CNN is trained on the cubes of the training split and answers about every cube."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from clinical_reasoner.config.pipeline import PipelineConfig
from clinical_reasoner.distillation.volumes import Cubes, TrainedCnn, cnn_probabilities, train_cnn
from clinical_reasoner.errors import UserError
from clinical_reasoner.evaluation.baselines import CNN_STAGE, KEYS, TRAINED_ON, prediction
from clinical_reasoner.imaging.cubes import cube_voxels
from clinical_reasoner.imaging.scans import ScanError
from clinical_reasoner.records import FINDINGS, PREDICTIONS, REJECTED, RejectedRow, to_table
from clinical_reasoner.runs import Manifest, RunError, RunFolder
from clinical_reasoner.stages import Rows, Stage, run_stage
from clinical_reasoner.task import load_task

_VISITS = pa.schema([FINDINGS.field(name) for name in ("patient_id", "visit_id", "split", "label", "cube_path")])
_Visit = Mapping[str, Any]


def make_cnn(config: PipelineConfig, run: RunFolder) -> Manifest | None:
    """Write `baselines/cnn_3d/`, a row of PREDICTIONS for each visit with a cube, of every split; None where this
    baseline is not configured. A visit without a cube that can be read is rejected with that reason.

    Raises UserError where the cubes do not let it train, choose or answer.
    """
    settings = config.evaluation.cnn_3d
    if "cnn_3d" not in config.evaluation.baselines:
        return None
    stage = Stage(CNN_STAGE, {"cnn_3d": settings.model_dump(mode="json")}, ["findings"])

    def make() -> Rows:
        task = load_task(config.task.file)
        visits = run.read_table("findings", _VISITS).to_pylist()
        with tempfile.TemporaryDirectory() as scratch:
            kept, voxels, rejected = _read_cubes(run, visits, config.imaging.cube_side, Path(scratch, "cubes"))
            run.write_rejected(CNN_STAGE, to_table(rejected, REJECTED))
            parts = _parts(kept)
            cubes = Cubes(voxels, np.array([task.label_names.index(visit["label"]) for visit in kept], dtype=np.int64))
            trained = train_cnn(cubes, parts["train"], parts["validation"], len(task.labels), settings)
            everyone = np.arange(len(kept), dtype=np.int64)
            found = cnn_probabilities(trained.network, voxels, everyone, settings.batch_size)
        rows = [prediction(visit, KEYS["cnn_3d"], list(one), task) for visit, one in zip(kept, found, strict=True)]
        run.write_table(CNN_STAGE, to_table(rows, PREDICTIONS))
        return Rows(len(visits), len(rows), len(rejected), _details(trained, len(parts["train"])))

    return run_stage(run, stage, make, overwrite=config.run.overwrite)


def _read_cubes(
    run: RunFolder, visits: Sequence[_Visit], side: int, file: Path
) -> tuple[list[_Visit], np.ndarray, list[RejectedRow]]:
    """Visits that have a cube, their cubes (visits, side, side, side) as an array of which `file` holds what memory
    does not, and the other visits with the reason."""
    with_path = sum(visit["cube_path"] is not None for visit in visits)
    voxels = np.memmap(file, np.uint8, "w+", shape=(max(1, with_path), side, side, side))
    kept: list[_Visit] = []
    rejected = []
    for number, visit in enumerate(visits, start=1):
        cube = _cube(run, visit["cube_path"], side)
        if isinstance(cube, str):
            rejected.append(RejectedRow(source=f"findings row {number}", stage=CNN_STAGE, reason=cube))
        else:
            voxels[len(kept)] = cube
            kept.append(visit)
    return kept, voxels[: len(kept)], rejected


def _cube(run: RunFolder, path: str | None, side: int) -> np.ndarray | str:
    """(side, side, side) grey values, or why there are none."""
    if path is None:
        return "no cube: the visit has no scan, or it could not be used"
    try:
        cube = cube_voxels(run.read_bytes(path))
    except ScanError as error:
        return str(error)
    except RunError:
        return "cube: no such file"
    return cube if len(cube) == side else f"cube: {len(cube)} voxels on a side, imaging.cube_side={side}"


def _parts(visits: Sequence[_Visit]) -> dict[str, np.ndarray]:
    """(visits,) indices of each split. Raises UserError where one of them cannot do its part."""
    parts = {
        split: np.array([place for place, visit in enumerate(visits) if visit["split"] == split], dtype=np.int64)
        for split in ("train", "validation", "test")
    }
    if len({visits[place]["label"] for place in parts["train"]}) < 2:
        raise UserError("evaluation.baselines: cnn_3d finds cubes of fewer than two diagnoses in the training split")
    wanted = {"validation": "its epoch is chosen there (cohort.splits.validation)", "test": "it is compared there"}
    for split, why in wanted.items():
        if not len(parts[split]):
            raise UserError(f"evaluation.baselines: cnn_3d finds no cube in the {split} split; {why}")
    return parts


def _details(trained: TrainedCnn, train: int) -> dict[str, Any]:
    return {
        TRAINED_ON: train,
        "epoch": trained.epoch,
        "macro_f1_validation": list(trained.macro_f1),
        "device": trained.device,
        "parameters": trained.parameters,
    }
