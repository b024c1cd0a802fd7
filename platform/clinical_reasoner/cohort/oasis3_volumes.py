"""OASIS3_Freesurfer_output.csv: one row per scan, with a column per structure of aseg and aparc (Desikan), mm3."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from clinical_reasoner.cohort.columns import StudyRow
from clinical_reasoner.cohort.visits import measure

ICV_MM3 = (0.9e6, 2.2e6)
"""A head outside is a failed segmentation: none of its volumes is used."""
_LARGEST_MM3 = 2.2e6
QUALITY = {"Passed": "passed", "Passed with edits": "passed", "Failed": "failed", "Quarantined": "failed"}
_ICV = "IntraCranialVol"
_STATUS = "FS QC Status"

_PAIRS = {
    "hippocampus": "Hippocampus",
    "amygdala": "Amygdala",
    "lateral_ventricle": "Lateral-Ventricle",
    "inferior_lateral_ventricle": "Inf-Lat-Vent",
}
_PARCELS = {
    "entorhinal": "entorhinal",
    "parahippocampal": "parahippocampal",
    "fusiform": "fusiform",
    "precuneus": "precuneus",
    "superior_parietal": "superiorparietal",
    # Desikan parcels of each lobe; the cingulate and the insula belong to none.
    "frontal": "superiorfrontal rostralmiddlefrontal caudalmiddlefrontal parsopercularis parsorbitalis "
    "parstriangularis lateralorbitofrontal medialorbitofrontal precentral paracentral frontalpole",
    "temporal": "superiortemporal middletemporal inferiortemporal bankssts fusiform transversetemporal entorhinal "
    "temporalpole parahippocampal",
    "parietal": "superiorparietal inferiorparietal supramarginal postcentral precuneus",
    "occipital": "lateraloccipital lingual cuneus pericalcarine",
}
REGION_COLUMNS: Mapping[str, tuple[str, ...]] = {
    **{name: (f"Left-{part}_volume", f"Right-{part}_volume") for name, part in _PAIRS.items()},
    **{
        name: tuple(f"{side}_{parcel}_volume" for side in ("lh", "rh") for parcel in parcels.split())
        for name, parcels in _PARCELS.items()
    },
    "wm_hypointensities": ("WM-hypointensities_volume",),
    "icv": (_ICV,),
}
"""Region -> the columns that add up to it, mm3."""
SCAN_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "subject": ("Subject", "OASISID"),
    "session": ("MR_session", "FS_FSDATA ID"),
    "version": ("version",),
    _STATUS: (_STATUS, "FS_QC_Status"),
    **{column: (column,) for columns in REGION_COLUMNS.values() for column in columns},
}
SCAN_OPTIONAL = ("version", _STATUS)
"""What releases may lack; all others are in each."""


def scan_fields(row: StudyRow) -> dict[str, Any]:
    """The fields of a visit that its scan fills. A region is left out where a part of it is missing or empty: the sum
    of the rest would be a wrong number. White-matter hypointensities may be 0.

    Raises ValueError, without the value, for a scan that failed its check, has an intracranial volume that is none, or
    holds no region.
    """
    if row.code(_STATUS, QUALITY) == "failed":
        raise ValueError(f"{_STATUS} says that the segmentation failed")
    row.number(_ICV, *ICV_MM3)
    measures = []
    for region, columns in REGION_COLUMNS.items():
        parts = [row.number(column, 0, _LARGEST_MM3) for column in columns]
        known = [part for part in parts if part or (part == 0 and region == "wm_hypointensities")]
        if len(known) == len(parts):
            measures.append(measure(region, sum(known)))
    if not {found.name for found in measures} - {"icv"}:
        raise ValueError("no region has a volume")
    return {"measures": tuple(measures), "segmenter": _segmenter(row)}


def _segmenter(row: StudyRow) -> str:
    """`freesurfer-5.3` of `freesurfer-Linux-centos6_x86_64-stable-pub-v5.3.0-HCP-patch`, else of a session such as
    `OAS30001_Freesurfer53_d0129`; `freesurfer` where neither tells."""
    version = re.search(r"v(\d+\.\d+)", row.text("version") or "")
    if version:
        return f"freesurfer-{version[1]}"
    version = re.search(r"_freesurfer(\d)(\d)_", row.text("session") or "", re.IGNORECASE)
    return f"freesurfer-{version[1]}.{version[2]}" if version else "freesurfer"
