"""What is measured of one visit: regional volumes and shapes, what there is to warn of, and pictures of its scan."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from clinical_reasoner.cohort.deidentify import facial_tissue_present
from clinical_reasoner.cohort.freesurfer import LABEL_MAP, STATS
from clinical_reasoner.cohort.visits import SHAPES
from clinical_reasoner.imaging.cubes import head_cube, nifti_bytes
from clinical_reasoner.imaging.heads import SliceError
from clinical_reasoner.imaging.horns import horn_roundness
from clinical_reasoner.imaging.labels import FREESURFER, LabelScheme
from clinical_reasoner.imaging.scans import HIGHEST_LABEL, LabelMap, ScanError, Volume, open_label_map, open_volume
from clinical_reasoner.imaging.slices import compose, save_png, slice_images
from clinical_reasoner.imaging.stats_files import read_stats_volumes
from clinical_reasoner.imaging.views import views_picture
from clinical_reasoner.imaging.volumes import missing_regions, ratios, regional_volumes
from clinical_reasoner.records import Measure, MeasuresRow, arrow_schema
from clinical_reasoner.runs import RunFolder

SLICES, CUBES = "slices", "cubes"
"""Folders of the pictures and of the 3-D output below the run folder."""
ITEMS = pa.schema(
    [
        ("number", pa.string()),
        ("image_path", pa.string()),
        ("segmentation_path", pa.string()),
        ("segmenter", pa.string()),
        ("measure", pa.bool_()),
    ]
)
"""What is to be done for each visit: its row in the patients table as six digits or more, absolute paths of its scan
and label map, the segmenter where it is known, and whether it is to be measured or only shown."""
MEASURED = pa.schema(
    [
        ITEMS.field("number"),
        *(field for field in arrow_schema(MeasuresRow) if field.name not in ("patient_id", "visit_id")),
        ("reason", pa.string()),
    ]
)
"""What came of it; `reason` where nothing did. It names no one."""
FACIAL_TISSUE = "facial tissue present: the scan is not defaced"
OTHER_GRID = "label map and scan have different grids: slices chosen by position"
UNKNOWN_SEGMENTER = "segmenter not known: no w-scores; set imaging.segmenter"
_SEGMENTATIONS = (Path(LABEL_MAP).name, "aseg.mgz")
"""Label maps whose volumes FreeSurfer's tables have. Others in the same folder are of other atlases."""
_STATS = (Path(STATS).name, "lh.aparc.stats", "rh.aparc.stats")
_WITH_TABLES = ("freesurfer", "fastsurfer", "synthseg")
COUNTED = "+voxels"
"""Added to a segmenter whose tables correct for partial volume, where the voxels of its label map were counted."""
STATS_ENDING = ".stats"
SAME_PLACE_MM = 0.1
"""Two files of one grid may round its place differently."""


@dataclass(frozen=True)
class Measuring:
    """How visits are measured; the same for all of a run."""

    run_path: str
    """Run folder, for the pictures."""
    root: str | None
    """Folder that no file may lie outside of."""
    scheme: LabelScheme
    slices: bool
    slice_size: int
    """Side of a slice's picture, pixels."""
    faces: bool
    """Whether scans are opened to look for facial tissue."""
    cube_side: int | None = None
    """Voxels on a side of the 3-D output; None makes none."""


@dataclass(frozen=True)
class Measured:
    """What the files of a visit tell."""

    measures: tuple[Measure, ...] = ()
    segmenter: str | None = None
    warnings: tuple[str, ...] = ()
    slice_paths: tuple[str, ...] = ()
    picture_path: str | None = None
    cube_path: str | None = None


def measure_batch(items: pa.Table, how: Measuring) -> pa.Table:
    """A row of MEASURED for each of ITEMS."""
    return pa.Table.from_pylist([measure_item(item, how) for item in items.to_pylist()], schema=MEASURED)


def measure_item(item: Mapping[str, Any], how: Measuring) -> dict[str, Any]:
    """The row of one visit. Never raises: what cannot be used has a reason, without the file's name or any value."""
    reason = None
    found = Measured()
    try:
        found = _measure(item, how)
    except (ScanError, SliceError) as error:
        reason = str(error)
    except Exception as error:  # one broken file must not end the run, and a message may hold its path
        reason = f"failed with {type(error).__name__}"
    return measured_row(item, found, reason)


def measured_row(item: Mapping[str, Any], found: Measured, reason: str | None) -> dict[str, Any]:
    """A row of MEASURED."""
    return {
        "number": item["number"],
        "measures": [measure.model_dump() for measure in found.measures],
        "segmenter": found.segmenter,
        "warnings": list(found.warnings),
        "slice_paths": list(found.slice_paths),
        "picture_path": found.picture_path,
        "cube_path": found.cube_path,
        "reason": reason,
    }


def label_map_measures(label_map: LabelMap, scheme: LabelScheme) -> tuple[Measure, ...]:
    """What is measured in a label map alone. Raises ScanError as `regional_volumes` does."""
    return _as_measures(regional_volumes(label_map, scheme), horn_roundness(label_map, scheme))


def stats_tables(segmentation: Path) -> tuple[Path, ...]:
    """FreeSurfer's tables of a label map in its `mri/` folder, or beside one of them; none without aseg.stats."""
    if segmentation.suffix == STATS_ENDING:
        folder = segmentation.parent
    elif segmentation.parent.name == Path(LABEL_MAP).parent.name and segmentation.name in _SEGMENTATIONS:
        folder = segmentation.parents[1] / Path(STATS).parent
    else:
        return ()
    found = tuple(folder / name for name in _STATS if (folder / name).exists() or (folder / name).is_symlink())
    return found if found and found[0].name == _STATS[0] else ()


def counted_segmenter(segmenter: str | None) -> str | None:
    """The segmenter of volumes that were counted in its label map: FreeSurfer's tables differ from them by up to a
    tenth, so that the two never share a norm."""
    if segmenter is None or not segmenter.startswith(_WITH_TABLES) or segmenter.endswith(COUNTED):
        return segmenter
    return segmenter + COUNTED


def freesurfer_labels(array: np.ndarray, scheme: LabelScheme) -> np.ndarray:
    """A label map of the scheme in FreeSurfer's numbers; what FreeSurfer has no number for becomes 0."""
    if scheme is FREESURFER or scheme == FREESURFER:
        return array
    numbers = np.zeros(HIGHEST_LABEL + 1, np.int32)
    for structure, labels in scheme.ids.items():
        numbers[[label for label in labels if label <= HIGHEST_LABEL]] = FREESURFER.ids[structure][0]
    translated: np.ndarray = numbers[array]
    return translated


def same_grid(scan: Volume, label_map: LabelMap) -> bool:
    """Whether both have the same voxels at the same places."""
    if scan.array.shape != label_map.array.shape:
        return False
    apart_mm = np.abs(scan.affine - label_map.affine) @ np.array([*scan.array.shape, 1.0])
    return bool(apart_mm.max() < SAME_PLACE_MM)


def _measure(item: Mapping[str, Any], how: Measuring) -> Measured:
    label_map, problem = _label_map(item["segmentation_path"], how)
    found = Measured()
    if item["measure"]:
        found = _regions(Path(item["segmentation_path"]), label_map, problem, item["segmenter"], how)
    elif problem:
        found = Measured(warnings=(problem,))
    if item["image_path"] is None or not (how.slices or how.faces or how.cube_side):
        return found
    try:
        with _naming("scan"):
            scan = open_volume(Path(item["image_path"]), _root(how))
        return _look_at(scan, label_map, item["number"], found, how)
    except (ScanError, SliceError) as error:
        if not item["measure"]:
            raise
        return replace(found, warnings=(*found.warnings, str(error)))


def _label_map(path: str | None, how: Measuring) -> tuple[LabelMap | None, str | None]:
    """The label map, or why it cannot be used; neither where there is none."""
    if path is None or Path(path).suffix == STATS_ENDING:
        return None, None
    try:
        with _naming("segmentation"):
            return open_label_map(Path(path), _root(how)), None
    except ScanError as error:
        return None, str(error)


def _regions(
    path: Path, label_map: LabelMap | None, problem: str | None, segmenter: str | None, how: Measuring
) -> Measured:
    """Volumes of the tables where there are any, else of the label map; their ratios; shapes of the label map."""
    tables = stats_tables(path)
    told = [] if problem is None else [problem]
    if tables:
        with _naming("stats"):
            stats = read_stats_volumes(tables, _root(how))
        volumes, segmenter = stats.volumes, stats.segmenter or segmenter
    elif label_map is None:
        raise ScanError(problem or "segmentation: no such file")
    else:
        with _naming("segmentation"):
            volumes, segmenter = regional_volumes(label_map, how.scheme), counted_segmenter(segmenter)
    if not volumes.keys() - {"icv"}:
        raise ScanError("segmentation: holds none of the regions")
    told += missing_regions(volumes)
    shapes = {} if label_map is None else horn_roundness(label_map, how.scheme)
    told += [f"{name}: a horn is missing, too small or not opened" for name in SHAPES if name not in shapes]
    if segmenter is None:
        told.append(UNKNOWN_SEGMENTER)
    return Measured(_as_measures(volumes, shapes), segmenter, tuple(told))


def _as_measures(volumes: Mapping[str, float], shapes: Mapping[str, float]) -> tuple[Measure, ...]:
    """Volumes (mm3), their ratios and shapes."""
    measures = [Measure(name=name, value=value, unit="mm3") for name, value in volumes.items()]
    measures += [Measure(name=name, value=value, unit="1") for name, value in {**ratios(volumes), **shapes}.items()]
    return tuple(measures)


def _look_at(scan: Volume, label_map: LabelMap | None, number: str, found: Measured, how: Measuring) -> Measured:
    """With a warning of facial tissue, pictures and a cube."""
    same = label_map is not None and same_grid(scan, label_map)
    labels = label_map.array if label_map is not None and same else None
    warnings = list(found.warnings)
    if how.faces and facial_tissue_present(scan.array, labels, scan.zooms_mm):
        warnings.append(FACIAL_TISSUE)
    if how.cube_side:
        cube_path = f"{CUBES}/{number}.nii.gz"
        run_folder(how.run_path).write_bytes(cube_path, nifti_bytes(*head_cube(scan.array, scan.affine, how.cube_side)))
        found = replace(found, cube_path=cube_path)
    if not how.slices:
        return replace(found, warnings=tuple(warnings))
    if label_map is not None and not same:
        warnings.append(OTHER_GRID)
    shown = None if labels is None else freesurfer_labels(labels, how.scheme)
    pictures = slice_images(scan.array, shown, scan.affine, how.slice_size)
    files = {f"{SLICES}/{number}.png": compose(pictures)}
    files |= {f"{SLICES}/{number}-{name}.png": picture for name, picture in pictures.items()}
    picture_path = f"{SLICES}/{number}-views.png"
    for name, picture in (files | {picture_path: views_picture(scan.array, shown, scan.affine)}).items():
        content = io.BytesIO()
        save_png(picture, content)
        run_folder(how.run_path).write_bytes(name, content.getvalue())
    return replace(found, warnings=tuple(warnings), slice_paths=tuple(files), picture_path=picture_path)


@contextmanager
def _naming(what: str) -> Iterator[None]:
    """What cannot be used says which file of the visit it is."""
    try:
        yield
    except ScanError as error:
        raise ScanError(f"{what}: {str(error).removeprefix(f'{what}: ')}") from None


def _root(how: Measuring) -> Path | None:
    return None if how.root is None else Path(how.root)


@lru_cache(maxsize=1)
def run_folder(path: str) -> RunFolder:
    """The run folder, opened once in each worker."""
    return RunFolder(path)
