"""The files of one visit in a BIDS dataset: its T1-weighted scan, its segmentation, and what their sidecars tell."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clinical_reasoner.cohort.fields import file_inside
from clinical_reasoner.cohort.freesurfer import LABEL_MAP, folder_problem, segmentation_of, segmenter_of

SESSION = re.compile(r"ses-[A-Za-z0-9+]+")
_OTHER_SPACE = re.compile(r"_space-(?!(?:T1w|orig|individual)_)", re.IGNORECASE)
"""Of a file that is not in the space of the scan: its volumes are those of a template."""
_LARGEST_JSON_BYTES = 2**20


@dataclass(frozen=True)
class VisitFiles:
    """What one visit has; None where there is nothing."""

    image_path: str | None = None
    segmentation_path: str | None = None
    segmenter: str | None = None
    field_strength_t: float | None = None
    warnings: tuple[str, ...] = ()


def find_pipelines(folder: Path) -> tuple[Path, ...]:
    """Folders below derivatives/, FreeSurfer's first."""
    found = [path for path in (folder / "derivatives").glob("*") if path.is_dir()]
    return tuple(sorted(found, key=lambda path: (not path.name.startswith("freesurfer"), path.name)))


def find_sessions(folder: Path, pipelines: tuple[Path, ...], person: str) -> set[str]:
    """Sessions of a person that have a folder of scans or of derivatives."""
    found = {path.name for path in (folder / person).glob("ses-*") if path.is_dir()}
    for pipeline in pipelines:
        found |= {path.name for path in (pipeline / person).glob("ses-*") if path.is_dir()}
        found |= {path.name.removeprefix(f"{person}_") for path in pipeline.glob(f"{person}_ses-*") if path.is_dir()}
    return {name for name in found if SESSION.fullmatch(name)}


def find_files(folder: Path, pipelines: tuple[Path, ...], person: str, session: str | None, only: bool) -> VisitFiles:
    """The files of a visit; `only` says that the person has no other. Raises ValueError, without a path, for a file
    that is not there, or is a link that leaves the folder."""
    warnings: list[str] = []
    stem = f"{person}_{session}" if session else person
    scan = find_scan(folder / person / (session or ""), stem, warnings)
    # FreeSurfer runs without a session, over all sessions together, measure none of several visits.
    runs = [stem, *([person] if session and only else [])]
    found: tuple[Path, str] | None = None
    for pipeline in pipelines:
        label_map = _label_map(pipeline / person / (session or "") / "anat", stem)
        found = _freesurfer(folder, pipeline, runs, warnings)
        if found is None and label_map is not None:
            found = label_map, _software(folder, pipeline)
        if found is not None:
            break
    return VisitFiles(
        image_path=None if scan is None else file_inside(folder, scan),
        segmentation_path=None if found is None else file_inside(folder, found[0]),
        segmenter=None if found is None else found[1],
        field_strength_t=None if scan is None else _field_strength(folder, scan),
        warnings=tuple(warnings),
    )


def find_scan(folder: Path, stem: str, warnings: list[str]) -> Path | None:
    """The T1-weighted scan with the fewest entities in its name, then the first by name; parts of complex data are no
    scans."""
    name = re.compile(rf"{re.escape(stem)}(?:_(?!part-)[A-Za-z0-9]+-[A-Za-z0-9+]+)*_T1w\.nii(\.gz)?")
    found = [path for path in (folder / "anat").glob("*_T1w.nii*") if name.fullmatch(path.name)]
    if len(found) > 1:
        warnings.append(f"one of {len(found)} T1-weighted scans of the visit")
    return min(found, key=lambda path: (path.name.count("_"), path.name), default=None)


def _freesurfer(folder: Path, pipeline: Path, runs: list[str], warnings: list[str]) -> tuple[Path, str] | None:
    """Label map or aseg.stats, and the segmenter, from the first run that is there and finished."""
    for run in [pipeline / name for name in runs]:
        path = segmentation_of(run)
        if path is not None:
            file_inside(folder, path)
        elif not (run / LABEL_MAP).parent.is_dir():
            continue
        problem = folder_problem(run, folder)
        if path is not None and problem is None:
            return path, segmenter_of(run)
        warnings.append(f"FreeSurfer: {problem}")
    return None


def _label_map(folder: Path, stem: str) -> Path | None:
    """A label map in the space of the scan: one with parcels before one of structures before any other."""
    name = re.compile(rf"{re.escape(stem)}(?:_[A-Za-z0-9]+-[A-Za-z0-9+]+)*_dseg\.nii(\.gz)?")
    found = [
        path for path in folder.glob("*_dseg.nii*") if name.fullmatch(path.name) and not _OTHER_SPACE.search(path.name)
    ]
    return min(
        found,
        key=lambda path: (0 if "aparc" in path.name else 1 if "aseg" in path.name else 2, path.name),
        default=None,
    )


def _field_strength(folder: Path, image: Path) -> float | None:
    """Tesla, from the scan's sidecar, else from that of the dataset."""
    for file in (image.with_name(image.name.split(".")[0] + ".json"), folder / "T1w.json"):
        value = _json(folder, file).get("MagneticFieldStrength")
        if isinstance(value, int | float) and 0 < value <= 12:
            return float(value)
    return None


def _software(folder: Path, pipeline: Path) -> str:
    """`fastsurfer-2.1` as dataset_description.json tells it, else the name of the pipeline's folder."""
    description = _json(folder, pipeline / "dataset_description.json")
    made_by = description.get("GeneratedBy") or [description.get("PipelineDescription")]
    first = made_by[0] if isinstance(made_by, list) and isinstance(made_by[0], dict) else {}
    parts = [str(first.get("Name") or pipeline.name), *([str(first["Version"])] if first.get("Version") else [])]
    return re.sub(r"[^a-z0-9.+-]+", "-", "-".join(parts).lower())[:60]


def _json(folder: Path, file: Path) -> dict[str, Any]:
    """A sidecar's content; empty where there is none that can be read."""
    try:
        if not file.exists() or file.stat().st_size > _LARGEST_JSON_BYTES:
            return {}
        content = json.loads(Path(file_inside(folder, file)).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
