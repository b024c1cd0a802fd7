"""A FreeSurfer subjects directory: which folders are people, what ran there, and where their label map or tables are.

Volumes are measured later, from the label map or the stats files; covariates come from a table beside the folders.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from clinical_reasoner.cohort.columns import StudyFileError, StudyRow, read_study_table
from clinical_reasoner.cohort.fields import (
    Baselines,
    Earlier,
    build_visit,
    file_inside,
    read_age,
    read_fields,
    wanted_columns,
)
from clinical_reasoner.cohort.visits import Visit, set_aside
from clinical_reasoner.config.columns import FieldColumns, UsualColumns
from clinical_reasoner.records import RejectedRow

LABEL_MAP = "mri/aparc+aseg.mgz"
STATS = "stats/aseg.stats"
SCANS = ("mri/T1.mgz", "mri/orig.mgz")
"""Scans in the space of the label map, the first that is there: intensity-normalised, then conformed only."""
IDS = {
    "folder": ("folder", "fsid", "subject_folder"),
    "patient_id": ("patient_id", "participant_id", "subject_id", "subject", "id"),
    "visit_id": ("visit_id", "session_id", "visit", "session", "timepoint"),
}
"""Columns of a covariates table that say whose and which visit's folder a row belongs to."""
_NO_PEOPLE = re.compile(
    r"fsaverage.*|[lr]h\.EC_average|V1_average|cvs_avg.*|bert(?:[._ -]?(?:copy|backup|\d+))*|logs?|slurm.*|\..*",
    re.IGNORECASE,
)
"""Templates, logs and copies of FreeSurfer's example subject."""
_VERSION = re.compile(r"-v?(\d{1,2}\.\d{1,2})(?:\.\d+)?(?!\d)")
_LARGEST_STAMP_BYTES = 4096
_BIDS_NAME = re.compile(r"(sub-[A-Za-z0-9+]+)_(ses-[A-Za-z0-9+]+)")


def read_freesurfer(
    subjects_dir: Path,
    covariates_file: Path | None = None,
    columns: FieldColumns | None = None,
    cohort: str = "freesurfer",
) -> Iterator[Visit | RejectedRow]:
    """A visit for each subject folder, with its label map, or aseg.stats where there is none, and without measures.

    Without covariates, the folder's name is the person, or person and visit where it reads `sub-X_ses-Y`. With them, a
    folder belongs to the row that names it in `folder`, or whose person, or person and visit, make up its name; folders
    without a row and rows without a folder are set aside. Raises StudyFileError when the directory or table cannot be
    used.
    """
    rows: dict[str, _Covariates] | None = None
    columns = columns or UsualColumns()
    if covariates_file is not None:
        rows = {}
        yield from _covariates(covariates_file, columns, rows)
    used: set[str] = set()
    folders, earlier = list(_people(subjects_dir)), Earlier()
    baselines = _baselines([name for name, _ in folders], rows or {}, columns)
    for number, (name, folder) in enumerate(folders, start=1):
        place = f"{subjects_dir.name}: subject folder {number} by name"
        row = rows.get(name) if rows is not None else None
        if row is not None:
            used.add(row.row.place)
        problem = folder_problem(folder, subjects_dir)
        if problem is None and rows is not None and row is None:
            problem = "no row in the covariates table"
        try:
            if problem is not None:
                raise ValueError(problem)
            yield earlier.check(_visit(name, folder, subjects_dir, place, row, columns, cohort, baselines))
        except ValueError as error:
            yield set_aside(row.row.place if row else place, str(error))
    for place in dict.fromkeys(row.row.place for row in (rows or {}).values()):
        if place not in used:
            yield set_aside(place, "no subject folder")


def folder_problem(folder: Path, subjects_dir: Path) -> str | None:
    """Why a subject folder cannot be used, without its name; None when it can."""
    scripts = folder / "scripts"
    if ".long." in folder.name:
        # The longitudinal stream measures with less noise: its volumes are not those of the cross-sectional one.
        return "a folder of the longitudinal stream; the cross-sectional folder of the visit is used"
    if (folder / "base-tps").exists():
        return "a template of the longitudinal stream, not a visit"
    if (scripts / "recon-all.error").exists():
        return "recon-all ended with an error"
    if scripts.is_dir() and any(scripts.glob("IsRunning*")):
        return "recon-all has not finished"
    found = _segmentations(folder)
    if not found:
        return f"neither {LABEL_MAP} nor {STATS}"
    try:
        for file in found:
            file_inside(subjects_dir, file)
    except ValueError as error:
        return str(error)
    return None


def segmentation_of(folder: Path) -> Path | None:
    """What a run is measured by: its label map, beside which its tables are found, or these alone; None without both.
    A link is not followed."""
    return next(iter(_segmentations(folder)), None)


def segmenter_of(folder: Path) -> str:
    """`freesurfer-6.0` as the run's build stamp tells it, `freesurfer` where it names no release."""
    try:
        with (folder / "scripts" / "build-stamp.txt").open(encoding="utf-8", errors="replace") as stream:
            found = _VERSION.search(stream.read(_LARGEST_STAMP_BYTES))
    except OSError:
        found = None
    return f"freesurfer-{found[1]}" if found else "freesurfer"


@dataclass(frozen=True)
class _Covariates:
    row: StudyRow
    patient_id: str
    visit_id: str | None


def _segmentations(folder: Path) -> list[Path]:
    return [folder / name for name in (LABEL_MAP, STATS) if (folder / name).exists() or (folder / name).is_symlink()]


def _people(subjects_dir: Path) -> Iterator[tuple[str, Path]]:
    if not subjects_dir.is_dir():
        raise StudyFileError(f"cohort: no folder at {str(subjects_dir)!r}")
    for folder in sorted(subjects_dir.iterdir()):
        if folder.is_dir() and not _NO_PEOPLE.fullmatch(folder.name):
            yield folder.name, folder


def _covariates(file: Path, columns: FieldColumns, by_folder: dict[str, _Covariates]) -> Iterator[RejectedRow]:
    """Fills `by_folder`; yields the rows that name nobody, or what an earlier row names."""
    rows = []
    for row in read_study_table(file, {**IDS, **wanted_columns(columns)}, ()):
        if "patient_id" not in row.values and "folder" not in row.values:
            known = ", ".join((*IDS["folder"], *IDS["patient_id"]))
            raise StudyFileError(f"{file}: no column that names the person or the folder; use one of {known}")
        try:
            person = row.text("patient_id") or row.text("folder")
            if person is None:
                raise ValueError("the person and the folder are empty")
            rows.append(_Covariates(row, person, row.text("visit_id")))
        except ValueError as error:
            yield set_aside(row.place, str(error))
    visits = Counter(row.patient_id for row in rows)
    for one in rows:
        names = _folder_names(one, visits[one.patient_id] == 1)
        if any(name in by_folder for name in names):
            yield set_aside(one.row.place, "the same subject folder as an earlier row")
        else:
            by_folder |= dict.fromkeys(names, one)


def _folder_names(one: _Covariates, only_visit: bool) -> tuple[str, ...]:
    """Names that the row's folder may have. The person's name alone is enough only where the person has one row."""
    folder = one.row.text("folder")
    if folder is not None:
        return (folder,)
    visit = one.visit_id
    joined = () if visit is None else tuple(f"{one.patient_id}_{each}" for each in (visit, f"ses-{visit}"))
    return (one.patient_id, *joined) if visit is None or only_visit else joined


def _baselines(names: Sequence[str], rows: Mapping[str, _Covariates], columns: FieldColumns) -> Baselines:
    baselines = Baselines()
    for name in names:
        if name in rows:
            try:
                age, exact = read_age(rows[name].row, columns.age_years)
            except ValueError:
                continue  # said when the row is used
            baselines.add(*_ids(name, rows[name]), age if exact else None)
    return baselines


def _ids(name: str, row: _Covariates | None) -> tuple[str, str]:
    """(person, visit) of a folder."""
    bids = _BIDS_NAME.fullmatch(name)
    patient_id, visit_id = (bids[1], bids[2]) if bids else (name, "bl")
    if row is None:
        return patient_id, visit_id
    named = _BIDS_NAME.fullmatch(row.patient_id)
    return named[1] if named else row.patient_id, row.visit_id or visit_id


def _visit(
    name: str,
    folder: Path,
    subjects_dir: Path,
    place: str,
    row: _Covariates | None,
    columns: FieldColumns,
    cohort: str,
    baselines: Baselines,
) -> Visit:
    patient_id, visit_id = _ids(name, row)
    fields = {} if row is None else read_fields(row.row, columns)
    age = fields.get("age_years")
    scan = next((folder / each for each in SCANS if (folder / each).exists()), None)
    return build_visit(
        patient_id=patient_id,
        visit_id=visit_id,
        cohort=cohort,
        years_from_baseline=baselines.years(patient_id, visit_id, None if fields.get("at_least") else age),
        segmenter=segmenter_of(folder),
        image_path=None if scan is None else file_inside(subjects_dir, scan),
        segmentation_path=str(segmentation_of(folder)),
        source=row.row.place if row else place,
        **fields,
    )
