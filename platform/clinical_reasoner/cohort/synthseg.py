"""The volumes table of SynthSeg (`--vol`), with and without `--parc`.

One row per scan: `subject`, `total intracranial`, then a column per structure, mm3. A table of a single scan leaves the
name of its first column empty; version 1 has no `total intracranial`. The table tells neither its version nor whether
the robust network made it. Source: `write_csv` of SynthSeg's `predict.py`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from clinical_reasoner.cohort.columns import StudyRow, read_study_table
from clinical_reasoner.cohort.visits import measure, set_aside
from clinical_reasoner.records import Measure, RejectedRow

SEGMENTER = "synthseg"
ICV_MM3 = (0.9e6, 2.2e6)
"""Beyond it a total intracranial volume is a failed segmentation."""
_LARGEST_MM3 = 3e6
_BOTH_SIDES = {
    "hippocampus": ("hippocampus",),
    "amygdala": ("amygdala",),
    "lateral_ventricle": ("lateral ventricle",),
    "inferior_lateral_ventricle": ("inferior lateral ventricle",),
}
_PARCELS = {
    "entorhinal": "entorhinal",
    "parahippocampal": "parahippocampal",
    "fusiform": "fusiform",
    "precuneus": "precuneus",
    "superior_parietal": "superiorparietal",
    "frontal": "superiorfrontal rostralmiddlefrontal caudalmiddlefrontal parsopercularis parsorbitalis "
    "parstriangularis lateralorbitofrontal medialorbitofrontal precentral paracentral frontalpole",
    "temporal": "superiortemporal middletemporal inferiortemporal bankssts fusiform transversetemporal entorhinal "
    "temporalpole parahippocampal",
    "parietal": "superiorparietal inferiorparietal supramarginal postcentral precuneus",
    "occipital": "lateraloccipital lingual cuneus pericalcarine",
}
"""Measure -> its Desikan-Killiany parcels."""
STRUCTURES: Mapping[str, tuple[str, ...]] = {
    **{name: tuple(f"{side} {one}" for side in ("left", "right") for one in of) for name, of in _BOTH_SIDES.items()},
    **{
        name: tuple(f"ctx-{side}-{one}" for side in ("lh", "rh") for one in of.split()) for name, of in _PARCELS.items()
    },
    "icv": ("total intracranial",),
}
"""Measure -> the columns whose sum it is."""


@dataclass(frozen=True)
class ScanVolumes:
    """What one row tells of one scan."""

    place: str
    """File name and line."""
    measures: tuple[Measure, ...]


def read_synthseg_volumes(file: Path, rejected: list[RejectedRow] | None = None) -> dict[str, ScanVolumes]:
    """Subject -> volumes, mm3. A path in the first column counts as its file name without endings.

    A measure is left out where one of its columns is not there, as those of the cortex without `--parc`. Rows that
    cannot be used are added to `rejected`. Raises StudyFileError for a file that is no such table.
    """
    columns = {"subject": ("subject", "path", "image", ""), **{one: (one,) for of in STRUCTURES.values() for one in of}}
    found: dict[str, ScanVolumes] = {}
    for row in read_study_table(file, columns, ("subject", "left hippocampus", "right hippocampus")):
        try:
            subject = subject_of(row.text("subject"))
            if subject in found:
                raise ValueError("the same subject as an earlier row")
            found[subject] = ScanVolumes(row.place, tuple(_measures(row)))
        except ValueError as error:
            if rejected is not None:
                rejected.append(set_aside(row.place, str(error)))
    return found


def subject_of(text: str | None) -> str:
    """The file name without folder and endings of a path; any other text as it is. Raises ValueError when empty."""
    name = PurePosixPath((text or "").strip().replace("\\", "/")).name
    name = re.sub(r"(\.nii|\.mgz|\.mgh)?(\.gz)?$", "", name, count=1, flags=re.IGNORECASE)
    if not name:
        raise ValueError("subject is empty")
    return name


def _measures(row: StudyRow) -> list[Measure]:
    """Measures whose columns all hold a number. Raises ValueError for a volume that cannot be one."""
    measures = []
    for name, columns in STRUCTURES.items():
        known = [row.number(column, 0.0, _LARGEST_MM3) for column in columns]
        values = [value for value in known if value is not None]
        if len(values) < len(columns):
            continue
        if sum(values) == 0:
            raise ValueError(f"{name} is 0 mm3")
        measures.append(measure(name, sum(values)))
        if name == "icv" and not ICV_MM3[0] <= sum(values) <= ICV_MM3[1]:
            raise ValueError(f"icv is outside {ICV_MM3[0] / 1e6:g} to {ICV_MM3[1] / 1e6:g} litres")
    if not measures:
        raise ValueError("no volumes")
    return measures
