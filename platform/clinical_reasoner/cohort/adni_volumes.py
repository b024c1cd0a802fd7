"""ADNI's FreeSurfer tables (UCSFFSX: cross-sectional, UCSFFSL: longitudinal): one scan per visit, as regional volumes.

Columns are `ST<number>SV` (aseg volume), `ST<number>CV` (cortical volume), mm3; a right structure's number is the left
one's plus 59, except for what has no sides. Source: ADNI's data dictionary and `adnimerger` of the ADNIMERGE R package.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clinical_reasoner.cohort.columns import StudyRow, read_study_table
from clinical_reasoner.cohort.joins import Entry, Key, best_entries, find_tables
from clinical_reasoner.cohort.study_fields import read_date, study_visit, subject_number
from clinical_reasoner.cohort.visits import REGIONS, measure
from clinical_reasoner.records import RejectedRow

RIGHT = 59
"""Number of a right structure minus that of its left one."""
_ASEG = {"hippocampus": 29, "amygdala": 12, "lateral_ventricle": 37, "inferior_lateral_ventricle": 30}
_CORTEX = {
    "entorhinal": (24,),
    "parahippocampal": (44,),
    "fusiform": (26,),
    "precuneus": (52,),
    "superior_parietal": (57,),
    # Desikan parcels of each lobe, as FreeSurfer's `mri_annotation2label --lobes` has them; cingulate and insula apart.
    "frontal": (56, 55, 15, 45, 46, 47, 36, 39, 51, 43, 25),
    "temporal": (58, 40, 32, 13, 26, 62, 24, 60, 44),
    "parietal": (57, 31, 59, 49, 52),
    "occipital": (35, 38, 23, 48),
}
COLUMNS_OF: dict[str, tuple[str, ...]] = {
    **{region: (f"ST{left}SV", f"ST{left + RIGHT}SV") for region, left in _ASEG.items()},
    **{
        region: tuple(f"ST{number}CV" for left in lefts for number in (left, left + RIGHT))
        for region, lefts in _CORTEX.items()
    },
    "wm_hypointensities": ("ST128SV",),
    "icv": ("ST10CV",),
}
"""The columns that sum up to each region; without sides are the white-matter hypointensities and ICV."""
VOLUMES = tuple(dict.fromkeys(column for columns in COLUMNS_OF.values() for column in columns))
LARGEST_MM3 = 5e6
ICV_MM3 = (0.9e6, 2.2e6)
"""A head outside is a failed segmentation: none of its volumes is used."""

QC = {"Pass": "pass", "Partial": "partial", "Hippocampus Only": "hippocampus only", "Fail": "fail"}
_QC_RANK = {"pass": 0, "partial": 1, None: 2, "hippocampus only": 3, "fail": 4}
HIPPOCAMPAL_QC = ("LHIPQC", "RHIPQC", "HIPPOQC")
REGION_QC = {
    "TEMPQC": ("entorhinal", "parahippocampal", "fusiform", "amygdala", "temporal"),
    "FRONTQC": ("frontal",),
    "PARQC": ("parietal", "precuneus", "superior_parietal"),
    "OCCQC": ("occipital",),
    "VENTQC": ("lateral_ventricle", "inferior_lateral_ventricle"),
    "CWMQC": ("wm_hypointensities",),
    "INSULAQC": (),
    "BGQC": (),
}
"""Rating -> the regions that are missing where it is `Fail`: entorhinal, fusiform and ventricles as in `adnimerger`,
the others by the same rule."""
IMAGE_TYPES = ("accelerated t1", "non-accelerated t1")
"""IMAGETYPE in the order in which `adnimerger` prefers them."""

_NAMES = (
    "RID",
    "PTID",
    "VISCODE",
    "VISCODE2",
    "RUNDATE",
    "OVERALLQC",
    "IMAGETYPE",
    *HIPPOCAMPAL_QC,
    *REGION_QC,
    *VOLUMES,
)
_COLUMNS = {
    **{name: (name,) for name in _NAMES},
    "FLDSTRENG": ("FLDSTRENG", "FIELD_STRENGTH"),
    "FSVERSION": ("FSVERSION", "FSVER"),
}
_REQUIRED = ("RID", "VISCODE", "OVERALLQC", *VOLUMES)
_TABLE = r"ucsffs[xl]\d*[a-z]*\d?(?:_adni1_3t)?"


@dataclass(frozen=True)
class Scan:
    """What one segmented scan tells."""

    volumes: dict[str, float]
    """Region -> mm3, both hemispheres; a region that is missing or failed has none."""
    segmenter: str | None
    field_strength_t: float | None
    warnings: tuple[str, ...] = ()


def read_volumes(folder: Path) -> tuple[dict[Key, Entry[Scan]], list[RejectedRow]]:
    """(RID, visit) -> the scan of that visit, and the rows that are not used.

    A scan whose OVERALLQC is Fail is not used. Of several: cross-sectional before longitudinal, whose template is made
    of later scans too; the newest FreeSurfer; the screening scan, which counts as baseline, before one at baseline;
    OVERALLQC Pass; most regional ratings passed; the newest RUNDATE. Raises StudyFileError for a table that cannot be
    used.
    """
    tables = {file: table for table, file in find_tables(folder, _TABLE).items()}
    rows = (row for file in tables for row in read_study_table(file, _COLUMNS, _REQUIRED))
    by_name = {file.name: table for file, table in tables.items()}
    return best_entries(rows, lambda row: _entry(row, by_name[row.place.rpartition(":")[0]]))


def segmenter_of(text: str | None, table: str = "") -> str | None:
    """`freesurfer-5.1` from what FSVERSION says or else from the table's name, `-longitudinal` behind it for that
    pipeline; None where neither tells a version. UCSFFSX and UCSFFSL without a number are 4.3 and 4.4."""
    longitudinal = table.startswith("UCSFFSL") or "longitudinal" in (text or "").lower()
    said = re.search(r"(\d+\.\d+)", text or "")
    named = re.match(r"UCSFFS[XL](\d?)(\d?)", table)
    if said:
        version = said[1]
    elif named and named[1]:
        version = f"{named[1]}.{named[2] or 0}"
    elif named:
        version = "4.4" if longitudinal else "4.3"
    else:
        return None
    return f"freesurfer-{version}" + "-longitudinal" * longitudinal


def field_strength(row: StudyRow) -> float | None:
    """FLDSTRENG in tesla, from `1.5`, `3T` or `3 Tesla MRI`. Raises ValueError for another text."""
    text = row.text("FLDSTRENG")
    if text is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?(?:t|tesla(?: mri)?)?", text.lower())
    if not match or not 0 < float(match[1]) <= 12:
        raise ValueError("FLDSTRENG is no field strength in tesla")
    return float(match[1])


def scan_fields(scan: Scan | None) -> dict[str, Any]:
    """The fields of a visit that its scan fills."""
    if scan is None or not scan.volumes:
        return {}
    return {
        "measures": tuple(measure(region, scan.volumes[region]) for region in REGIONS if region in scan.volumes),
        "segmenter": scan.segmenter,
        "field_strength_t": scan.field_strength_t,
        "warnings": scan.warnings,
    }


def _entry(row: StudyRow, table: str) -> tuple[Key, Entry[Scan]]:
    visit_id, screening = study_visit(row)
    overall = row.code("OVERALLQC", QC)
    ratings = {name: row.code(name, QC) for name in (*HIPPOCAMPAL_QC, *REGION_QC)}
    passed = sum(rating == "pass" for rating in ratings.values())
    segmenter = segmenter_of(row.text("FSVERSION"), table) or ""
    version = float(re.sub(r"[^\d.]", "", segmenter.partition("-")[2]) or 0)
    run = read_date(row, "RUNDATE")
    image_type = (row.text("IMAGETYPE") or "").lower()
    rank = (
        segmenter.endswith("longitudinal"),
        -version,
        not screening,
        _QC_RANK[overall],
        -passed,
        image_type not in IMAGE_TYPES,
        image_type == IMAGE_TYPES[1],
        -run.toordinal() if run else 0,
    )
    if overall == "fail":
        raise ValueError("OVERALLQC is Fail")
    icv = row.number("ST10CV", 0, LARGEST_MM3)
    if icv is not None and not ICV_MM3[0] <= icv <= ICV_MM3[1]:
        raise ValueError(f"ST10CV (ICV) is outside {ICV_MM3[0]:g} to {ICV_MM3[1]:g} mm3")
    failed = _failed(overall, ratings)
    sums = {region: _sum(row, region) for region in COLUMNS_OF if region not in failed}
    volumes = {region: total for region, total in sums.items() if total is not None}
    if not volumes.keys() - {"icv"}:
        raise ValueError("no region has a volume that passed")
    scan = Scan(volumes, segmenter or None, field_strength(row), tuple(_warnings(overall, segmenter)))
    return (subject_number(row), visit_id), Entry(row.place, scan, rank)


def _failed(overall: str | None, ratings: dict[str, str | None]) -> set[str]:
    """Regions that are not used."""
    if overall == "hippocampus only":
        return set(REGIONS) - {"hippocampus", "icv"}
    failed = {region for name, regions in REGION_QC.items() if ratings[name] == "fail" for region in regions}
    # Where the hippocampus has no rating of its own, that of the temporal lobe stands for it.
    own = [ratings[name] for name in HIPPOCAMPAL_QC if ratings[name]] or [ratings["TEMPQC"]]
    return failed | ({"hippocampus"} if "fail" in own else set())


def _sum(row: StudyRow, region: str) -> float | None:
    """Volume of a region, mm3; None where a part is missing, never the sum of the rest. A structure of 0 mm3 was not
    found and is missing too; white matter without hypointensities is none the less."""
    parts = [row.number(column, 0, LARGEST_MM3) for column in COLUMNS_OF[region]]
    known = [part for part in parts if part or (part is not None and region == "wm_hypointensities")]
    return sum(known) if len(known) == len(parts) else None


def _warnings(overall: str | None, segmenter: str) -> Iterator[str]:
    if overall is None:
        yield "segmentation not rated for quality"
    elif overall != "pass":
        yield "segmentation failed in part"
    if segmenter.endswith("longitudinal"):
        yield "volumes from a longitudinal template, made of later scans too"
